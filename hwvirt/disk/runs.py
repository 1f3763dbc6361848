"""Neighbours in a batch become one transfer, and transfers that are too long become several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hwvirt.buffers import Buffer, Pieces
from hwvirt.scsi.volume import Extent

__all__ = ["Run", "cut", "runs", "sliced"]


class Run(NamedTuple):
    """Items `first` to `first + items - 1` of a batch lie one behind the other: `blocks` blocks from `lba`."""

    lba: int
    blocks: int
    first: int
    items: int

    @property
    def extent(self) -> Extent:
        """The blocks of the whole run."""
        return Extent(self.lba, self.blocks)


def runs(extents: Sequence[tuple[int, int]], max_blocks: int) -> list[Run]:
    """The batch as runs, in its order. A run is longer than `max_blocks` only when it is a single item."""
    found: list[Run] = []
    lba = blocks = first = count = 0
    for next_lba, next_blocks in extents:
        if count and lba + blocks == next_lba and blocks + next_blocks <= max_blocks:
            blocks += next_blocks
            count += 1
        else:
            if count:
                found.append(Run(lba, blocks, first, count))
            lba, blocks, first, count = next_lba, next_blocks, first + count, 1
    if count:
        found.append(Run(lba, blocks, first, count))
    return found


def sliced(data: Buffer, sizes_bytes: Sequence[int]) -> Iterator[Buffer]:
    """`data` as buffers of the given sizes, in order, without a copy."""
    view = memoryview(data)
    start = 0
    for size_bytes in sizes_bytes:
        yield view[start : start + size_bytes]
        start += size_bytes


def cut(pieces: Pieces, size_bytes: int) -> Iterator[list[Buffer]]:
    """`pieces` as lists of `size_bytes` together (the last may be shorter), without a copy and without empty pieces."""
    part: list[Buffer] = []
    room = size_bytes
    for piece in pieces:
        view = memoryview(piece)
        while len(view) >= room:
            part.append(view[:room])
            yield part
            view, part, room = view[room:], [], size_bytes
        if view:
            part.append(view)
            room -= len(view)
    if part:
        yield part
