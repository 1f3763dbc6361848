"""Runs of unmapped blocks against a table of single blocks; and how the ledger keeps them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwvirt.controller import tombstones
from hwvirt.controller.allocator import Allocator
from hwvirt.controller.ledger import Kind, Ledger
from hwvirt.controller.tombstones import Tombstones
from hwvirt.link.messages import Slice

BLOCKS = 40
changes = st.tuples(st.integers(0, BLOCKS - 1), st.integers(1, BLOCKS), st.integers(0, 9))


@pytest.fixture(params=[16, 1 << 14], autouse=True)
def section(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sections of a few blocks, which runs reach over, and as large as they are."""
    monkeypatch.setattr(tombstones, "_SECTION_BLOCKS", request.param)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)  # nothing of it is kept in the section
@given(st.lists(changes, max_size=30), st.integers(0, BLOCKS))
def test_each_block_has_its_newest_unmap(story: list[tuple[int, int, int]], since: int) -> None:
    tombs, expected = Tombstones(), dict[int, int]()
    for lba, blocks, sequence in story:
        touched = range(lba, lba + blocks)
        if sequence:
            tombs.bury(lba, blocks, sequence)
            expected |= {at: max(sequence, expected.get(at, 0)) for at in touched}
        else:
            tombs.drop(lba, blocks)
            expected = {at: newest for at, newest in expected.items() if at not in touched}
        runs = list(tombs.since(0))
        assert all(one.lba + one.blocks <= other.lba for one, other in pairwise(runs))
        assert {run.lba + at: run.sequence for run in runs for at in range(run.blocks)} == expected
    assert list(tombs.since(since)) == [run for run in tombs.since(0) if run.lba >= since]


def test_an_unmap_of_everything_is_few_runs_whatever_was_unmapped_before() -> None:
    tombs, blocks = Tombstones(), 64 * tombstones._SECTION_BLOCKS
    for lba in range(0, 1000, 2):
        tombs.bury(lba, 1, lba + 1)
    assert len(tombs) == 500
    tombs.bury(0, blocks, 2000)
    assert len(tombs) == 64
    assert sum(run.blocks for run in tombs.since(0)) == blocks
    assert {run.sequence for run in tombs.since(0)} == {2000}


def ledger() -> Ledger:
    return Ledger(100, Allocator(100))


def runs(records: Ledger) -> list[tuple[int, int, int]]:
    """LBA, blocks and sequence of each; neighbours that only the edge of a section parts are one."""
    found: list[tuple[int, int, int]] = []
    for row in records.rows_of(3):
        lba, blocks, sequence = int(row["lba"]), int(row["position"]), int(row["sequence"])
        if found and (sum(found[-1][:2]), found[-1][2]) == (lba, sequence) and lba % tombstones._SECTION_BLOCKS == 0:
            lba, blocks = found[-1][0], found.pop()[1] + blocks
        found.append((lba, blocks, sequence))
    return found


def test_what_was_dropped_during_a_flush_that_failed_stays_dropped() -> None:
    records = ledger()
    records.bury(3, [Slice(10, 20, 1)])
    taken = records.take_changes()
    records.drop(3, 15, 5)
    records.put_back(taken)
    again = ledger()
    again.apply(records.take_changes())
    assert runs(again) == runs(records) == [(10, 5, 1), (20, 10, 1)]


def test_the_journal_s_rows_make_the_same_tombstones() -> None:
    records, again = ledger(), ledger()
    records.bury(3, [Slice(10, 20, 5), Slice(0, 60, 4), Slice(25, 10, 6)])
    records.drop(3, 28, 1)
    again.apply(records.take_changes())
    assert runs(again) == runs(records) == [(0, 10, 4), (10, 15, 5), (25, 3, 6), (29, 6, 6), (35, 25, 4)]
    assert again.last_sequence == 6
    assert not len(records.take_changes())
    checkpointed = ledger()
    checkpointed.apply(records.rows())
    assert runs(checkpointed) == runs(records)
    assert {int(row["kind"]) for row in records.rows()} == {Kind.TOMBSTONE}
