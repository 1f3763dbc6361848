"""Controllers may claim anything of map and ledger: the judge accuses what cannot be, and never trips over it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwvirt.rig.judge.evidence import Evidence, LedgerRow, MapRow, StoreCount, TombRow
from hwvirt.rig.judge.judge import judge
from hwvirt.rig.judge.verdict import Outcome, Property, Verdict

from .bench import Bench

BEYOND = "the {} names blocks {} to {} of a volume of 64"
CANNOT_BE = "the {} has a row that cannot be: {}"


@pytest.fixture
def sound() -> Evidence:
    """Of a volume of 64 blocks; block 3 is redirected, block 9 given back."""
    return _sound(Bench())


def _sound(bench: Bench) -> Evidence:
    bench.fill()
    bench.redirect()
    bench.write(3)
    bench.unmap(9)
    bench.flush()
    return bench.evidence()


def _with(evidence: Evidence, row: MapRow | LedgerRow | TombRow) -> Evidence:
    """The same and one row more."""
    assert evidence.map is not None
    assert evidence.ledger is not None
    assert evidence.tombstones is not None
    match row:
        case MapRow():
            return replace(evidence, map=[*evidence.map, row])
        case LedgerRow():
            return replace(evidence, ledger=[*evidence.ledger, row])
        case TombRow():
            return replace(evidence, tombstones=[*evidence.tombstones, row])


def _cards(verdicts: Iterable[Verdict]) -> list[tuple[str, str, int | None, str]]:
    return [(card.property, card.kind, card.lba, card.detail) for verdict in verdicts for card in verdict.violations]


@pytest.mark.parametrize(
    ("row", "first", "last"),
    [
        (MapRow(67, 1, None, 0, 5), 67, 67),
        (MapRow(67, 2, 150, 1, 5), 67, 68),
        (MapRow(63, 4, None, 0, 5), 64, 66),
        (MapRow(64, (1 << 62) - 1, 150, 1, 5), 64, (1 << 62) + 62),
        (TombRow(69, 3, 99, 3), 69, 71),
        (TombRow(63, 30, 1, 3), 64, 92),
    ],
)
def test_blocks_beyond_the_volume_are_accused(sound: Evidence, row: MapRow | TombRow, first: int, last: int) -> None:
    whose, reads_disk = ("map", ["content"]) if isinstance(row, MapRow) else ("ledger", [])
    cards = [card for card in _cards(judge(_with(sound, row))) if card[1] == "beyond"]
    detail = BEYOND.format(whose, first, last)
    assert cards == [(name, "beyond", first, detail) for name in ("exact", *reads_disk)]


def test_what_is_beyond_the_volume_is_no_part_of_anything_else(sound: Evidence) -> None:
    strange = _with(_with(sound, MapRow(64, 4, 150, 1, 5)), TombRow(64, 9, 99, 3))
    before, after = judge(sound), judge(strange)
    assert [verdict.checked for verdict in after] == [verdict.checked for verdict in before]
    assert {kind for _, kind, _, _ in _cards(after)} == {"beyond"}


@pytest.mark.parametrize(
    ("row", "lba", "whose", "words"),
    [
        (MapRow(2, 1, None, 0, 1 << 63), 2, "map", f"lba 2 blocks 1 generation 0 sequence {1 << 63}"),
        (MapRow(-1, 1, 4, 1, 5), None, "map", "lba -1 blocks 1 position 4 generation 1 sequence 5"),
        (MapRow(2, 0, 4, 1, 5), 2, "map", "lba 2 blocks 0 position 4 generation 1 sequence 5"),
        (MapRow(2, 1, -7, 1, 5), 2, "map", "lba 2 blocks 1 position -7 generation 1 sequence 5"),
        (MapRow(1 << 80, 1, 4, 1, 5), None, "map", f"lba {1 << 80} blocks 1 position 4 generation 1 sequence 5"),
        (TombRow(2, 1, 1 << 63, 3), 2, "ledger", f"lba 2 blocks 1 sequence {1 << 63} volume 3"),
        (TombRow(2, -1, 7, 3), 2, "ledger", "lba 2 blocks -1 sequence 7 volume 3"),
        (LedgerRow(9, 2, 1 << 70, 1, 0, 3), 2, "ledger", f"position 9 lba 2 sequence {1 << 70} generation 1 crc 0 volume 3"),
    ],
)
def test_a_number_that_nothing_has_is_accused(
    sound: Evidence, row: MapRow | LedgerRow | TombRow, lba: int | None, whose: str, words: str
) -> None:
    cards = _cards(judge(_with(sound, row), [Property.EXACT]))
    assert cards == [("exact", "impossible", lba, CANNOT_BE.format(whose, words))]


def test_a_map_with_far_more_entries_than_blocks_is_not_unrolled(sound: Evidence) -> None:
    many = replace(sound, map=[MapRow(0, 64, None, 0, 5)] * 100_000)
    (verdict,) = judge(many, [Property.EXACT])
    assert verdict.violations[0].kind == "impossible"
    assert verdict.violations[0].detail == (
        "the map has more entries than the volume has blocks, among them lba 0 blocks 64 generation 0 sequence 5"
    )
    assert verdict.checked <= 2 * 64 + 1


def test_what_cannot_be_is_left_over_when_redirection_has_ended() -> None:
    bench = Bench()
    bench.fill()
    bench.redirect()
    bench.discard()
    for row in (MapRow(67, 1, None, 0, 5), TombRow(67, 1, 5, 3), LedgerRow(-1, 2, 5, 1, 0, 3)):
        (verdict,) = judge(_with(bench.evidence(), row), [Property.SETTLED])
        assert [card.kind for card in verdict.violations] == ["impossible" if isinstance(row, LedgerRow) else "beyond"]
    of_another = LedgerRow(-1, 2, 5, 1, 0, 9)
    assert judge(_with(bench.evidence(), of_another), [Property.SETTLED])[0].outcome is Outcome.HELD


def test_an_account_that_no_64_bits_hold_is_a_leak(sound: Evidence) -> None:
    evidence = replace(sound, stores=[*sound.stores, StoreCount(160, 159 - (1 << 64), 1, 1 << 64)])
    assert _cards(judge(evidence, [Property.CONSERVED])) == [
        ("conserved", "leak", None, f"cut 2: free {159 - (1 << 64)} + freed {1 << 64} + live 1 is not capacity 160")
    ]


@pytest.mark.parametrize("lba", [3, 9])
def test_a_block_that_also_reads_as_zeroes_is_an_alias(sound: Evidence, lba: int) -> None:
    twice = _with(_with(sound, MapRow(lba, 1, None, 0, 2)), TombRow(lba, 1, 2, 3))
    assert [(kind, at) for _, kind, at, _ in _cards(judge(twice, [Property.EXACT]))] == [("alias", lba)]


# Tombstones of other volumes.


def test_a_tombstone_of_a_volume_that_no_unit_is_breaks_exact(sound: Evidence) -> None:
    assert _cards(judge(_with(sound, TombRow(30, 2, 4, 8)), [Property.EXACT])) == [
        ("exact", "orphan", None, "a tombstone (lba 30 blocks 2 sequence 4 volume 8) is of a volume that no logical unit is")
    ]


def test_a_tombstone_of_another_unit_is_no_matter(sound: Evidence) -> None:
    assert judge(_with(sound, TombRow(500, 2, 99, 9)), [Property.EXACT]) == judge(sound, [Property.EXACT])


# What is checked.


def test_entries_that_say_zeroes_are_checked_against_their_tombstones() -> None:
    bench = Bench()
    bench.redirect()
    bench.unmap(9, 3)
    bench.flush()
    verdict = bench.verdict(Property.EXACT)
    assert (verdict.outcome, verdict.checked) == (Outcome.HELD, 3)
    (verdict,) = judge(replace(bench.evidence(), tombstones=None), [Property.EXACT])
    assert (verdict.outcome, verdict.checked) == (Outcome.NOT_CHECKED, 0)


# Whatever it is.

_NUMBERS = st.one_of(
    st.integers(0, 18),
    st.integers(-2, 50),
    st.integers(-(1 << 70), 1 << 70),
    st.sampled_from([(1 << power) + off for power in (31, 32, 40, 61, 62, 63, 64) for off in (-1, 0, 1)]),
)
_MAP = st.builds(MapRow, _NUMBERS, _NUMBERS, st.none() | _NUMBERS, _NUMBERS, _NUMBERS)
_LEDGER = st.builds(LedgerRow, *[_NUMBERS] * 5, st.sampled_from([3, 3, 9]) | _NUMBERS)
_TOMB = st.builds(TombRow, *[_NUMBERS] * 3, st.sampled_from([3, 3, 9]) | _NUMBERS)
_STORE = st.builds(StoreCount, *[_NUMBERS] * 4)
_REDIRECTING = _sound(Bench(16, 40))


def _settled() -> Evidence:
    bench = Bench(16, 40)
    bench.fill()
    bench.redirect()
    bench.write(3)
    bench.commit()
    return bench.evidence()


_SETTLED = _settled()


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from([_REDIRECTING, _SETTLED]),
    st.lists(_MAP, max_size=6),
    st.lists(_LEDGER, max_size=6),
    st.lists(_TOMB, max_size=6),
    st.lists(_STORE, max_size=2),
    st.booleans(),
)
def test_every_claim_ends_in_a_verdict(
    sound: Evidence, maps: list[MapRow], ledger: list[LedgerRow], tombs: list[TombRow], stores: list[StoreCount], more: bool
) -> None:
    if more:
        maps, ledger = [*(sound.map or ()), *maps], [*(sound.ledger or ()), *ledger]
        tombs, stores = [*(sound.tombstones or ()), *tombs], [*sound.stores, *stores]
    evidence = replace(sound, map=maps, ledger=ledger, tombstones=tombs, stores=stores)
    for verdict in judge(evidence):
        assert (verdict.outcome is Outcome.BROKEN) == (verdict.total > 0) == (len(verdict.violations) > 0)
        assert all(card.text() for card in verdict.violations)
