"""A rig that stays up for clients of others, as a process; and those clients."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from hwvirt.controller.ask import call

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "hwvirt")
END_S = 60.0

_PACKAGES = {
    "nbdinfo": "libnbd-bin",
    "nbdcopy": "libnbd-bin",
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "fio": "fio",
    "mkfs.ext4": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "debugfs": "e2fsprogs",
}
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended and what it said."""

    code: int
    out: str
    err: str


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> Ended:
    """Runs a program to its end. The test is skipped where a client of others is missing."""
    program = str(command[0])
    if program in _PACKAGES and shutil.which(program, path=_PATH) is None:
        pytest.skip(f"{program} is missing: install {_PACKAGES[program]} (tools/setup does)")
    ended = subprocess.run(
        [str(word) for word in command],
        cwd=cwd or ROOT,
        env=os.environ | {"PATH": _PATH, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        text=True,
        timeout=END_S,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def good(*command: str | Path, cwd: Path | None = None) -> str:
    """What a program printed that must succeed."""
    ended = run(*command, cwd=cwd)
    assert ended.code == 0, f"{command} ended with {ended.code}:\n{ended.out}{ended.err}"
    return ended.out


@contextmanager
def started(*command: str | Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A program that runs while the test talks to it, and not longer, whatever happens."""
    with subprocess.Popen(
        [str(word) for word in command],
        cwd=ROOT,
        env=os.environ | {"PATH": _PATH, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        except BaseException:
            process.terminate()  # not killed: it has processes of its own to end
            raise


def hwvirt(*words: str | Path, cwd: Path | None = None, **environment: str) -> Ended:
    """The program under test."""
    return run(*PROGRAM, *words, cwd=cwd, **environment)


def fio(folder: Path, *jobs: tuple[str, ...]) -> list[dict[str, Any]]:
    """Runs jobs of fio side by side on NBD exports, each verifying what it wrote. Returns its account of each job."""
    words: list[str] = []
    for number, job in enumerate(jobs):
        words += [f"--name=job{number}", "--ioengine=nbd", "--verify_state_save=0", "--verify_fatal=1", *job]
    account = folder / "fio.json"
    good("fio", "--output-format=json", f"--output={account}", *words, cwd=folder)
    told = json.loads(account.read_text())["jobs"]
    assert [job["error"] for job in told] == [0] * len(jobs)
    return list(told)


def qemu_io(uri: str, *commands: str) -> str:
    """Runs commands of qemu-io on an export, each of which must succeed."""
    words = [word for command in commands for word in ("-c", command)]
    out = good("qemu-io", "-f", "raw", *words, uri)
    assert "Pattern verification failed" not in out  # qemu-io says so and still ends with 0
    return out


class RigUp:
    """`hwvirt up RIG --json`, running."""

    def __init__(self, rig: Path, folder: Path) -> None:
        self.folder = folder
        self.errors = folder.with_suffix(".err")
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*PROGRAM, "up", str(rig), "--json"],
                cwd=ROOT,
                env=os.environ | {"TMPDIR": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.errors.read_text()
        self.told: dict[str, Any] = json.loads(line)
        self.pids = {name: int(self.status(name)["pid"]) for name in self.told["controllers"]}

    def socket(self, controller: str) -> Path:
        """The control socket."""
        return Path(self.told["controllers"][controller]["socket"])

    def lun(self, controller: str, lun: int) -> dict[str, Any]:
        """What `up` tells of a LUN."""
        (found,) = [each for each in self.told["luns"] if (each["controller"], each["lun"]) == (controller, lun)]
        return dict(found)

    def uri(self, controller: str, lun: int) -> str:
        """Where a LUN is reached."""
        return str(self.lun(controller, lun)["nbd"])

    def port(self, controller: str, lun: int) -> int:
        """The TCP port of that."""
        return urlsplit(self.uri(controller, lun)).port or 0

    def ctl(self, controller: str, verb: str, *words: str) -> Any:
        """The answer to one verb, asked as a user would."""
        return json.loads(good(*PROGRAM, "ctl", self.socket(controller), verb, *words))

    def status(self, controller: str) -> Any:
        """Its status, without the cost of a process."""
        return call(self.socket(controller), "status")

    def config(self, controller: str) -> dict[str, Any]:
        """The configuration that the rig wrote for a controller."""
        (path,) = self.folder.glob(f"*/{controller}.json")
        return dict(json.loads(path.read_bytes()))

    def log(self, controller: str) -> str:
        """What a controller said so far."""
        (path,) = self.folder.glob(f"*/{controller}.log")
        return path.read_text()

    def resident_bytes(self, controller: str) -> int:
        """Memory of a controller's process."""
        pages = int(Path(f"/proc/{self.pids[controller]}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")

    def begin_anew(self, lun: int = 0) -> None:
        """LUN of controller a redirects, and nothing is redirected yet."""
        if self.status("a")["luns"][lun]["state"] != "own":
            call(self.socket("a"), "discard", {"lun": lun})
        call(self.socket("a"), "redirect", {"lun": lun})

    def end(self) -> None:
        """SIGTERM, and then everything that the rig made must be gone."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=END_S)
        assert (self.process.returncode, out, self.errors.read_text()) == (0, "", "")
        assert [str(path) for path in self.folder.rglob("*")] == []
        assert [pid for pid in self.pids.values() if Path(f"/proc/{pid}").exists()] == []
        assert _processes_that_name(self.folder) == []
        for port in {urlsplit(lun["nbd"]).port for lun in self.told["luns"]}:
            with socket.socket() as probe:
                assert probe.connect_ex(("127.0.0.1", port)) != 0

    def give_up(self) -> None:
        """Ends it somehow: the test has failed already."""
        self.process.terminate()
        try:
            self.process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()


@contextmanager
def rig_up(rig: Path) -> Iterator[RigUp]:
    """Brings a rig up; takes it down at the end and sees that nothing is left. Sockets need a short path."""
    with tempfile.TemporaryDirectory(prefix="hv-") as place:
        folder = Path(place) / "up"
        folder.mkdir()
        up = RigUp(rig, folder)
        try:
            yield up
        except BaseException:
            up.give_up()
            raise
        if up.process.returncode is None:
            up.end()


def _processes_that_name(folder: Path) -> list[str]:
    named = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = command.read_bytes().decode(errors="replace")
        except OSError:
            continue  # it has ended meanwhile
        if str(folder) in words:
            named.append(words)
    return named
