"""A run folder that takes nothing more ends the run at once, with the file, the reason and the next step."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from hwvirt.errors import ExitCode
from hwvirt.rig.file import load_rig
from hwvirt.rig.runner import RunOptions, run_rig
from hwvirt.trace import Event
from tests.rig.run.kit import FILL, JUDGE, REDIRECT, Ran, Spectator, assert_nothing_left, rig_of, run, workload

OPS = 1_000_000  # it takes minutes, if nothing ends it
RIG = rig_of(FILL, REDIRECT, workload(OPS, blocks="1..1"), JUDGE, first="256KiB", second="1MiB")
FULL = "cannot write FOLDER/events.ndjson: No space left on device. Make room, or name another folder for runs."


def fill_up(folder: Path) -> None:
    """From now on nothing more fits into the events of a run of this process."""
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            if Path(os.readlink(entry)) == (folder / "events.ndjson").resolve():
                with open("/dev/full", "wb") as full:
                    os.dup2(full.fileno(), int(entry.name))


@pytest.fixture(autouse=True)
def _steps_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that nothing ends fails the test a minute later, and not a quarter of an hour."""
    monkeypatch.setattr("hwvirt.rig.runner.STEP_S", 60.0)


class Filler:
    """Fills the folder up in the middle of the workload; a signal follows the first event that is not recorded."""

    def __init__(self, signal_then: signal.Signals | None = None) -> None:
        self.full = False
        self._signal_then = signal_then

    def __call__(self, event: Event, spectator: Spectator) -> None:
        if self.full and self._signal_then is not None:
            os.kill(os.getpid(), self._signal_then)
            self._signal_then = None
        if event.name == "step.progress" and event.fields["total"] == OPS and not self.full:
            self.full = True
            fill_up(spectator.folder)


def assert_ended_early(ran: Ran, code: ExitCode, reason: str) -> None:
    assert (ran.code, ran.reason.replace(str(ran.folder), "FOLDER")) == (code, reason)
    steps = [(step["name"], step["failure"], step["blocked"]) for step in ran.report["steps"]]
    assert steps == [
        ("fill", "", False),
        ("redirect", "", False),
        ("workload", ran.reason, False),
        ("judge", "", True),
    ]
    assert 0 < ran.report["counts"]["acknowledged"] < OPS
    assert [event.name for event in ran.events].count("rig.failed") == 1
    assert (ran.events[-1].name, ran.events[-1].fields["exit_code"]) == ("rig.finished", code)


def test_full_run_folder_ends_the_run(tmp_path: Path) -> None:
    ran = run(RIG, tmp_path, on_event=Filler())
    assert_ended_early(ran, ExitCode.INFRASTRUCTURE, FULL)


def test_signal_after_that_changes_nothing(tmp_path: Path) -> None:
    ran = run(RIG, tmp_path, on_event=Filler(signal.SIGTERM))
    assert_ended_early(ran, ExitCode.INFRASTRUCTURE, FULL)


def test_signal_ends_a_run_also_when_nobody_can_be_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def interrupt(event: Event, _: Spectator) -> None:
        if event.name == "step.progress" and event.fields["total"] == OPS and not sent:
            sent.append(signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        elif event.name == "rig.failed":
            raise OSError("nobody listens")

    sent: list[signal.Signals] = []
    ran = run(RIG, tmp_path, on_event=interrupt)
    assert_ended_early(ran, ExitCode.INTERRUPTED, ran.reason)
    assert ran.reason.startswith("interrupted in step 3 of 4, workload of scenario 'a small story', at ")
    assert "nobody listens" in caplog.text


def test_folder_that_is_full_at_the_end_is_no_pass(tmp_path: Path) -> None:
    def fill(event: Event, spectator: Spectator) -> None:
        if event.name == "controller.stopped" and event.source == "a":
            fill_up(spectator.folder)

    text = rig_of(FILL, REDIRECT, workload(50, blocks="1..1"), JUDGE, first="256KiB", second="1MiB")
    ran = run(text, tmp_path, on_event=fill)
    assert (ran.code, ran.reason.replace(str(ran.folder), "FOLDER")) == (ExitCode.INFRASTRUCTURE, FULL)
    assert set(ran.verdicts.values()) == {"held"}


def test_report_that_cannot_be_written_is_no_pass(tmp_path: Path) -> None:
    def block(event: Event, spectator: Spectator) -> None:
        if event.name == "controller.stopped" and event.source == "a":
            (spectator.folder / "report.json").mkdir()

    rig, spectator = tmp_path / "rig.yaml", Spectator(tmp_path / "runs", block)
    rig.write_text(rig_of(FILL, REDIRECT, workload(50, blocks="1..1"), JUDGE, first="256KiB", second="1MiB"))
    code = run_rig(load_rig(rig), RunOptions(runs=spectator.runs, watcher=spectator))
    reason = f"cannot write {spectator.folder}/report.json: Is a directory. Name another folder for runs."
    finished = spectator.events[-1]
    assert (code, finished.name, finished.fields["exit_code"]) == (ExitCode.INFRASTRUCTURE, "rig.finished", code)
    assert finished.fields["reasons"] == [reason]
    assert_nothing_left(spectator.folder, spectator.all_pids)
