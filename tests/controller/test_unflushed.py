"""What a flush has covered is dropped, and not one write more: the next crash of the store would lose it."""

from __future__ import annotations

from array import array

from hwvirt.controller.unflushed import Sent, Unflushed
from hwvirt.link.messages import Slice

SLICE_BYTES = 512


def sent(sequence: int, size_bytes: int) -> Sent:
    return Sent([Slice(0, 1, sequence)], (bytes(size_bytes),), array("I", [0]))


def test_only_what_was_there_before_the_mark_is_dropped() -> None:
    unflushed = Unflushed()
    writes = [sent(number, number) for number in range(1, 6)]
    for one in writes[:2]:
        unflushed.add(one)
    mark = unflushed.mark()
    for one in writes[2:]:
        unflushed.add(one)
    unflushed.drop_before(mark)
    unflushed.drop_before(mark)
    assert ([*unflushed], unflushed.size_bytes) == (writes[2:], 3 + 4 + 5)
    assert unflushed.weight_bytes == 3 + 4 + 5 + 3 * SLICE_BYTES
    unflushed.clear()
    assert ([*unflushed], unflushed.size_bytes) == ([], 0)


def test_unmaps_have_no_data_and_a_weight() -> None:
    unflushed = Unflushed()
    for number in range(100):
        unflushed.add(Sent([Slice(0, 1, number), Slice(7, 1, number)], (), array("I")))
    assert (unflushed.size_bytes, unflushed.weight_bytes) == (0, 100 * 2 * SLICE_BYTES)
    unflushed.clear()
    assert unflushed.weight_bytes == 0
