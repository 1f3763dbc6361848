"""Keeps changes of the same block apart: at most one write or unmap of a block is under way at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

__all__ = ["Blocks", "RangeGate"]

_BUSY = b"\x01"


class Blocks(Protocol):
    """`blocks` blocks from `lba`: an extent, or what knows more about them."""

    @property
    def lba(self) -> int:
        """The first block."""
        ...

    @property
    def blocks(self) -> int:
        """How many there are."""
        ...


class RangeGate:
    """A gate per block of a volume. Reads do not pass it. For one asyncio loop.

    The order in which overlapping changes are admitted is the order in which they become visible. Who waits in `enter` is
    overtaken by nobody: else a range that is never idle would never be entered.
    """

    def __init__(self, blocks: int) -> None:
        self._busy = bytearray(blocks)
        self._blocks = blocks
        self._inside = 0
        self._closed = False
        self._waiting: list[asyncio.Future[None]] = []
        self._entering: list[Blocks] = []

    def admit(self, extents: Sequence[Blocks]) -> list[int]:
        """Enters all extents that overlap nothing inside and no extent before them; returns their indexes."""
        return self._admit(extents, self._entering)

    def _admit(self, extents: Sequence[Blocks], before: Sequence[Blocks]) -> list[int]:
        if self._closed:
            return []
        admitted: list[int] = []
        refused = [*before]
        busy = self._busy
        for index, extent in enumerate(extents):
            lba, blocks = extent.lba, extent.blocks
            if busy.find(_BUSY, lba, lba + blocks) >= 0 or (refused and _overlaps_one_of(refused, extent)):
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

    async def enter(self, extent: Blocks) -> None:
        """Waits until the extent is admitted."""
        self._entering.append(extent)
        try:
            while not self._admit([extent], self._entering[: self._entering.index(extent)]):
                await self.changed()
        except BaseException:
            self._wake()
            raise
        finally:
            self._entering.remove(extent)

    def leave(self, extents: Sequence[Blocks]) -> None:
        """These extents' changes are over."""
        for extent in extents:
            self._busy[extent.lba : extent.lba + extent.blocks] = bytes(extent.blocks)
        self._inside -= len(extents)
        if self._waiting:
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
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)


def _overlaps_one_of(others: Sequence[Blocks], one: Blocks) -> bool:
    return any(one.lba < other.lba + other.blocks and other.lba < one.lba + one.blocks for other in others)
