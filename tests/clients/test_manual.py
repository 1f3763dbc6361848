"""docs/controller.md is right: its example runs as it stands there, and it names every key and every verb. So is README."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from pathlib import Path

import msgspec
import pytest

from hwvirt.controller.ask import call
from hwvirt.controller.config import (
    Config,
    DiskConfig,
    GuardConfig,
    LinkConfig,
    LunConfig,
    NbdConfig,
    SerialConfig,
    StoreConfig,
    TlsConfig,
    WindowConfig,
)
from hwvirt.controller.config_file import load_config

from .by_hand import serving
from .kit import PROGRAM, ROOT, RigUp, good, hwvirt, qemu_io

README = (ROOT / "README.md").read_text()
MANUAL = (ROOT / "docs/controller.md").read_text()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the manual tells to make, with ports that are free here."""
    ports = {"7400": str(free_port()), "10809": str(free_port())}
    for text in re.findall(r"```json\n(.*?)```", MANUAL, flags=re.DOTALL):
        (name,) = re.findall(r'^  "name": "(\w)"', text, flags=re.MULTILINE)
        (tmp_path / f"{name}.json").write_text(re.sub("|".join(ports), lambda found: ports[found[0]], text))
    (shell,) = re.findall(r"```sh\n(.*?)```", MANUAL, flags=re.DOTALL)
    making = [line for line in shell.splitlines() if not line.startswith("hwvirt controller")]
    subprocess.run(["sh", "-ec", "\n".join(making)], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_example_runs_as_it_stands(example: Path) -> None:
    with serving(example / "b.json"), serving(example / "a.json") as a:
        config = load_config(example / "a.json")
        assert a.nbd_port == config.nbd.port
        uri = f"nbd://127.0.0.1:{config.nbd.port}"
        qemu_io(f"{uri}/lun0", "write -P 1 0 1M", "read -P 1 0 1M")
        qemu_io(f"{uri}/lun2", "write -P 2 0 1M", "read -P 2 0 1M")
        assert good("nbdinfo", "--size", f"{uri}/lun1") == f"{16 << 20}\n"
        assert hwvirt("ctl", "a.sock", "status", cwd=example).code == 0
        assert call(Path("a.sock"), "status")["luns"][0]["mapped_blocks"] == 256
    assert sorted(path.name for path in example.iterdir()) == [
        "a.json", "a.state", "b.json", "b.state", "first.img", "second.img", "secret",
    ]  # fmt: skip


def test_stop_and_start_keep_everything(example: Path) -> None:
    uri = f"nbd://127.0.0.1:{load_config(example / 'a.json').nbd.port}/lun0"
    with serving(example / "b.json"), serving(example / "a.json"):
        qemu_io(uri, "write -P 1 0 1M", "write -P 2 4k 4k", "discard 64k 64k")
        before = call(Path("a.sock"), "map")
    with serving(example / "b.json"), serving(example / "a.json"):
        qemu_io(uri, "read -P 1 0 4k", "read -P 2 4k 4k", "read -P 0 64k 64k", "read -P 1 128k 896k")
        assert call(Path("a.sock"), "map") == before


@pytest.mark.parametrize(
    "part",
    [Config, DiskConfig, GuardConfig, WindowConfig, LunConfig, StoreConfig, LinkConfig, SerialConfig, TlsConfig, NbdConfig],
    ids=lambda part: part.__name__,
)
def test_manual_names_every_key(part: type[msgspec.Struct]) -> None:
    keys = [field.name for field in msgspec.structs.fields(part)]
    assert [key for key in keys if f"`{key}`" not in MANUAL and f'"{key}":' not in MANUAL] == []


def test_example_of_a_guard_is_a_configuration(example: Path) -> None:
    (disk,) = re.findall(r'^    ("disk": \{\n.*?^    \}$)', MANUAL, flags=re.DOTALL | re.MULTILINE)
    config = json.loads((example / "a.json").read_text()) | json.loads(f"{{{disk}}}")
    config["luns"][0]["lba"] = 2048
    (example / "a.json").write_text(json.dumps(config))
    assert isinstance(load_config(example / "a.json").disk.guard, GuardConfig)


def test_manual_names_every_verb(example: Path) -> None:
    with serving(example / "b.json"):
        said = hwvirt("ctl", "b.sock", "quit", cwd=example).err  # near to none of them
    (known,) = re.findall(r"Known: (.*)\.$", said.strip())
    assert re.findall(r"^\| `(\w+)` \| (?=\||`lun=|`after=)", MANUAL, flags=re.MULTILINE) != []
    assert [verb for verb in known.split(", ") if not re.search(rf"^\| `{verb}` \|", MANUAL, flags=re.MULTILINE)] == []


def test_commands_of_the_readme_for_a_rig_that_is_up_do_what_they_say(redirecting: RigUp, tmp_path: Path) -> None:
    (tmp_path / "fs.img").write_bytes(b"any image" * 4096)
    commands = [line.strip() for line in README.splitlines() if re.search(r"^    .*(PORT|ctl SOCKET)", line)]
    assert [command.split()[0] for command in commands] == ["hwvirt", "nbdinfo", "nbdcopy", "fio", "hwvirt"]
    for command in commands:
        words = re.split(r" {2,}", command)[0].replace("PORT", str(redirecting.port("a", 0)))
        program, *arguments = words.replace("SOCKET", str(redirecting.socket("a"))).split()
        good(*(PROGRAM if program == "hwvirt" else (program,)), *arguments, cwd=tmp_path)
    assert redirecting.status("a")["luns"][0]["state"] == "own"
