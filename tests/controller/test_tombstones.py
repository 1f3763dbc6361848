"""Runs of unmapped blocks against a table of single blocks; and how the ledger keeps them."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hwvirt.controller.allocator import Allocator
from hwvirt.controller.ledger import Kind, Ledger
from hwvirt.controller.tombstones import Tombstone, Tombstones
from hwvirt.link.messages import Slice

BLOCKS = 40
changes = st.tuples(st.integers(0, BLOCKS - 1), st.integers(1, BLOCKS), st.integers(0, 9))


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


def test_an_unmap_of_everything_is_one_run_whatever_was_unmapped_before() -> None:
    tombs = Tombstones()
    for lba in range(0, 1000, 2):
        tombs.bury(lba, 1, lba + 1)
    assert len(tombs) == 500
    tombs.bury(0, 1 << 40, 2000)
    assert list(tombs.since(0)) == [Tombstone(0, 1 << 40, 2000)]


def ledger() -> Ledger:
    return Ledger(100, Allocator(100))


def runs(records: Ledger) -> list[tuple[int, int, int]]:
    return [(int(row["lba"]), int(row["position"]), int(row["sequence"])) for row in records.rows_of(3)]


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
