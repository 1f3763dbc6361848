"""The explorer is judged: a controller with one thing wrong is found, and the schedule that shows it is a shortest one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hwvirt.cli.explored import show
from hwvirt.rig.explore.scenario import SCENARIOS
from hwvirt.rig.explore.search import Bounds, Outcome, Violation, explore
from tests.meta.planting import planted
from tests.rig.explore import defects

STATES = 4000


def found(defect: Callable[[], None], name: str) -> tuple[Outcome, Violation]:
    """What exploration of the scenario says of controllers with this defect."""
    scenario = SCENARIOS[name]
    with planted(defect):
        outcome = explore(scenario, Bounds(scenario.depth, scenario.budget, STATES))
    assert outcome.violation is not None
    return outcome, outcome.violation


CASES: list[tuple[Callable[[], None], str, str, list[str]]] = [
    (
        defects.reply_of_an_old_epoch,
        "late-replies",
        "A's durable map names position 1 of generation 1 for block 0, which B's durable ledger does not have",
        [
            "the host asks: WRITE of block 0",
            "B receives WRITE of block 0 with sequence 2",
            "A receives WRITTEN at position 1 of generation 1",
            "the host asks: FLUSH",
            "A finds the connection broken, the other side does not",
            "A connects",
            "B receives ATTACH with durable sequence 0",
            "A receives ATTACHED to epoch 30101, last sequence 2",
            "A receives FLUSHED in epoch 30101 of the former connection",
        ],
    ),
    (
        defects.write_done_twice,
        "write-path",
        "exact: orphan at lba 0: position 1 is live, but no map entry names it",
        ["the host asks: WRITE of block 0", "A finds the connection broken, the other side does not"],
    ),
    (
        defects.not_sent_again,
        "epoch-change",
        "link.mend-failed: link: volume 0: the ledger of the second controller lacks 2 positions that the map names",
        ["B crashes and starts again, a power cut: what was not durable is lost"],
    ),
    (
        defects.forgotten_with_the_answer,
        "epoch-change",
        "link.mend-failed: link: volume 0: the ledger of the second controller lacks 2 positions that the map names",
        ["B crashes and starts again, a power cut: what was not durable is lost"],
    ),
    (
        defects.adopted_before_it_is_durable,
        "epoch-change",
        "link.mend-failed: link: volume 0: the ledger of the second controller lacks 2 positions that the map names",
        [
            "A crashes and starts again, a power cut: what was not durable is lost",
            "A connects",
            "B receives ATTACH with durable sequence 1",
            "A receives ATTACHED to epoch 30101, last sequence 3",
            "B receives QUERY",
            "B crashes and starts again, a power cut: what was not durable is lost",
        ],
    ),
    (
        defects.late_landing,
        "write-path",
        "content: late at lba 0: position 2 of the second disk holds volume 0 lba 0 version 1",
        [
            "the host asks: WRITE of block 0",
            "A finds the connection broken, the other side does not",
            "nothing arrives any more, until both sides give the connection up",
        ],
    ),
    (
        defects.doubt_forgotten,
        "reuse",
        "exact: orphan at lba 0: position 2 is live, but no map entry names it",
        [
            "the host asks: WRITE of block 0",
            "B receives WRITE of block 0 with sequence 3",
            "the connection breaks, both sides see it at once, and what was under way is lost",
            "the stall passes",
        ],
    ),
    (
        defects.flush_trusted,
        "failed-flush",
        "A's durable map names position 2 for block 0, where its data is not durable",
        [
            "the host asks: WRITE of block 0",
            "B receives WRITE of block 0 with sequence 3",
            "the host asks: FLUSH",
            "the next flush of B's disk will fail",
            "B receives FLUSH",
        ],
    ),
    (
        defects.read_before_it_is_durable,
        "slow",
        "A's durable map names position 0 of generation 1 for block 0, which B's durable ledger does not have",
        [
            "the host asks: WRITE of block 0",
            "B receives WRITE of block 0 with sequence 2",
            "a write of the disk ends at B",
            "A receives WRITTEN at position 1 of generation 1",
            "the host asks: WRITE of block 1",
            "B receives WRITE of block 1 with sequence 3",
            "the host asks: FLUSH",
            "B receives FLUSH",
            "a flush of the disk ends at B",
            "sync ends at B",
            "A receives FLUSHED in epoch 30101",
            "A crashes and starts again, the process alone: disk and files keep everything",
            "B crashes and starts again, a power cut: what was not durable is lost",
        ],
    ),
]


@pytest.mark.parametrize(("defect", "name", "problem", "schedule"), CASES, ids=[case[0].__name__ for case in CASES])
def test_defect_is_found_with_a_shortest_schedule(
    defect: Callable[[], None], name: str, problem: str, schedule: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    outcome, violation = found(defect, name)
    assert violation.problems[0].startswith(problem)
    assert list(violation.words) == schedule
    show([outcome], interrupted=False)
    printed = capsys.readouterr().out
    lines = [f"  {number}. {words}" for number, words in enumerate(schedule, 1)]
    assert "\n".join(["A shortest schedule:", *lines]) + "\n" in printed
    assert f"Once more: hwvirt explore {name} --depth {len(schedule)} --faults 2 --states {STATES}\n" in printed


FLUSHES = [
    (
        defects.answered_before_the_ledger,
        "slow",
        "A's durable map names position 1 of generation 1 for block 0, which B's durable ledger does not have",
        [
            "the host asks: WRITE of block 0",
            "B receives WRITE of block 0 with sequence 2",
            "a write of the disk ends at B",
            "A receives WRITTEN at position 1 of generation 1",
            "the host asks: WRITE of block 1",
            "B receives WRITE of block 1 with sequence 3",
            "a write of the disk ends at B",
            "A receives WRITTEN at position 2 of generation 1",
            "the host asks: FLUSH",
            "B receives FLUSH",
            "A receives FLUSHED in epoch 30101",
            "sync ends at A",
        ],
    ),
    (
        defects.reused_too_early,
        "reuse",
        "A's durable map names position 0 of generation 1 for block 0, which B's durable ledger does not have",
        [
            "the host asks: WRITE of block 0",
            "B receives WRITE of block 0 with sequence 3",
            "A receives WRITTEN at position 2 of generation 1",
            "B receives FREE of position 0 of generation 1",
            "A receives DONE",
            "the host asks: FLUSH",
            "B receives FLUSH",
        ],
    ),
]


@pytest.mark.parametrize(("defect", "name", "problem", "story"), FLUSHES, ids=[case[0].__name__ for case in FLUSHES])
def test_defect_that_needs_no_fault_is_found_with_what_leads_to_it(
    defect: Callable[[], None], name: str, problem: str, story: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    outcome, violation = found(defect, name)
    assert violation.problems[0] == problem
    assert (violation.schedule, list(violation.healing)) == ((), story)
    show([outcome], interrupted=False)
    lines = [f"  {number}. {words}" for number, words in enumerate(story, 1)]
    assert "\n".join(["It happens by itself:", *lines]) + "\n" in capsys.readouterr().out
