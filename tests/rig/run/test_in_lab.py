"""What the kernel of a rig is given before the rig runs in it. No kernel boots here: a stand-in notes what it gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from hwvirt.lab.disks import TcmLoop
from hwvirt.lab.process import LabError
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
