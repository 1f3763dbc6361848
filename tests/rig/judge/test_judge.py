"""Each property holds on a right bench with everything checked, and convicts its planted defect with the right card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from hwvirt.digest import crc32c
from hwvirt.disk.witness import Record
from hwvirt.errors import DiskError
from hwvirt.rig.judge.block import make_extent
from hwvirt.rig.judge.card import Card, Owner
from hwvirt.rig.judge.evidence import LedgerRow, MapRow, State, StoreCount
from hwvirt.rig.judge.history import Fate, Kind, MarkKind
from hwvirt.rig.judge.judge import judge
from hwvirt.rig.judge.verdict import CARDS_KEPT, Outcome, Property

from .bench import BLOCK, REPLAY, Bench, redirecting

WHILE_REDIRECTING = (
    Property.UNTOUCHED,
    Property.COMPLETE,
    Property.EXACT,
    Property.CONTENT,
    Property.CONSISTENT,
    Property.FROZEN,
    Property.CONSERVED,
)


def _convicted(bench: Bench, property_: Property) -> list[tuple[str, int | None]]:
    """(class, LBA) of each card."""
    verdict = bench.verdict(property_)
    assert verdict.outcome == (Outcome.BROKEN if verdict.total else Outcome.HELD)
    return [(card.kind, card.lba) for card in verdict.violations]


def _card(bench: Bench, property_: Property) -> Card:
    """The only card."""
    (card,) = bench.verdict(property_).violations
    assert (card.property, card.replay) == (property_.value, REPLAY)
    return card


@pytest.fixture
def bench() -> Bench:
    """Filled and redirecting; blocks 8 to 15 are redirected, 20 and 21 given back, all was read."""
    bench = Bench()
    bench.fill()
    bench.redirect()
    bench.write(8, 4)
    bench.write(10, 6)
    bench.unmap(20, 2)
    bench.flush()
    for lba in range(0, 64, 8):
        bench.read(lba, 8)
    return bench


def test_a_right_bench_holds_with_everything_checked(bench: Bench) -> None:
    verdicts = {verdict.property: verdict for verdict in judge(bench.evidence(), WHILE_REDIRECTING)}
    assert {verdict.outcome for verdict in verdicts.values()} == {Outcome.HELD}
    assert {name.value: verdict.checked for name, verdict in verdicts.items()} == {
        "untouched": 64,  # blocks of the first volume
        "complete": 10,  # 8 written, 2 given back
        "exact": 18,  # 10 entries of the map, 8 of the ledger
        "content": 8,
        "consistent": 64,  # block reads
        "frozen": 64,
        "conserved": 1,  # cuts
    }


@pytest.mark.parametrize("seed", range(20))
def test_a_busy_right_bench_is_never_accused(seed: int) -> None:
    bench = redirecting(seed)
    verdicts = judge(bench.evidence(), WHILE_REDIRECTING)
    assert all(verdict.outcome == Outcome.HELD and verdict.checked for verdict in verdicts), verdicts


def test_nothing_done_is_not_checked() -> None:
    bench = Bench(blocks=0, capacity=0)
    for verdict in judge(bench.evidence(), Property):
        assert verdict.outcome == Outcome.NOT_CHECKED, verdict
        assert verdict.checked == 0
        assert verdict.reason


def test_an_input_that_was_not_taken_is_not_checked(bench: Bench) -> None:
    nothing = replace(bench.evidence(), map=None, ledger=None, first=None, second=None, frozen=None, stores=())
    for verdict in judge(nothing, set(WHILE_REDIRECTING) - {Property.CONSISTENT}):
        assert verdict.outcome == Outcome.NOT_CHECKED, verdict


# Untouched and frozen.


def test_one_write_to_the_first_disk_breaks_untouched(bench: Bench) -> None:
    bench.first[17 * BLOCK + 5] ^= 1
    bench.frozen = bench.first
    assert _convicted(bench, Property.UNTOUCHED) == [("changed", 17)]
    assert _convicted(bench, Property.FROZEN) == [("changed", 17)]


def test_a_write_command_that_changed_nothing_breaks_untouched(bench: Bench) -> None:
    bench.witnessed.append(Record(0, 0, lba=33, blocks=2, opcode=0x8A))
    card = _card(bench, Property.UNTOUCHED)
    assert (card.kind, card.lba) == ("written", 33)
    assert card.detail == "command 8ah for 2 blocks was sent to the first disk"


# Complete.


def test_an_acknowledged_write_without_an_entry_breaks_complete(bench: Bench) -> None:
    bench.drop(12)
    card = _card(bench, Property.COMPLETE)
    assert (card.kind, card.lba, card.map_entry, card.expected) == ("missing", 12, None, (Owner(7, 12, 6),))


def test_an_acknowledged_write_that_reads_as_zeroes_breaks_complete(bench: Bench) -> None:
    bench.drop(12)
    bench.map[12] = (None, 0, 99)
    assert _convicted(bench, Property.COMPLETE) == [("zeroed", 12)]


def test_a_forgotten_unmap_breaks_complete(bench: Bench) -> None:
    del bench.map[20]
    assert _convicted(bench, Property.COMPLETE) == [("missing", 20)]


def test_an_unmapped_block_that_comes_back_breaks_content(bench: Bench) -> None:
    bench.store(20, make_extent(7, 20, 1, 2, 1, 42, BLOCK))
    card = _card(bench, Property.CONTENT)
    assert (card.kind, card.lba, card.expected) == ("stale", 20, (Owner(7, 20, 0),))


def test_a_write_in_doubt_needs_no_entry(bench: Bench) -> None:
    bench.write(40, 1, fate=Fate.IN_DOUBT, happens=False)
    assert _convicted(bench, Property.COMPLETE) == []
    assert bench.verdict(Property.COMPLETE).checked == 10
    bench.write(41, 1, fate=Fate.IN_DOUBT, happens=True)
    bench.flush()
    assert all(_convicted(bench, name) == [] for name in WHILE_REDIRECTING)


# Exact: one defect of each class.


def _dangling(bench: Bench) -> None:
    position = bench.map[12][0]
    assert position is not None
    del bench.ledger[position]


def _orphan(bench: Bench) -> None:
    bench.ledger[150] = LedgerRow(150, 30, 1, 1, 0, 3)


def _alias(bench: Bench) -> None:
    bench.map[30] = bench.map[12]


def _stale_generation(bench: Bench) -> None:
    position, generation, sequence = bench.map[12]
    bench.map[12] = (position, generation - 1, sequence)


def _stale_sequence(bench: Bench) -> None:
    position, generation, sequence = bench.map[12]
    bench.map[12] = (position, generation, sequence - 1)


def _torn(bench: Bench) -> None:
    position = bench.map[12][0]
    assert position is not None
    bench.second[position * BLOCK + 256 : (position + 1) * BLOCK] = bytes(256)


def _foreign(bench: Bench) -> None:
    position = bench.map[12][0]
    assert position is not None
    bench.ledger[position] = bench.ledger[position]._replace(volume=9)


@pytest.mark.parametrize(
    ("plant", "kind", "lba"),
    [
        (_dangling, "dangling", 12),
        (_orphan, "orphan", 30),
        (_alias, "alias", 30),
        (_stale_generation, "stale", 12),
        (_stale_sequence, "stale", 12),
        (_torn, "torn", 12),
        (_foreign, "foreign", 12),
    ],
)
def test_each_class_of_wrong_correlation_breaks_exact(
    bench: Bench, plant: Callable[[Bench], None], kind: str, lba: int
) -> None:
    plant(bench)
    assert _convicted(bench, Property.EXACT) == [(kind, lba)]


def test_swapped_map_entries_break_exact_and_content(bench: Bench) -> None:
    bench.map[9], bench.map[14] = bench.map[14], bench.map[9]
    assert _convicted(bench, Property.EXACT) == [("misdirected", 9), ("misdirected", 14)]
    cards = bench.verdict(Property.CONTENT).violations
    assert [(card.kind, card.lba, card.found) for card in cards] == [
        ("misdirected", 9, Owner(7, 14, 6)),
        ("misdirected", 14, Owner(7, 9, 5)),
    ]


def test_two_blocks_whose_positions_were_swapped_in_map_and_ledger_break_content_only(bench: Bench) -> None:
    (one, *_), (other, *_) = bench.map[9], bench.map[14]
    assert one is not None
    assert other is not None
    bench.map[9], bench.map[14] = bench.map[14], bench.map[9]
    bench.ledger[one] = bench.ledger[one]._replace(lba=14)
    bench.ledger[other] = bench.ledger[other]._replace(lba=9)
    assert _convicted(bench, Property.EXACT) == []
    assert _convicted(bench, Property.CONTENT) == [("misdirected", 9), ("misdirected", 14)]


def test_a_block_with_two_entries_breaks_exact(bench: Bench) -> None:
    evidence = bench.evidence()
    assert evidence.map is not None
    assert evidence.ledger is not None
    block = bench.block(12)
    bench.second[150 * BLOCK : 151 * BLOCK] = block
    (verdict,) = judge(
        replace(
            evidence,
            map=[*evidence.map, MapRow(12, 1, 150, 1, 2)],
            ledger=[*evidence.ledger, LedgerRow(150, 12, 2, 1, crc32c(block), 3)],
        ),
        [Property.EXACT],
    )
    assert [(card.kind, card.lba) for card in verdict.violations] == [("alias", 12), ("alias", 12)]


def test_an_entry_of_another_volume_is_no_orphan(bench: Bench) -> None:
    bench.ledger[150] = LedgerRow(150, 30, 1, 1, 0, 9)
    assert _convicted(bench, Property.EXACT) == []


# Content.


def _overwrite(bench: Bench, lba: int, block: bytes) -> None:
    """The second disk holds another block, and the ledger has its digest."""
    position = bench.map[lba][0]
    assert position is not None
    bench.second[position * BLOCK : (position + 1) * BLOCK] = block
    bench.ledger[position] = bench.ledger[position]._replace(crc=crc32c(block))


@pytest.mark.parametrize(
    ("block", "kind", "found"),
    [
        (make_extent(7, 12, 1, 1, 1, 42, BLOCK), "stale", Owner(7, 12, 1)),
        (make_extent(7, 13, 1, 6, 1, 42, BLOCK), "misdirected", Owner(7, 13, 6)),
        (make_extent(8, 12, 1, 6, 1, 42, BLOCK), "foreign", Owner(8, 12, 6)),
        (make_extent(7, 12, 1, 6, 1, 43, BLOCK), "foreign", Owner(7, 12, 6)),
        (make_extent(7, 12, 1, 99, 1, 42, BLOCK), "unwritten", Owner(7, 12, 99)),
        (make_extent(7, 12, 1, 6, 1, 42, BLOCK)[:256] + bytes(256), "torn", Owner(7, 12, 6)),
        (bytes(BLOCK), "zeroes", Owner(7, 12, 0)),
        (b"noise" * 102 + b"..", "foreign", Owner(7, 12, -1)),
    ],
)
def test_a_wrong_block_on_the_second_disk_breaks_content(bench: Bench, block: bytes, kind: str, found: Owner) -> None:
    _overwrite(bench, 12, block)
    card = _card(bench, Property.CONTENT)
    assert (card.kind, card.lba, card.found, card.expected) == (kind, 12, found, (Owner(7, 12, 6),))


def test_a_card_about_a_block_of_another_run_says_so(bench: Bench) -> None:
    _overwrite(bench, 12, make_extent(7, 12, 1, 6, 9, 42, BLOCK))
    card = _card(bench, Property.CONTENT)
    position = bench.map[12][0]
    whose = "volume 7 lba 12 version 6 of writer 9, seed 42 (another run's: this one's writer is 1)"
    assert (card.kind, card.detail) == ("foreign", f"position {position} of the second disk holds {whose}")


def test_what_lay_on_the_disk_before_is_no_content() -> None:
    bench = Bench()
    bench.redirect()
    bench.write(30, 1, fate=Fate.IN_DOUBT)
    assert _convicted(bench, Property.CONTENT) == []
    _overwrite(bench, 30, b"noise" * 102 + b"..")
    assert _convicted(bench, Property.CONTENT) == [("foreign", 30)]


def test_a_wrong_digest_in_the_ledger_breaks_content(bench: Bench) -> None:
    position = bench.map[12][0]
    assert position is not None
    bench.ledger[position] = bench.ledger[position]._replace(crc=1)
    assert _convicted(bench, Property.CONTENT) == [("digest", 12)]


def test_a_lost_acknowledged_write_breaks_content_and_then_the_reads(bench: Bench) -> None:
    lost = bench.write(12, 1, happens=False)
    card = _card(bench, Property.CONTENT)
    assert (card.kind, card.lba) == ("stale", 12)
    assert (card.found, card.expected) == (Owner(7, 12, 6), (Owner(7, 12, lost),))
    bench.read(8, 8)
    card = _card(bench, Property.CONSISTENT)
    assert (card.kind, card.lba) == ("order", 12)
    assert (card.found, card.expected) == (Owner(7, 12, 6), (Owner(7, 12, lost),))


def test_either_of_two_overlapping_writes_may_be_the_newest(bench: Bench) -> None:
    one, other = bench.history.begin(Kind.WRITE, 12, 1), bench.history.begin(Kind.WRITE, 12, 1)
    bench.apply(other, 12, 1)
    bench.apply(one, 12, 1)
    for number in (one, other):
        bench.history.end(number, Fate.ACKNOWLEDGED)
    assert _convicted(bench, Property.CONTENT) == []


# Reads.


def test_a_strange_block_in_a_read_is_described(bench: Bench) -> None:
    number = bench.history.begin(Kind.READ, 30, 2)
    bench.history.end(number, Fate.ACKNOWLEDGED, [2, -2])
    whose = "volume 7 lba 5 version 1 of writer 1, seed 42"
    bench.history.note(number, 31, whose)
    card = _card(bench, Property.CONSISTENT)
    assert (card.kind, card.lba) == ("misdirected", 31)
    assert card.detail == f"read #{number} returned {whose}: the block is another one's"


def test_a_ghost_write_breaks_fenced_by_its_read_and_on_the_disk(bench: Bench) -> None:
    ghost = bench.write(12, 1, fate=Fate.IN_DOUBT, happens=False)
    newer = bench.write(12, 1)
    held = bench.verdict(Property.FENCED)
    assert (held.outcome, held.checked) == (Outcome.HELD, 1)
    bench.apply(ghost, 12, 1)
    bench.read(12)
    verdict = bench.verdict(Property.FENCED)
    assert [(card.kind, card.lba) for card in verdict.violations] == [("late", 12), ("late", 12)]
    assert verdict.violations[0].expected == (Owner(7, 12, newer),)
    assert _convicted(bench, Property.CONSISTENT) == [("late", 12)]
    assert _convicted(bench, Property.CONTENT) == [("late", 12)]


def test_flushed_data_that_a_power_cut_took_breaks_durable(bench: Bench) -> None:
    bench.history.mark(MarkKind.POWER_CUT)
    bench.read(8, 8)
    held = bench.verdict(Property.DURABLE)
    assert (held.outcome, held.checked) == (Outcome.HELD, 8)
    bench.drop(12)
    bench.read(12)
    assert _convicted(bench, Property.DURABLE) == [("lost", 12)]
    assert ("missing", 12) in _convicted(bench, Property.COMPLETE)


def test_unflushed_data_may_go_in_a_power_cut(bench: Bench) -> None:
    bench.write(30, 1)
    bench.history.mark(MarkKind.POWER_CUT)
    bench.drop(30)
    bench.read(30)
    assert all(_convicted(bench, name) == [] for name in WHILE_REDIRECTING)


def test_a_block_that_nobody_had_written_before_may_be_without_an_entry_again_after_a_power_cut() -> None:
    bench = Bench()
    bench.redirect()
    bench.write(30, 1)
    bench.history.mark(MarkKind.POWER_CUT)
    bench.drop(30)
    verdict = bench.verdict(Property.COMPLETE)
    assert (verdict.outcome, verdict.checked) == (Outcome.HELD, 1)


# Settled.


def test_a_commit_settles_the_merged_image() -> None:
    bench = redirecting()
    bench.commit()
    verdict = bench.verdict(Property.SETTLED)
    assert (verdict.outcome, verdict.checked) == (Outcome.HELD, 64)
    for name in (Property.UNTOUCHED, Property.COMPLETE):
        assert bench.verdict(name).outcome == Outcome.NOT_CHECKED


def test_a_discard_settles_the_original() -> None:
    bench = redirecting()
    bench.discard()
    bench.read(0, 64)
    verdict = bench.verdict(Property.SETTLED)
    assert (verdict.outcome, verdict.checked) == (Outcome.HELD, 64)
    assert _convicted(bench, Property.CONSISTENT) == []


@pytest.mark.parametrize("seed", range(5))
def test_hosts_go_on_after_settling(seed: int) -> None:
    bench = redirecting(seed)
    bench.discard()
    bench.busy(seed + 100)
    bench.redirect()
    bench.busy(seed + 200)
    bench.commit()
    bench.busy(seed + 300)
    assert _convicted(bench, Property.SETTLED) == []
    assert _convicted(bench, Property.CONSISTENT) == []


def test_a_block_that_was_not_committed_breaks_settled(bench: Bench) -> None:
    old = bytes(bench.first[12 * BLOCK : 13 * BLOCK])
    bench.commit()
    bench.first[12 * BLOCK : 13 * BLOCK] = old
    card = _card(bench, Property.SETTLED)
    assert (card.kind, card.lba, card.found, card.expected) == ("stale", 12, Owner(7, 12, 1), (Owner(7, 12, 6),))


def test_a_block_that_was_not_discarded_breaks_settled(bench: Bench) -> None:
    new = bench.block(12)
    bench.discard()
    bench.first[12 * BLOCK : 13 * BLOCK] = new
    card = _card(bench, Property.SETTLED)
    assert (card.lba, card.found, card.expected) == (12, Owner(7, 12, 6), (Owner(7, 12, 1),))


def test_a_block_that_nobody_wrote_must_keep_its_digest() -> None:
    bench = Bench()
    bench.redirect()
    bench.write(8, 4)
    bench.commit()
    assert _convicted(bench, Property.SETTLED) == []
    bench.first[30 * BLOCK] = 1
    assert _convicted(bench, Property.SETTLED) == [("changed", 30)]


def test_a_block_that_was_only_read_must_keep_its_digest() -> None:
    bench = Bench()
    bench.first[30 * BLOCK] = 1
    bench.redirect()
    bench.read(30)
    bench.commit()
    assert _convicted(bench, Property.SETTLED) == []
    bench.first[30 * BLOCK] = 2
    assert _convicted(bench, Property.SETTLED) == [("changed", 30)]


def test_what_is_left_in_map_or_ledger_breaks_settled(bench: Bench) -> None:
    bench.commit()
    bench.map[12] = (150, 1, 1)
    bench.ledger[150] = LedgerRow(150, 13, 1, 1, 0, 3)
    assert _convicted(bench, Property.SETTLED) == [("left", 12), ("left", 13)]


# Conserved.


def test_a_leak_at_an_early_cut_breaks_conserved(bench: Bench) -> None:
    bench.stores.insert(0, StoreCount(160, free=100, live=50, freed=9))
    card = _card(bench, Property.CONSERVED)
    assert (card.kind, card.lba) == ("leak", None)
    assert card.detail == "cut 1: free 100 + freed 9 + live 50 is not capacity 160"
    assert card.text().startswith("conserved: leak: cut 1: free 100")


def test_a_negative_count_breaks_conserved(bench: Bench) -> None:
    bench.stores.insert(0, StoreCount(160, free=170, live=-10, freed=0))
    assert _convicted(bench, Property.CONSERVED) == [("leak", None)]


def test_a_position_that_the_ledger_lists_twice_breaks_conserved(bench: Bench) -> None:
    evidence = bench.evidence()
    assert evidence.ledger is not None
    listed = [row for row in evidence.ledger if row.lba != 9]
    twice = next(row for row in listed if row.lba == 12)
    (verdict,) = judge(replace(evidence, ledger=[*listed, twice]), [Property.CONSERVED])
    assert [(card.kind, card.lba) for card in verdict.violations] == [("misplaced", 12)]


def test_a_count_that_is_not_the_ledgers_breaks_conserved(bench: Bench) -> None:
    bench.ledger[150] = LedgerRow(150, 30, 1, 1, 0, 9)
    assert _convicted(bench, Property.CONSERVED) == [("miscount", None)]


def test_a_position_outside_the_store_breaks_conserved(bench: Bench) -> None:
    position = bench.map[12][0]
    assert position is not None
    bench.ledger[170] = bench.ledger.pop(position)._replace(position=170)
    assert _convicted(bench, Property.CONSERVED) == [("misplaced", 12)]


# Cards.


def test_a_card_tells_everything(bench: Bench) -> None:
    bench.map[12] = (bench.map[12][0], 5, 1)
    card = _card(bench, Property.EXACT)
    assert card.as_dict()["map_entry"] == {"position": 6, "generation": 5, "sequence": 1}
    assert card.text() == "\n".join(
        [
            "exact: stale at lba 12: the map's generation or sequence at position 6 is not the ledger's",
            "  expected  volume 7 lba 12 version 6",
            "  map       position 6 generation 5 sequence 1",
            f"  ledger    position 6 lba 12 sequence 2 generation 1 crc {crc32c(bench.block(12))} volume 3",
            "  event     #1 WRITE lba 0 blocks 16 at 1..2 ACKNOWLEDGED",
            "  event     #6 WRITE lba 10 blocks 6 at 12..13 ACKNOWLEDGED",
            "  event     #10 READ lba 8 blocks 8 at 20..21 ACKNOWLEDGED",
            f"  replay    {REPLAY}",
        ]
    )


def test_cards_are_bounded_and_violations_are_counted(bench: Bench) -> None:
    bench.first[:] = bytes(len(bench.first))
    verdict = bench.verdict(Property.UNTOUCHED)
    assert (verdict.total, len(verdict.violations)) == (64, CARDS_KEPT)


def test_a_disk_that_reads_short_is_no_verdict(bench: Bench) -> None:
    evidence = replace(bench.evidence(), second=lambda lba, blocks: b"")
    with pytest.raises(DiskError, match=r"a read of \d blocks at lba \d+ returned 0 bytes"):
        judge(evidence, [Property.CONTENT])


def test_the_verdicts_come_in_the_order_asked(bench: Bench) -> None:
    asked = [Property.FROZEN, Property.EXACT]
    assert [verdict.property for verdict in judge(bench.evidence(), asked)] == asked
    assert bench.state == State.REDIRECTING
