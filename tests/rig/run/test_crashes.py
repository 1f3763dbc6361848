"""Controllers that stop, die or lose each other keep what they promised, whether as a step or as a fault of a workload."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from hwvirt.errors import ExitCode
from hwvirt.rig.faults import restart
from hwvirt.rig.file.scenario import Crash
from hwvirt.rig.judge.history import MarkKind
from hwvirt.rig.steps import Performance
from tests.rig.run.kit import (
    COMMIT,
    CRASH_A,
    CRASH_B,
    DISCARD,
    FILL,
    FLUSH,
    JUDGE,
    LINK_CUT,
    REDIRECT,
    RESTART_A,
    RESTART_B,
    Do,
    PowerCut,
    Ran,
    rig_of,
    run,
    workload,
)

ALWAYS = {"untouched", "complete", "exact", "content", "consistent", "frozen", "conserved"}
"""What can be asked of a volume that redirects, whatever happened to it."""
ENDED = {"settled", "conserved", "consistent"}
EVENTS = [CRASH_A, CRASH_B, RESTART_A, RESTART_B]
SETTLE_S = 60.0


def assert_held(ran: Ran, properties: set[str]) -> None:
    """The run passed, and exactly these properties were judged, each about something."""
    assert (ran.code, ran.report["reasons"]) == (ExitCode.PASSED, [])
    assert set(ran.verdicts) == properties
    assert all(found["verdict"] == "held" and found["checked"] for found in ran.report["properties"].values())
    assert ran.report["counts"]["failed"] == ran.report["counts"]["mismatches"] == 0


def also_durable(event: str) -> set[str]:
    """Only a crash of the first controller makes durability a question."""
    return ALWAYS | {"durable"} if event == CRASH_A else ALWAYS


@pytest.mark.parametrize("event", EVENTS)
def test_what_stops_between_workloads_keeps_everything(event: str, tmp_path: Path) -> None:
    work = workload(mix="65/30/5/0")
    ran = run(rig_of(FILL, REDIRECT, work, event, work, JUDGE), tmp_path)
    assert_held(ran, also_durable(event))
    assert ran.report["counts"]["in_doubt"] == 0


@pytest.mark.parametrize("event", EVENTS)
def test_what_strikes_within_a_workload_keeps_everything(event: str, tmp_path: Path) -> None:
    ran = run(rig_of(FILL, REDIRECT, workload(2000, f"at: 40%, {event}"), JUDGE), tmp_path)
    interrupted = ran.report["counts"]["in_doubt"]
    if event in (CRASH_B, RESTART_B):
        assert_held(ran, ALWAYS)
        assert interrupted == 0  # the host never notices
    else:
        assert_held(ran, also_durable(event) | {"fenced"})
        assert 0 < interrupted <= 16  # what was in flight, and no more
    assert_struck(ran, event.replace(": ", " ") + " at 40%")


def test_cut_of_the_link_is_a_delay_and_nothing_else(tmp_path: Path) -> None:
    ran = run(rig_of(FILL, REDIRECT, workload(2000, f"at: 40%, {LINK_CUT}"), JUDGE), tmp_path)
    assert_held(ran, ALWAYS)
    assert ran.report["counts"]["in_doubt"] == 0
    assert_struck(ran, "cut link for 0.2s at 40%")
    assert {"link.down", "link.up"} <= {event.name for event in ran.events if event.source == "a"}


def assert_struck(ran: Ran, fault: str) -> None:
    """The fault was armed, struck and healed, in that order."""
    told = [event.name for event in ran.events if event.fields.get("fault") == fault]
    assert told == ["fault.armed", "fault.fired", "fault.healed"]


def test_power_cut_of_both_loses_nothing_that_a_flush_covered(tmp_path: Path) -> None:
    work = workload(mix="70/30/0/0")
    ran = run(rig_of(FILL, REDIRECT, work, FLUSH, work, JUDGE), tmp_path, insert=[(5, PowerCut())])
    assert_held(ran, ALWAYS | {"durable"})


@pytest.mark.parametrize(("event", "end"), [(CRASH_A, COMMIT), (CRASH_B, DISCARD)])
def test_redirection_ends_settled_after_a_crash(event: str, end: str, tmp_path: Path) -> None:
    ran = run(rig_of(FILL, REDIRECT, workload(), FLUSH, event, end, JUDGE), tmp_path)
    assert_held(ran, ENDED | {"durable"} if event == CRASH_A else ENDED)


@pytest.mark.parametrize("name", ["a", "b"])
def test_commit_survives_a_crash_in_its_middle(name: str, tmp_path: Path) -> None:
    async def commit(run: Performance) -> None:
        machines, bench, unit = run.stage.bench.machines, run.stage.bench, run.stage.unit("a", 0)
        b = machines["b"].control.last_status["pid"]
        os.kill(b, signal.SIGSTOP)  # the commit begins, and gets no block to write back
        try:
            assert (await machines["a"].control.call("commit", lun=0))["state"] == "committing"
            if name == "a":
                async with machines["a"].turn:
                    await bench.crash("a")
                    unit.history.mark(MarkKind.POWER_CUT)
                    await run.stage.drop_paths("a")
                    os.kill(b, signal.SIGCONT)
                    await bench.start("a")
            else:
                await restart(run.stage, Crash("b"))
        finally:
            if name == "a":
                os.kill(b, signal.SIGCONT)
        async with asyncio.timeout(SETTLE_S):
            while await _state(machines["a"]) != "own":  # noqa: ASYNC110  whoever has just started may be done unheard
                await asyncio.sleep(0.02)
        unit.history.mark(MarkKind.COMMIT)

    text = rig_of(FILL, REDIRECT, workload(), FLUSH, JUDGE, first="16MiB", second="32MiB")
    ran = run(text, tmp_path, insert=[(4, Do(commit))])
    assert_held(ran, ENDED | {"durable"} if name == "a" else ENDED)
    states = re.findall(r"redirect\.state +lun=0 state=(\w+)", ran.log("a"))
    # Who comes back goes on with the commit; who stayed never left it.
    assert states == ["own", "redirecting", "committing", *(["committing"] if name == "a" else []), "own"]


async def _state(machine: Any) -> str:
    (state,) = (lun["state"] for lun in (await machine.control.status())["luns"] if lun["lun"] == 0)
    return str(state)
