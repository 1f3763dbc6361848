"""The ledger's rows, whichever way they were recorded: few blocks at a time or many."""

from __future__ import annotations

import random
from array import array

import pytest

from hwvirt.controller.allocator import Allocator
from hwvirt.controller.ledger import Kind, Ledger
from hwvirt.link.messages import Placement, Slice

CAPACITY = 400


def ledger() -> tuple[Ledger, Allocator]:
    allocator = Allocator(CAPACITY)
    return Ledger(CAPACITY, allocator), allocator


def cut(random_: random.Random, blocks: int) -> list[int]:
    """Random lengths that sum up to `blocks`."""
    lengths = []
    while blocks:
        lengths.append(random_.randint(1, min(blocks, random_.choice([1, 2, 8, 9, 40]))))
        blocks -= lengths[-1]
    return lengths


def test_every_block_has_the_row_of_its_newest_record() -> None:
    random_ = random.Random(5)
    records, _ = ledger()
    expected: dict[int, tuple[int, ...]] = {}
    sequence = 0
    for generation in range(1, 60):
        blocks = random_.randint(1, 90)
        slices, placements = [], []
        for length in cut(random_, blocks):
            sequence += 1
            slices.append(Slice(random_.randrange(10_000), length, sequence))
        start = random_.randrange(CAPACITY - blocks - 50)
        for length in cut(random_, blocks):
            placements.append(Placement(start, generation, length))
            start += length + random_.choice([0, 0, 1])
            if start + blocks >= CAPACITY:
                start = 0
        digests = array("I", [random_.getrandbits(32) for _ in range(blocks)])
        records.record(7, slices, placements, digests)
        owners = [(lba, one.sequence) for one in slices for lba in range(one.lba, one.lba + one.blocks)]
        places = [(at, one.generation) for one in placements for at in range(one.lba, one.lba + one.blocks)]
        for (lba, owner), (at, made), crc in zip(owners, places, digests, strict=True):
            expected[at] = (at, made, crc, lba, owner, 7, Kind.LIVE)
        for place, offset in zip(placements, running(placements), strict=True):
            if len({at for at, _ in places}) == len(places):
                assert records.holds(place)
                assert records.digests(place) == digests[offset : offset + place.blocks]
            assert not records.holds(place._replace(generation=generation + 1))
    assert [tuple(row) for row in records.rows().tolist()] == [expected[at] for at in sorted(expected)]
    assert [tuple(row) for row in records.take_changes().tolist()] == [expected[at] for at in sorted(expected)]
    assert not len(records.take_changes())
    assert records.last_sequence == sequence


def running(placements: list[Placement]) -> list[int]:
    """Where the blocks of each placement begin among those of all."""
    return [sum(one.blocks for one in placements[:index]) for index in range(len(placements))]


def test_nothing_is_held_beyond_the_end() -> None:
    records, _ = ledger()
    assert not records.holds(Placement(CAPACITY, 0, 1))
    assert not records.holds(Placement(CAPACITY - 1, 0, 2))


