"""The judge is judged: a run of a controller with one thing wrong ends with the right exit code, property, class and block.

`pytest tests/meta/test_mutants.py -s` prints the whole matrix. Not shown by any run, for want of a fault that could: a map
that is made durable before the data (tests/controller/test_order.py shows that it is not).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hwvirt.errors import ExitCode
from hwvirt.rig.judge.verdict import Property
from hwvirt.rig.workload import Mix
from tests.meta.mutants import MUTANTS
from tests.meta.planting import LBA, SPOILED, UNMAPPED
from tests.rig.run.kit import (
    COMMIT,
    DISCARD,
    FILL,
    FLUSH,
    JUDGE,
    REDIRECT,
    RESTART_A,
    DurableWrites,
    FlushUntilDone,
    Mixed,
    PowerCut,
    Ran,
    rig_of,
    run,
    workload,
)

ROOT = Path(__file__).parents[2]
HERE, NEIGHBOURS, NOWHERE = {LBA}, {LBA, LBA + 1}, {None}
SAID = "what the mutant said"
ANY = "any block"
ENDS = "judge: [settled, conserved]"


class Story(NamedTuple):
    """Steps of a rig, what rig files do not have, with its place among the steps, and parts of the rig (see `rig_of`)."""

    steps: Sequence[str]
    insert: Sequence[tuple[int, Any]] = ()
    parts: Mapping[str, str] = {}


def _work(*faults: str, mix: str = "60/30/5/5", lun: int | str = 0) -> str:
    return workload(400, *faults, lun=lun, depth=8, blocks="1..1", mix=mix)


def _some(ops: int) -> str:
    return workload(ops, depth=8, blocks="1..1", mix="60/40/0/0")


_NO_PATIENCE = {"link": "stall: 100ms"}
_SMALL_STORE = "{disk: second, store: {size: 512KiB}}"
_FULL_STORE = "{disk: second, store: {size: 64KiB, overcommit: allow}}"
_FORWARD, _FORWARDED = "{0: redirect, 1: {forward: b/0}}", "{disk: second, luns: {0: {own: {size: 256KiB}}}}"
_CUT = "at: 90%, link: cut, for: 1500ms"
_UNFLUSHED = _work(mix="70/30/0/0")

STORIES = {
    "quiet": Story([FILL, REDIRECT, _work(), JUDGE]),
    "commit": Story([FILL, REDIRECT, _work(), COMMIT, ENDS]),
    "discard": Story([FILL, REDIRECT, _work(), DISCARD, ENDS]),
    "crash of b": Story([FILL, REDIRECT, _work("at: 50%, crash: b", mix="70/30/0/0"), JUDGE]),
    # Nearly all that is submitted while the cable is out fails, and each such block then has one newer write: the fill.
    "stall": Story([FILL, REDIRECT, _work(_CUT, mix="95/5/0/0"), FILL, JUDGE], [(3, FlushUntilDone())], _NO_PATIENCE),
    # After the flush nearly every block is overwritten, most more than once, and nothing of that is durable.
    "power cut": Story([FILL, REDIRECT, _UNFLUSHED, FLUSH, _UNFLUSHED, JUDGE], [(5, PowerCut())]),
    "power cut after FUA": Story([FILL, REDIRECT, JUDGE], [(2, DurableWrites(200)), (3, PowerCut())]),
    # Writes, unmaps and writes of zeroes that are up to 8 blocks long.
    "ranges": Story([FILL, REDIRECT, JUDGE], [(2, Mixed(400, Mix(write=50, read=30, flush=5, unmap=5, zero=10)))]),
    "large writes": Story([FILL, REDIRECT, FILL, JUDGE], parts={"first": "2MiB", "second": "4MiB"}),
    "nothing written before": Story([REDIRECT, _work(), JUDGE]),
    # Every position is used several times; behind the store lies a part of the disk that is nobody's.
    "small store": Story([FILL, REDIRECT, _work(), _work(), JUDGE], parts={"b": _SMALL_STORE}),
    "full store": Story([FILL, REDIRECT, _work(mix="90/10/0/0"), JUDGE], parts={"b": _FULL_STORE}),
    # The second workload is short, so that some blocks still have what the restart found.
    "restart of a": Story([FILL, REDIRECT, _work(), RESTART_A, _some(12), JUDGE]),
    "crash of a": Story([FILL, REDIRECT, _work("at: 50%, crash: a"), JUDGE]),
    "forwarded": Story(["fill: {lun: a/1}", _work(lun="a/1"), JUDGE], parts={"a": _FORWARD, "b": _FORWARDED}),
}


class Kill(NamedTuple):
    """How a mutant ends: the class of a property that convicts it, and the blocks on the cards of that class."""

    mutant: str
    story: str
    property: str
    kind: str
    lbas: object = HERE


KILLS = [
    Kill("swapped_entries", "quiet", "exact", "misdirected", NEIGHBOURS),
    Kill("swapped_entries", "quiet", "content", "misdirected", NEIGHBOURS),
    Kill("position_off_by_one", "quiet", "content", "misdirected"),
    Kill("stale_map", "quiet", "content", "stale"),
    Kill("exchanged_replies", "quiet", "exact", "misdirected", SAID),
    Kill("lost_write", "quiet", "complete", "missing"),
    Kill("first_disk_too", "quiet", "untouched", "written"),
    Kill("first_disk_too", "quiet", "untouched", "changed"),
    Kill("first_disk_too", "quiet", "frozen", "changed"),
    Kill("forgotten_unmap", "quiet", "consistent", "order", {UNMAPPED}),
    Kill("torn_block", "quiet", "content", "torn"),
    Kill("torn_block", "quiet", "consistent", "torn"),
    Kill("half_written_block", "quiet", "content", "torn"),
    Kill("half_written_block", "quiet", "exact", "torn"),
    Kill("read_past_the_map", "quiet", "consistent", "order"),
    Kill("live_frozen_lun", "quiet", "frozen", "changed"),
    Kill("position_given_twice", "quiet", "exact", "alias", SAID),
    Kill("wrong_lba_in_the_ledger", "quiet", "exact", "misdirected"),
    Kill("wrong_sequence_in_the_ledger", "quiet", "exact", "stale"),
    Kill("wrong_digest_in_the_ledger", "quiet", "exact", "torn"),
    Kill("wrong_digest_in_the_ledger", "quiet", "content", "digest"),
    Kill("forgotten_free", "quiet", "exact", "orphan", ANY),
    Kill("leak", "quiet", "conserved", "miscount", NOWHERE),
    Kill("not_sent_again", "crash of b", "complete", "missing", SAID),
    Kill("late_landing", "stall", "fenced", "late", SAID),
    Kill("forgotten_flush", "power cut", "durable", "lost", ANY),
    Kill("ignored_fua", "power cut after FUA", "durable", "lost", ANY),
    Kill("reused_at_once", "power cut", "exact", "torn", ANY),
    Kill("commit_forgets_a_block", "commit", "settled", "stale"),
    Kill("discard_keeps_a_block", "discard", "settled", "left"),
    Kill("discard_not_sent", "discard", "settled", "left", ANY),
    Kill("end_of_a_range", "ranges", "content", "misdirected", SAID),
    Kill("zeroes_leave_the_last_block", "ranges", "consistent", "order", SAID),
    Kill("half_of_a_large_write", "large writes", "complete", "missing", ANY),
    Kill("commit_without_its_end", "commit", "settled", "stale", SAID),
    Kill("position_outside_the_store", "small store", "conserved", "misplaced", ANY),
    Kill("position_outside_the_store", "small store", "conserved", "miscount", NOWHERE),
    Kill("rows_of_nobody", "quiet", "exact", "orphan", NOWHERE),
    Kill("first_disk_for_a_moment", "quiet", "untouched", "written"),
    Kill("dropped_forward", "forwarded", "consistent", "order"),
    Kill("memory_only", "forwarded", "content", "zeroes", ANY),
    Kill("garbage_for_the_original", "nothing written before", "consistent", "foreign", ANY),
    Kill("swallowed_error", "full store", "complete", "missing", SAID),
    Kill("former_generation", "small store", "consistent", "misdirected", SAID),
    Kill("acknowledged_too_early", "quiet", "consistent", "order"),
    Kill("unmaps_without_tombstones", "quiet", "exact", "dangling", ANY),
    Kill("tombstones_of_nobody", "quiet", "exact", "orphan", NOWHERE),
    Kill("unmaps_that_a_restart_forgets", "restart of a", "complete", "missing", ANY),
    Kill("ledger_not_taken_over", "crash of a", "exact", "orphan", ANY),
]

_known: dict[tuple[str, str], Ran] = {}


def mutant_program(mutant: str) -> tuple[str, ...]:
    """What runs a mutant; its configuration follows."""
    path = f"PYTHONPATH={ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return ("env", path, sys.executable, "-m", "tests.meta.mutants", mutant)


def judged(mutant: str, story: str, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The run of a mutant in a story; each is run once."""
    if (mutant, story) not in _known:
        steps, insert, parts = STORIES[story]
        text = rig_of(*steps, **{"first": "256KiB", "second": "1MiB", **parts})
        ran = run(text, tmp_path_factory.mktemp(mutant), program=mutant_program(mutant), insert=insert)
        _known[mutant, story] = ran
        convicted = sorted({(card["property"], card["kind"]) for card in ran.report["cards"]})
        print(f"\n{mutant:<30} {story:<20} {ran.report['verdict']:<15}", *(f"{name}/{kind}" for name, kind in convicted))
    return _known[mutant, story]


