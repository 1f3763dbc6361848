"""What the kernel of a rig is given before the rig runs in it. No kernel boots here: a stand-in notes what it gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from hwvirt.errors import UsageError
from hwvirt.lab.disks import TcmLoop
from hwvirt.lab.kernel import SHARE_IN_GUEST
from hwvirt.lab.process import LabError
from hwvirt.rig.certificates import generate, papers_of, with_papers
from hwvirt.rig.disks import guest_spec
from hwvirt.rig.file import parse_rig
from hwvirt.rig.in_lab import run_in_lab
from hwvirt.rig.watcher import Streamer
from hwvirt.units import Deadline


class StandIn:
    """A kernel that is up and starts nothing."""

    made: StandIn

    def __init__(self, name: str, directory: Path, *, disks: Sequence[Path], environment: dict[str, str], **_: Any) -> None:
        self.name, self.share, self.console = name, directory / "share", directory / "console.log"
        self.disks = {f"/dev/ubd{chr(ord('a') + number)}": image.name for number, image in enumerate(disks)}
        self.environment = environment
        self.command: list[str] = []
        self.share.mkdir()
        StandIn.made = self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def wait_up(self, deadline: Deadline) -> float:
        """As the kernel says it."""
        return 0.0

    def start(self, command: list[str], **_: Any) -> None:
        """Here the rig would run."""
        self.command = command
        raise LabError("this is as far as it goes")


@pytest.fixture(autouse=True)
def no_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def folder() -> Iterator[Path]:
        place = tmp_path / "lab"
        place.mkdir()
        yield place

    monkeypatch.setattr("hwvirt.rig.in_lab.passing_folder", folder)
    monkeypatch.setattr("hwvirt.rig.in_lab.Kernel", StandIn)


def given(text: str, place: Path) -> StandIn:
    """What the rig's kernel was given."""
    path = place / "rig.yaml"
    path.write_text(text)
    with pytest.raises(LabError, match="as far as it goes"):
        run_in_lab(parse_rig(text, path), place / "runs", Streamer())
    return StandIn.made


FILES = "{authority: papers/authority.pem, certificate: papers/certificate.pem, key: papers/key.pem}"
TLS = f"""\
rig: encrypted
disks: {{one: {{tcmu: {{size: 1MiB}}}}, two: {{tcmu: {{size: 2MiB}}}}}}
controllers: {{a: {{disk: one, luns: {{0: redirect}}}}, b: {{disk: two}}}}
link: {{ethernet: {{tls: {{files: {{a: {FILES}, b: {FILES}}}}}}}}}
scenarios: [{{name: x, steps: [{{judge: all}}]}}]
"""


def test_files_of_the_links_tls_come_along(tmp_path: Path) -> None:
    (papers,) = generate("a").values()
    papers.write(tmp_path / "papers")
    kernel = given(TLS, tmp_path)
    inside = kernel.command[kernel.command.index("--papers") + 1]
    assert Path(inside).parent == SHARE_IN_GUEST
    folder = kernel.share / Path(inside).name
    assert papers_of(with_papers(parse_rig(TLS, tmp_path / "elsewhere.yaml"), folder)) == {"a": papers, "b": papers}
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*.pem")} == {0o600}


def test_file_of_the_links_tls_that_is_not_there_is_told_before_anything_boots(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        run_in_lab(parse_rig(TLS, tmp_path / "rig.yaml"), tmp_path / "runs", Streamer())
    missing = tmp_path / "papers/authority.pem"
    assert str(caught.value) == (
        f"link TLS {missing}: No such file or directory. Correct `link.ethernet.tls` of the rig."
    )
    assert not (tmp_path / "lab").exists()


def test_rig_whose_certificates_the_run_makes_brings_none_along(tmp_path: Path) -> None:
    text = TLS.replace(f"{{files: {{a: {FILES}, b: {FILES}}}}}", "generated")
    assert "--papers" not in given(text, tmp_path).command
    rig = parse_rig(text, tmp_path / "rig.yaml")
    assert with_papers(rig, tmp_path).link == rig.link


def test_disks_whose_names_look_alike_keep_their_data_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("d-1", "d_1", "d.1", "D-1")
    disks = ", ".join(f"{name}: {{tcm-loop: {{size: 1MiB, backing: file}}}}" for name in names)
    text = (
        f"rig: alike\ndisks: {{{disks}}}\ncontrollers: {{a: {{disk: d-1, luns: {{0: own}}}}}}\n"
        "scenarios: [{name: x, steps: [{judge: all}]}]\n"
    )
    kernel = given(text, tmp_path)
    for name, value in kernel.environment.items():
        monkeypatch.setenv(name, value)
    specs = parse_rig(text, tmp_path / "rig.yaml").disks
    with ExitStack() as stack:
        made = {name: guest_spec(name, specs[name], tmp_path, stack) for name in names}
    assert {name: kernel.disks[disk.backing] for name, disk in made.items() if isinstance(disk, TcmLoop)} == {
        name: f"{name}.img" for name in names
    }
