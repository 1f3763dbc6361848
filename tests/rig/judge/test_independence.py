"""The judge takes nobody's word: not for the size of a store, for what was there before, or for what only recovery reads."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwvirt.rig.judge.block import make_extent, versions_in
from hwvirt.rig.judge.evidence import Evidence, LedgerRow
from hwvirt.rig.judge.history import Fate, Kind
from hwvirt.rig.judge.judge import judge
from hwvirt.rig.judge.verdict import Outcome, Property

from .bench import BLOCK, Bench, reader, redirecting

GARBAGE = bytes(range(256)) * (BLOCK // 256)


def found(evidence: Evidence, property_: Property) -> list[tuple[str, int | None]]:
    """(class, LBA) of each card."""
    (verdict,) = judge(evidence, [property_])
    assert verdict.outcome == (Outcome.BROKEN if verdict.total else Outcome.HELD)
    return [(card.kind, card.lba) for card in verdict.violations]


def own() -> Bench:
    """A bench that redirects nothing and has been busy."""
    bench = Bench()
    bench.fill()
    bench.busy(1)
    return bench


def of_own(bench: Bench) -> Evidence:
    """What is known of a unit that redirects nothing."""
    nothing = replace(bench.evidence(), map=None, ledger=None, tombstones=None, stores=(), baseline=None, second=None)
    return replace(nothing, frozen=None)


# A unit that has no map.


def test_blocks_of_an_own_unit_are_read_from_its_disk() -> None:
    (verdict,) = judge(of_own(own()), [Property.CONTENT])
    assert (verdict.outcome, verdict.checked) == (Outcome.HELD, 64)


def test_an_own_block_that_only_memory_has_breaks_content() -> None:
    bench = own()
    disk = bytearray(bench.first)
    bench.write(12)
    assert found(replace(of_own(bench), first=reader(disk)), Property.CONTENT) in ([("stale", 12)], [("zeroes", 12)])


def test_an_own_block_of_which_nothing_is_known_may_be_anything() -> None:
    bench = Bench()
    bench.first[:BLOCK] = GARBAGE
    bench.read(0, 2)
    assert found(of_own(bench), Property.CONTENT) == []


# The store.


def test_a_store_that_believes_to_be_larger_breaks_conserved() -> None:
    assert found(replace(redirecting().evidence(), store_blocks=159), Property.CONSERVED) == [("miscount", None)]


def test_a_position_outside_the_store_is_not_even_read() -> None:
    bench = redirecting()
    lba, (position, generation, sequence) = next((lba, row) for lba, row in bench.map.items() if row[0] is not None)
    assert position is not None
    bench.map[lba] = (160, generation, sequence)
    bench.ledger[160] = bench.ledger.pop(position)._replace(position=160)
    evidence = bench.evidence()
    assert found(evidence, Property.CONSERVED) == [("misplaced", lba)]
    assert found(evidence, Property.CONTENT) == [("foreign", lba)]
    (verdict,) = judge(evidence, [Property.CONTENT])
    assert verdict.violations[0].detail == "position 160 of the second disk holds garbage: outside the store"


def test_a_row_of_a_volume_that_no_unit_is_breaks_exact() -> None:
    bench = redirecting()
    bench.ledger[150] = LedgerRow(150, 30, 1, 1, 0, 8)
    (verdict,) = judge(bench.evidence(), [Property.EXACT])
    (card,) = verdict.violations
    assert (card.kind, card.detail) == ("orphan", "position 150 is live for volume 8, which no logical unit is")


# Tombstones: nobody reads them while the map is there.


@pytest.fixture
def unmapped() -> Bench:
    """Filled and redirecting; blocks 20 and 21 are given back, block 8 was given back and written again."""
    bench = Bench()
    bench.fill()
    bench.redirect()
    bench.unmap(8)
    bench.write(8)
    bench.unmap(20, 2)
    bench.flush()
    return bench


def test_a_tombstone_that_is_older_than_a_write_is_no_matter(unmapped: Bench) -> None:
    assert unmapped.tombstones.keys() == {8, 20, 21}
    assert found(unmapped.evidence(), Property.EXACT) == []


def test_an_unmap_without_a_tombstone_breaks_exact(unmapped: Bench) -> None:
    del unmapped.tombstones[21]
    assert found(unmapped.evidence(), Property.EXACT) == [("dangling", 21)]


def test_a_tombstone_of_an_older_unmap_breaks_exact(unmapped: Bench) -> None:
    unmapped.tombstones[21] -= 1
    assert found(unmapped.evidence(), Property.EXACT) == [("stale", 21)]


@pytest.mark.parametrize("lba", [8, 30])
def test_a_tombstone_that_would_bury_data_breaks_exact(unmapped: Bench, lba: int) -> None:
    unmapped.tombstones[lba] = unmapped.sequence + 1
    assert found(unmapped.evidence(), Property.EXACT) == [("stale", lba)]


def test_a_tombstone_that_outlives_redirection_breaks_settled(unmapped: Bench) -> None:
    unmapped.discard()
    unmapped.tombstones[20] = 5
    assert found(unmapped.evidence(), Property.SETTLED) == [("left", 20)]


# What was there before.


def test_garbage_where_the_first_disk_has_zeroes_breaks_consistent() -> None:
    bench = Bench()
    bench.redirect()
    bench.read(0, 4)
    bench.first[BLOCK : 2 * BLOCK] = GARBAGE
    bench.read(0, 4)
    assert found(bench.evidence(), Property.CONSISTENT) == [("foreign", 1)]


def test_zeroes_where_the_first_disk_has_something_break_consistent() -> None:
    bench = Bench()
    bench.first[: 4 * BLOCK] = GARBAGE * 4
    bench.redirect()
    bench.first[BLOCK : 2 * BLOCK] = bytes(BLOCK)
    bench.read(0, 4)
    assert found(bench.evidence(), Property.CONSISTENT) == [("unwritten", 1)]


def test_a_block_that_was_written_before_redirection_may_have_been_anything_before() -> None:
    bench = Bench()
    bench.first[:BLOCK] = GARBAGE
    bench.read(0)
    bench.unmap(0)
    bench.redirect()
    bench.read(0)
    assert found(bench.evidence(), Property.CONSISTENT) == []


def test_what_an_earlier_run_with_the_same_seed_left_is_nobodys() -> None:
    bench = redirecting()
    number = bench.history.begin(Kind.READ, 3, 1)
    block = make_extent(7, 3, 1, 1, bench.history.writer + 1, 42, BLOCK)
    bench.history.end(number, Fate.ACKNOWLEDGED, versions_in((block,), 7, 42, 3, BLOCK, bench.history.writer))
    assert found(bench.evidence(), Property.CONSISTENT) == [("order", 3)]  # what was there first
