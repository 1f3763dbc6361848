"""A run that is interrupted takes everything down, says so, and is not cut short by a second signal."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hwvirt.controller.ask import call
from hwvirt.errors import ExitCode
from hwvirt.trace import Event
from tests.rig.run.kit import FILL, JUDGE, REDIRECT, Spectator, assert_nothing_left, rig_of, run, workload

END_S = 60.0
OPS = 1_000_000
_LOOK_S = 0.02
INTERRUPTED = "interrupted in step 3 of 4, workload of scenario 'a small story'"


class Running:
    """`hwvirt run` as a process, seen through its run folder."""

    def __init__(self, process: subprocess.Popen[str], runs: Path) -> None:
        self.process = process
        self._runs = runs

    @property
    def folder(self) -> Path:
        """Its run folder."""
        return (self._runs / "latest").resolve()

    def wait_for(self, event: Callable[[dict[str, Any]], bool], times: int = 1) -> None:
        """Returns when events.ndjson has so many such events."""
        deadline = time.monotonic() + END_S
        while sum(map(event, self._events())) < times:
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(_LOOK_S)

    def _events(self) -> Iterator[dict[str, Any]]:
        path = self._runs / "latest/events.ndjson"
        for line in path.read_text().splitlines(keepends=True) if path.exists() else ():
            if line.endswith("\n"):
                yield json.loads(line)

    def pids(self) -> dict[str, int]:
        """The controllers' processes."""
        sockets = {path.stem: json.loads(path.read_bytes())["control"] for path in self.folder.glob("[ab].json")}
        return {name: call(Path(socket), "status")["pid"] for name, socket in sockets.items()}


@contextmanager
def running(tmp_path: Path) -> Iterator[Running]:
    """A run in the middle of a workload that takes a minute at least."""
    rig, runs = tmp_path / "rig.yaml", tmp_path / "runs"
    rig.write_text(rig_of(FILL, REDIRECT, workload(OPS, blocks="1..1"), JUDGE))
    with subprocess.Popen(
        [sys.executable, "-m", "hwvirt", "run", str(rig), "--runs", str(runs), "--no-live"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            going = Running(process, runs)
            going.wait_for(lambda event: event["name"] == "step.progress" and event["fields"]["total"] == OPS)
            yield going
        except BaseException:
            process.terminate()  # not killed: it has processes of its own to end
            raise


def _interrupted(event: dict[str, Any]) -> bool:
    told = event["name"] == "rig.failed" and event["fields"]["reason"].startswith("interrupted")
    return bool(told or event["name"] == "rig.closing")


def assert_ends(going: Running, pids: dict[str, int]) -> None:
    """It ends with 130, tells so in its report, and nothing is left."""
    out, err = going.process.communicate(timeout=END_S)
    assert (going.process.returncode, out) == (130, "")
    assert "Traceback" not in err
    report = json.loads((going.folder / "report.json").read_bytes())
    (reason,) = report["reasons"]
    assert (report["verdict"], report["exit_code"]) == ("interrupted", 130)
    found = re.fullmatch(rf"{re.escape(INTERRUPTED)}, at (\d+) of {OPS}", reason)
    assert found
    assert 0 < int(found[1]) < OPS
    assert f"  once more   {report['replay']}\n" in err
    assert shlex.split(report["replay"])[-4:] == ["run", str(going.folder.parents[1] / "rig.yaml"), "--seed", "5"]
    assert [(step["name"], step["failure"], step["blocked"]) for step in report["steps"]] == [
        ("fill", "", False),
        ("redirect", "", False),
        ("workload", reason, False),
        ("judge", "", True),
    ]
    assert report["counts"]["acknowledged"] > 0
    assert (going.folder / "junit.xml").exists()
    assert_nothing_left(going.folder, pids.values())
    assert sorted(pids) == ["a", "b"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_interrupted_run_takes_everything_down_first(number: signal.Signals, tmp_path: Path) -> None:
    with running(tmp_path) as going:
        pids = going.pids()
        going.process.send_signal(number)
        assert_ends(going, pids)


def test_interruption_of_the_teardown_changes_nothing(tmp_path: Path) -> None:
    def interrupt(event: Event, _: Spectator) -> None:
        if event.name == "step.finished" and event.fields["name"] == "judge":
            os.kill(os.getpid(), signal.SIGINT)

    ran = run(rig_of(FILL, REDIRECT, workload(200), JUDGE), tmp_path, on_event=interrupt)
    assert (ran.code, ran.report["verdict"], ran.report["reasons"]) == (ExitCode.PASSED, "passed", [])
    told = [(event.name, event.source) for event in ran.events]
    assert [
        one for one in told if one[0] in ("rig.closing", "controller.stopped")
    ] == [("rig.closing", "rig"), ("controller.stopped", "a"), ("controller.stopped", "b")]


def test_second_interruption_does_not_cut_the_teardown_short(tmp_path: Path) -> None:
    with running(tmp_path) as going:
        pids = going.pids()
        os.kill(pids["a"], signal.SIGSTOP)  # who is to stop first keeps the teardown waiting
        try:
            for times in (1, 2):
                going.process.send_signal(signal.SIGINT)
                going.wait_for(_interrupted, times)
        finally:
            os.kill(pids["a"], signal.SIGCONT)
        assert_ends(going, pids)
        assert "link: closed by this controller." in (going.folder / "a.log").read_text()  # it was stopped and not killed
