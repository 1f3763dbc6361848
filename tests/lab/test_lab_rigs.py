"""The lab's rigs do what they say, on a machine whose own kernel has no SCSI."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from hwvirt.lab.process import LabError
from hwvirt.rig.file import load_rig
from hwvirt.rig.in_lab import run_in_lab
from hwvirt.trace import Event
from hwvirt.units import Deadline
from tests.lab.test_lab_kernel import living

pytestmark = pytest.mark.lab

SOON = 60.0
RIGS = Path(__file__).parents[2] / "rigs"


USUAL = ("untouched", "complete", "exact", "content", "consistent", "frozen", "conserved")


def run(name: str, tmp_path: Path, *wanted: str) -> str:
    """Runs a rig of the lab, which must pass with these properties; returns what it said."""
    rig = shutil.copy(RIGS / f"{name}.yaml", tmp_path)  # a folder that the guest does not see
    command = [sys.executable, "-m", "hwvirt", "run", str(rig), "--runs", str(tmp_path), "--no-live"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "latest/report.json").read_text())
    assert report["verdict"] == "passed"
    for one in wanted:
        found = report["properties"][one]
        assert (found["verdict"], found["checked"] > 0) == ("held", True), one
    assert (tmp_path / "latest/kernel.log").exists()
    return done.stderr


@contextmanager
def started(command: list[str], temporary: Path) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """A run that the test ends, and what it says. It is over with the test, whatever happens."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": str(temporary)}) as runner:
        assert runner.stderr is not None
        try:
            yield runner, runner.stderr
        finally:
            runner.terminate()  # not killed: it has kernels to end


def watching(pids: Iterable[int]) -> Iterator[int]:
    """A descriptor of each process that is still there; it is readable when the process has ended."""
    for pid in pids:
        with suppress(ProcessLookupError):
            yield os.pidfd_open(pid)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["lab-scsi-debug", "lab-tcm-loop", "lab-two-kernels", "lab-serial"])
def test_every_property_holds_on_disks_of_the_kernel(name: str, tmp_path: Path) -> None:
    run(name, tmp_path, *USUAL)


@pytest.mark.timeout(300)
def test_every_property_holds_while_every_fault_of_a_disk_strikes(tmp_path: Path) -> None:
    said = run("lab-tcmu-faults", tmp_path, *USUAL)
    events = map(json.loads, (tmp_path / "latest/events.ndjson").read_text().splitlines())
    (told,) = [event["fields"] for event in events if event["name"] == "disk.faults"]
    struck = told["struck"]
    assert told["disk"] == "second"
    assert struck[:2] == [1, 3], "the reset and the delays: whatever else would match, they count first"
    assert all(struck), "every fault has met a command"
    assert f"disk second: commands met by its faults: {struck}" in said


@pytest.mark.timeout(300)
def test_every_property_holds_where_power_and_cable_fail(tmp_path: Path) -> None:
    said = run("lab-power-cut", tmp_path, *USUAL, "durable", "fenced")
    for name in "ab":
        assert said.count(f"power of kernel {name} is cut") == 1
        daemons = {"a": 2, "b": 3}[name]  # one for each boot, and the step `restart: b`
        assert (tmp_path / f"latest/kernel-{name}.log").read_text().count("controller.started") == daemons


def test_what_a_runner_inside_says_that_cannot_begin_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Path(shutil.copy(RIGS / "lab-scsi-debug.yaml", tmp_path))
    monkeypatch.setattr("hwvirt.rig.in_lab.shutil", SimpleNamespace(copyfile=lambda source, target: target.touch()))
    with pytest.raises(LabError) as caught:
        run_in_lab(load_rig(rig), tmp_path / "runs", Nobody())
    why = f"{rig}:1:1: the file is empty. `hwvirt new rig NAME` writes one that runs."
    assert str(caught.value) == f"the runner in kernel bench ended with status 2: {why}"


class Nobody:
    """A `Watcher` that does not look."""

    def handle(self, event: Event) -> None:
        """See `Watcher`."""

    def status(self, name: str, report: dict[str, Any]) -> None:
        """See `Watcher`."""

    def tick(self, now: float) -> None:
        """See `Watcher`."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("ends", ["SIGINT", "SIGKILL"])
def test_a_run_that_is_ended_early_leaves_no_process_and_no_file(ends: str, tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("tmp", "runs")}
    places["tmp"].mkdir()
    command = [sys.executable, "-m", "hwvirt", "run", str(RIGS / "lab-power-cut.yaml"), "--no-live"]
    with started([*command, "--runs", str(places["runs"])], places["tmp"]) as (runner, said):
        assert any(b"power of kernel" in line for line in said)  # three kernels, and one that is about to boot again
        watched = list(watching(living(places["tmp"])))
        assert len(watched) > 6
        runner.send_signal(signal.Signals[ends])
        said.read()
        assert runner.wait(SOON) == {"SIGINT": 130, "SIGKILL": -signal.SIGKILL}[ends]
    for one in watched:
        assert select.select([one], [], [], SOON)[0], "a process outlived the run"
        os.close(one)
    deadline = Deadline.after(SOON)
    while list(places["tmp"].iterdir()) or living(places["tmp"]):
        assert not deadline.expired, list(places["tmp"].iterdir())
        time.sleep(0.01)


@pytest.mark.timeout(300)
def test_a_kernel_that_dies_by_itself_ends_the_run_at_once_and_is_named(tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "hwvirt", "run", str(RIGS / "lab-two-kernels.yaml"), "--no-live"]
    with started([*command, "--runs", str(tmp_path / "runs")], temporary) as (runner, said):
        assert any(b"workload: a/0" in line for line in said)
        kernel = {pid for pid in living(temporary) if b"umid=b\0" in Path(f"/proc/{pid}/cmdline").read_bytes()}
        for group in {os.getpgid(pid) for pid in kernel}:  # the kernel has one of its own
            os.killpg(group, signal.SIGKILL)
        rest = said.read().decode()
        assert runner.wait(SOON) == 4
    assert "workload failed: the kernel of controller b has gone. What it said is in kernel-b.log." in rest
    assert (tmp_path / "runs/latest/kernel-b.log").exists()
