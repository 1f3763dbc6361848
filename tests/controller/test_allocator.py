from __future__ import annotations

import random

import pytest

from hwvirt.controller.allocator import Allocator, NoSpace
from hwvirt.controller.position import pack, unpack
from hwvirt.link.messages import Placement


def test_scattered_writes_become_one_run() -> None:
    allocator = Allocator(100)
    assert allocator.take(5) == [Placement(0, 1, 5)]
    assert allocator.take(7) == [Placement(5, 1, 7)]


def test_a_freed_block_is_not_used_before_it_is_settled() -> None:
    allocator = Allocator(4)
    first = allocator.take(4)
    allocator.give_back(first)
    with pytest.raises(NoSpace) as caught:
        allocator.take(1)
    assert str(caught.value) == "1 blocks asked, 0 free, 4 freed but not yet durable"
    allocator.settle(allocator.pending())
    assert allocator.take(1) == [Placement(0, 2, 1)]


def test_generations_begin_anew_before_they_would_name_another_block() -> None:
    allocator = Allocator(4, lap=(1 << 24) - 1)
    last = allocator.take(4)
    allocator.give_back(last)
    allocator.settle(allocator.pending())
    first = allocator.take(4)
    assert (allocator.lap, first) == (1 << 24, [Placement(0, 0, 4)])
    assert [unpack(pack(place), 4) for place in (*last, *first)] == [*last, *first]


def test_what_is_given_back_behind_the_mark_stays_unsettled() -> None:
    allocator = Allocator(4)
    (run,) = allocator.take(4)
    allocator.give_back([run._replace(blocks=1)])
    mark = allocator.pending()
    allocator.give_back([Placement(1, 1, 1)])
    allocator.settle(mark)
    assert (allocator.free, allocator.freed, allocator.live) == (1, 1, 2)


def test_a_refused_take_takes_nothing() -> None:
    allocator = Allocator(10)
    allocator.take(8)
    with pytest.raises(NoSpace):
        allocator.take(3)
    assert (allocator.free, allocator.live) == (2, 8)


def holed(*holes: int) -> Allocator:
    """A full store with free runs of these lengths, one taken block behind each, and 100 free blocks at the end."""
    allocator = Allocator(sum(holes) + len(holes) + 100)
    (everything,) = allocator.take(allocator.capacity)
    at = 0
    for blocks in (*holes, 100):
        allocator.give_back([everything._replace(lba=at, blocks=blocks)])
        at += blocks + 1
    allocator.settle(allocator.pending())
    return allocator


def test_a_large_write_leaves_short_holes_behind_and_a_small_one_fills_them() -> None:
    assert [place.blocks for place in holed(3, 9, 1, 7).take(40)] == [9, 31]
    assert [place.blocks for place in holed(3, 9, 1, 7).take(15)] == [3, 9, 1, 2]


def test_a_large_write_takes_short_holes_when_there_is_nothing_else() -> None:
    allocator = holed(*[2] * 30)
    assert [place.blocks for place in allocator.take(100)] == [100]
    assert [place.blocks for place in allocator.take(60)] == [2] * 30
    assert allocator.free == 0


def test_a_large_write_does_not_search_for_ever() -> None:
    lengths = [place.blocks for place in holed(*[1] * 1000).take(50)]
    assert lengths == [1] * 50


def test_a_position_used_again_never_has_its_former_generation_and_blocks_are_conserved() -> None:
    random_ = random.Random(7)
    allocator = Allocator(200)
    last_generation: dict[int, int] = {}
    live: dict[int, int] = {}
    for _ in range(5000):
        if random_.random() < 0.6 and allocator.free:
            most = random_.choice([1, 9, 60])
            for place in allocator.take(random_.randint(1, min(most, allocator.free))):
                for lba in range(place.lba, place.lba + place.blocks):
                    assert lba not in live
                    assert last_generation.get(lba, 0) < place.generation
                    live[lba] = last_generation[lba] = place.generation
        elif live:
            lba = random_.choice(list(live))
            allocator.give_back([Placement(lba, live.pop(lba), 1)])
        if random_.random() < 0.1:
            allocator.settle(allocator.pending())
        assert allocator.free + allocator.live + allocator.freed == 200
        assert allocator.live == len(live)
