"""What a run has counted is the same in report.json, on the console and in the last event; also of a broken-off step."""

from __future__ import annotations

import os
import re
import signal
from dataclasses import asdict
from pathlib import Path

from hwvirt.console.model import ConsoleModel
from hwvirt.console.summary import summary
from hwvirt.errors import ExitCode
from hwvirt.trace import Event
from tests.rig.run.kit import FILL, FLUSH, JUDGE, REDIRECT, Ran, Spectator, rig_of, run, workload


def console_of(events: list[Event]) -> ConsoleModel:
    model = ConsoleModel()
    for event in events:
        model.apply(event)
    return model


def assert_all_tell_the_same(ran: Ran) -> None:
    counts = ran.report["counts"]
    assert ran.events[-1].fields["counts"] == counts
    model = console_of(ran.events)
    assert asdict(model.counts) == {name: count for name, count in counts.items() if name != "mismatches"}
    lines = [row.plain for row in summary(model, 0.0)]
    told = "   ".join(f"{name.replace('_', ' ')} {counts[name]:,}" for name in (
        "acknowledged", "failed", "in_doubt", "reads", "flushes"
    ))  # fmt: skip
    assert f"  {told}" in lines


def test_report_and_console_have_the_same_counts(tmp_path: Path) -> None:
    ran = run(rig_of(FILL, REDIRECT, workload(200, mix="40/40/10/10"), FLUSH, JUDGE), tmp_path)
    assert ran.code == ExitCode.PASSED
    counts = ran.report["counts"]
    done = counts["acknowledged"] - counts["fills"] + counts["reads"] + counts["flushes"]
    assert (done, counts["fills"]) == (200 + 2, 4), "each operation, the flush of the fill and that of the step"
    assert_all_tell_the_same(ran)
    before_the_end = console_of([event for event in ran.events if event.name != "rig.finished"])
    assert before_the_end.counts == console_of(ran.events).counts, "nothing is known at the end only"


def test_counts_of_a_fill_that_is_interrupted_are_told(tmp_path: Path) -> None:
    def interrupt(event: Event, _: Spectator) -> None:
        if event.name == "step.progress" and not told:
            told.append(event.fields["acknowledged"])
            os.kill(os.getpid(), signal.SIGINT)

    told: list[int] = []
    ran = run(rig_of(FILL, JUDGE, first="256MiB", second="320MiB"), tmp_path, on_event=interrupt)
    assert ran.code == ExitCode.INTERRUPTED
    assert re.fullmatch(r"interrupted in step 1 of 2, fill of scenario 'a small story', at \d+ of 256", ran.reason)
    counts = ran.report["counts"]
    assert 0 < told[0] <= counts["acknowledged"] == counts["fills"] < 256
    assert counts["flushes"] == 0
    assert_all_tell_the_same(ran)
