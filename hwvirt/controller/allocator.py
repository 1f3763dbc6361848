"""B's append allocator: a cursor walks the second volume and takes what is free.

A block's generation is the lap of the cursor in which it was taken: the cursor passes each block once a lap, so a
position that is used again never has its former generation. Generations have fewer bits than laps and begin anew after
16,777,216 of them: whoever still asks for a position of then has been told long ago that it was given up.

A large write leaves short holes behind for the next lap, where they may have grown, and for small writes. On a store that is
two thirds full of scattered blocks, sequential writes find whole runs again after two rounds; filling every hole, never.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwvirt.controller.position import GENERATION_MASK, Columns
from hwvirt.link.messages import Placement

__all__ = ["Allocator", "NoSpace"]

_FREE, _TAKEN = b"\x00", b"\x01"
_LARGE_BLOCKS, _SHORT_BLOCKS = 32, 8
_MOST_PASSED_BY = 128
"""Holes that one write leaves behind: a search of all would hold everybody up."""


class NoSpace(Exception):
    """Fewer free blocks than asked for; `freed` blocks become free with the next flush of the ledger."""

    def __init__(self, asked: int, free: int, freed: int) -> None:
        self.asked, self.free, self.freed = asked, free, freed
        super().__init__(f"{asked} blocks asked, {free} free, {freed} freed but not yet durable")


class Allocator:
    """Free, live and freed blocks of a second volume. free + live + freed = capacity, always."""

    def __init__(self, capacity: int, lap: int = 1, cursor: int = 0) -> None:
        self.capacity = capacity
        self.lap = lap
        self.cursor = cursor
        self.live = 0
        self._taken = bytearray(capacity)
        self._freed: list[Placement] = []
        self.freed = 0

    @property
    def free(self) -> int:
        """Blocks that can be taken now."""
        return self.capacity - self.live - self.freed

    def take(self, blocks: int) -> list[Placement]:
        """The next `blocks` free blocks in the cursor's order, as few runs as there are. Raises NoSpace, taking none."""
        if blocks > self.free:
            raise NoSpace(blocks, self.free, self.freed)
        runs: list[Placement] = []
        wanted = blocks
        may_pass_by = _MOST_PASSED_BY if blocks >= _LARGE_BLOCKS else 0
        while wanted:
            start = self._taken.find(_FREE, self.cursor)
            if start < 0:
                self.cursor, self.lap = 0, self.lap + 1
                continue
            stop = self._taken.find(_TAKEN, start, start + wanted)
            count = min(wanted, self.capacity - start) if stop < 0 else stop - start
            if may_pass_by and count < min(wanted, _SHORT_BLOCKS):
                may_pass_by -= 1
                self.cursor = start + count
                continue
            self._taken[start : start + count] = _TAKEN * count
            runs.append(Placement(start, self.lap & GENERATION_MASK, count))
            self.cursor = start + count
            wanted -= count
        self.live += blocks
        return runs

    def mark_live(self, lbas: Columns) -> None:
        """Recovery: these free blocks are taken; none occurs twice."""
        np.frombuffer(self._taken, np.uint8)[lbas] = 1
        self.live += len(lbas)

    def give_back(self, placements: Sequence[Placement]) -> None:
        """These live blocks are freed; they can be taken again after `settle()`."""
        self._freed.extend(placements)
        blocks = sum(place.blocks for place in placements)
        self.live -= blocks
        self.freed += blocks

    def take_back(self, placements: Sequence[Placement]) -> None:
        """Nothing came to lie in these: they are free at once. The cursor has passed them, so the next lap takes them."""
        for place in placements:
            self._taken[place.lba : place.lba + place.blocks] = bytes(place.blocks)
            self.live -= place.blocks

    def pending(self) -> int:
        """A mark for `settle`: everything that was given back so far."""
        return len(self._freed)

    def settle(self, mark: int) -> None:
        """What was given back before the mark was taken is durable in the ledger: it is free."""
        for place in self._freed[:mark]:
            self._taken[place.lba : place.lba + place.blocks] = bytes(place.blocks)
            self.freed -= place.blocks
        del self._freed[:mark]

    def live_lbas(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The LBAs that are taken and not given back, in order."""
        taken = np.frombuffer(self._taken, np.uint8).copy()
        for place in self._freed:
            taken[place.lba : place.lba + place.blocks] = 0
        return np.flatnonzero(taken)
