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
    assert records.free(0, [place]) == 0
    assert not records.holds(place)
    assert (allocator.live, allocator.freed) == (0, blocks)