@pytest.mark.parametrize("story", STORIES)
def test_a_right_controller_passes(story: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    ran = judged("nothing", story, tmp_path_factory)
    assert (ran.code, ran.report["reasons"]) == (ExitCode.PASSED, [])
    assert ran.report["counts"]["mismatches"] == 0 or story == "nothing written before"
    assert all(found["verdict"] == "held" and found["checked"] for found in ran.report["properties"].values())


@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: f"{kill.mutant}: {kill.property}/{kill.kind}")
def test_a_wrong_controller_is_convicted(kill: Kill, tmp_path_factory: pytest.TempPathFactory) -> None:
    ran = judged(kill.mutant, kill.story, tmp_path_factory)
    assert (ran.code, ran.report["verdict"]) == (ExitCode.BROKEN, "broken")
    assert ran.verdicts[kill.property] == "broken"
    assert f"{kill.property} is broken" in ran.report["reasons"]
    convicted = ran.lbas(kill.property, kill.kind)
    assert convicted
    if kill.lbas != ANY:
        assert convicted <= (_said(ran) if kill.lbas == SAID else kill.lbas)  # type: ignore[operator]  # sets, both


def _said(ran: Ran) -> set[int]:
    lines = re.findall(rf"^{SPOILED} (.*)$", ran.log("a") + ran.log("b"), re.MULTILINE)
    return {int(word) for line in lines for word in line.split()}


def test_every_property_has_a_mutant_that_breaks_it() -> None:
    assert {kill.property for kill in KILLS} == {property_.value for property_ in Property}


def test_every_mutant_is_in_a_test() -> None:
    assert {kill.mutant for kill in KILLS} | set(NOT_CONVICTED) == set(MUTANTS)


NOT_CONVICTED = ("nothing", "unreadable_block", "flush_not_sent", "deaf", "wrong_secret", "volatile_ledger")
"""The control, and those whose runs end with another exit code: test_planted.py has them."""
