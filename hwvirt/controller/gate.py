"""Keeps changes of the same block apart: at most one write or unmap of a block is under way at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hwvirt.scsi.volume import Extent

__all__ = ["RangeGate"]

_BUSY = b"\x01"


class RangeGate:
    """A gate per block of a volume. Reads do not pass it. For one asyncio loop.

    The order in which overlapping changes are admitted is the order in which they become visible.
    """

    def __init__(self, blocks: int) -> None:
        self._busy = bytearray(blocks)
        self._blocks = blocks
        self._inside = 0
        self._closed = False
        self._waiting: list[asyncio.Future[None]] = []

    def admit(self, extents: Sequence[Extent]) -> list[int]:
        """Enters all extents that overlap nothing inside and no extent before them; returns their indexes."""
        if self._closed:
            return []
        admitted: list[int] = []
        refused: list[Extent] = []
        busy = self._busy
        for index, extent in enumerate(extents):
            lba, blocks = extent
            if busy.find(_BUSY, lba, lba + blocks) >= 0 or any(_overlap(extent, other) for other in refused):
                refused.append(extent)
                continue
            busy[lba : lba + blocks] = _BUSY * blocks
            admitted.append(index)
        self._inside += len(admitted)
        return admitted

    async def changed(self) -> None:
        """Returns when something has left, or the gate has opened."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    async def enter(self, extent: Extent) -> None:
        """Waits until the extent is admitted."""
        while not self.admit([extent]):
            await self.changed()

    def leave(self, extents: Sequence[Extent]) -> None:
        """These extents' changes are over."""
        for lba, blocks in extents:
            self._busy[lba : lba + blocks] = bytes(blocks)
        self._inside -= len(extents)
        self._wake()

    async def close(self) -> None:
        """Admits nothing more; returns when all that was inside has left. One closer at a time."""
        while self._closed:
            await self.changed()
        self._closed = True
        while self._inside:
            await self.changed()

    def open(self) -> None:
        """Admits again."""
        self._closed = False
        self._wake()

    def _wake(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)


def _overlap(one: Extent, other: Extent) -> bool:
    return one.lba < other.lba + other.blocks and other.lba < one.lba + one.blocks