@pytest.mark.parametrize("blocks", [1, 20])
def test_a_freed_position_is_held_no_more_and_a_strangers_is_not_freed(blocks: int) -> None:
    records, allocator = ledger()
    (place,) = allocator.take(blocks)
    records.record(0, [Slice(5, blocks, 1)], [place], array("I", range(blocks)))
    assert records.free(1, [place]) == blocks
    assert records.free(0, [place._replace(generation=place.generation + 1)]) == blocks
    assert records.holds(place)
    assert records.free(0, [place, place]) == 0, "told twice"
    assert records.free(0, [place]) == 0, "asked once more"
    assert not records.holds(place)
    assert (allocator.live, allocator.freed) == (0, blocks)


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_pages_of_any_size_are_all_rows_of_the_volume_once(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwvirt.controller.ledger._WINDOW", 7)
    records, allocator = ledger()
    for number, volume in enumerate((0, 1, 0, 0, 1, 0)):
        (place,) = allocator.take(20)
        records.record(volume, [Slice(number * 20, 20, number + 1)], [place], array("I", range(20)))
    records.free(0, [Placement(45, 1, 10)])
    records.bury(0, [Slice(3, 5, 10), Slice(300, 1, 11), Slice(40, 9, 12)])
    records.bury(1, [Slice(0, 400, 13)])
    rows: list[tuple[int, ...]] = []
    after: int | None = None
    while True:
        page, after = records.page(0, after, limit)
        assert len(page) <= limit
        rows += [tuple(row) for row in page.tolist()]
        if after is None:
            break
    assert rows == [tuple(row) for row in records.rows_of(0).tolist()]
    assert len(rows) == 70 + 3
    live = [row[0] for row in rows[:70]]
    assert live == [*range(20), 40, 41, 42, 43, 44, *range(55, 80), *range(100, 120)]
    assert [(row[3], row[0], row[4]) for row in rows[70:]] == [(3, 5, 10), (40, 9, 12), (300, 1, 11)]


def test_empty_regions_are_known_to_be_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwvirt.controller.ledger.REGION_BLOCKS", 16)
    random_ = random.Random(11)
    records, allocator = ledger()
    for sequence in range(1, 200):
        volume, lba, blocks = random_.randrange(2), random_.randrange(300), random_.randint(1, 40)
        if allocator.free >= blocks and random_.random() < 0.6:
            records.record(volume, [Slice(lba, blocks, sequence)], allocator.take(blocks), array("I", range(blocks)))
        elif random_.random() < 0.5:
            records.drop(volume, lba, blocks)
        else:
            rows = records.rows_of(volume)[:blocks]
            records.free(volume, [Placement(int(row["position"]), int(row["generation"]), 1) for row in rows])
        allocator.settle(allocator.pending())
        live = [(row[5], row[3] // 16) for row in records.rows().tolist()]
        assert records._regions == {key: live.count(key) for key in live}
        again, _ = ledger()
        again.apply(records.rows())
        again.recovered()
        assert again._regions == records._regions
        assert records._may_hold(volume, 0, 1000) == any(of == volume for of, _ in live)
        assert records._may_hold(volume, 32, 20) == bool({(volume, 2), (volume, 3)} & set(live))


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
def test_listing_in_pages_of_any_size_tells_every_row_once(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwvirt.controller.ledger._WINDOW", 7)
    records, allocator = ledger()
    records.bury(1, [Slice(0, 20_000, 13)])
    for number, volume in enumerate((0, 1, 0)):
        (place,) = allocator.take(20)
        records.record(volume, [Slice(number * 20, 20, number + 1)], [place], array("I", range(20)))
    records.free(0, [Placement(45, 1, 10)])
    records.bury(0, [Slice(3, 5, 10), Slice(300, 1, 11), Slice(40, 9, 12)])
    rows: list[tuple[int, ...]] = []
    start: int | None = 0
    while start is not None:
        page, start = records.listing(start, limit)
        assert len(page) <= limit
        assert start is None or start < 1 << 53, "a JSON number that not everybody reads"
        rows += [tuple(row) for row in page.tolist()]
    assert rows == [tuple(row) for row in records.rows().tolist()]
    assert len(rows) == 50 + 2 + 3


def test_listing_looks_no_further_than_its_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a large ledger costs the square of its size to whoever lists it."""
    records, allocator = ledger()
    records.record(0, [Slice(0, 300, 1)], allocator.take(300), array("I", range(300)))
    looked: list[int] = []
    rows_at = records._live_rows
    monkeypatch.setattr(records, "_live_rows", lambda at: looked.extend(at.tolist()) or rows_at(at))  # type: ignore[func-returns-value]
    page, following = records.listing(200, 8)
    assert ([*page["position"]], following) == ([*range(200, 208)], 208)
    assert len(looked) <= 9
