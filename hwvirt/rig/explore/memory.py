"""Disks and journals in memory that know what is durable: a power cut takes the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from typing_extensions import override

from hwvirt.buffers import Pieces, joined, length
from hwvirt.controller.journal import Journal, Record
from hwvirt.rig.explore.loop import HandLoop, Job
from hwvirt.scsi.sense import WRITE_ERROR, CheckCondition
from hwvirt.scsi.volume import Access, Durability, Extent, Residency, Write

__all__ = ["BLOCK_BYTES", "Image", "Loss", "MemoryDisk", "MemoryJournal"]

BLOCK_BYTES = 512


class Loss(Enum):
    """What a crash takes of what was not durable. A drive and a file system may each have written some of it early."""

    NOTHING = "the process alone: disk and files keep everything"
    ALL = "a power cut: what was not durable is lost"
    CACHE = "a power cut: the disk's cache is lost, the files had been written early"
    FILES = "a power cut: unsynced records are lost, the disk's cache had been written early"


class Image(NamedTuple):
    """What a machine keeps: its disk as a restart finds it, what of it is durable, and the records of its journal."""

    blocks: tuple[bytes, ...]
    durable: tuple[bytes, ...]
    records: tuple[Record, ...]
    synced: int
    lost: frozenset[int] = frozenset()
    """Blocks that no flush will make durable, since one has failed: see `MemoryDisk`."""

    @classmethod
    def of(cls, blocks: Sequence[bytes]) -> Image:
        """A disk that holds these blocks, and an empty journal."""
        return cls(tuple(blocks), tuple(blocks), (), 0)

    def losses(self) -> list[Loss]:
        """The ways to lose something, or nothing, that differ."""
        cached, unsynced = self.blocks != self.durable, self.synced < len(self.records)
        ways = [Loss.ALL]
        if cached or unsynced:
            ways.append(Loss.NOTHING)
        if cached and unsynced:
            ways += [Loss.CACHE, Loss.FILES]
        return ways

    def after(self, loss: Loss) -> Image:
        """The machine after a crash."""
        blocks = self.durable if loss in (Loss.ALL, Loss.CACHE) else self.blocks
        records = self.records[: self.synced] if loss in (Loss.ALL, Loss.FILES) else self.records
        lost = self.lost if loss is Loss.NOTHING else frozenset[int]()
        if loss is Loss.FILES:
            blocks = tuple(self.durable[lba] if lba in self.lost else block for lba, block in enumerate(blocks))
        return Image(blocks, self.durable, records, self.synced, lost)


class MemoryDisk:
    """A volume whose blocks lie in memory. With `slow`, writes and flushes end when the world finishes their job.

    A slow write is in the cache from the start; what a slow flush covers is durable when it ends. A flush that `fails` is
    the last one to know of what it should have covered, as with Linux: that can be read, until the power goes.
    """

    def __init__(self, image: Image, loop: HandLoop, *, slow: bool) -> None:
        self.content = list(image.blocks)
        self.durable = list(image.durable)
        self.lost = set(image.lost)
        self.fails = False
        self.changed: list[Extent] = []
        self._loop = loop
        self._slow = slow

    @property
    def block_bytes(self) -> int:
        """See `Volume`."""
        return BLOCK_BYTES

    @property
    def blocks(self) -> int:
        """See `Volume`."""
        return len(self.content)

    @property
    def access(self) -> Access:
        """See `Volume`."""
        return Access.READ_WRITE

    async def read(self, extents: Sequence[Extent]) -> list[Pieces | CheckCondition]:
        """See `Volume.read`."""
        return [self.content[lba : lba + blocks] for lba, blocks in extents]

    async def write(
        self, writes: Sequence[Write], durability: Durability = Durability.VOLATILE
    ) -> list[CheckCondition | None]:
        """See `Volume.write`."""
        for lba, data in writes:
            whole, blocks = bytes(joined(data)), length(data) // BLOCK_BYTES
            self.changed.append(Extent(lba, blocks))
            self.lost.difference_update(range(lba, lba + blocks))
            self.content[lba : lba + blocks] = [whole[at * BLOCK_BYTES : (at + 1) * BLOCK_BYTES] for at in range(blocks)]
        await self._job("a write of the disk", lambda: None)
        if durability is Durability.DURABLE:
            await self.flush()
        return [None] * len(writes)

    async def unmap(self, extents: Sequence[Extent]) -> list[CheckCondition | None]:
        """See `Volume.unmap`."""
        return await self.write([Write(lba, (bytes(blocks * BLOCK_BYTES),)) for lba, blocks in extents])

    async def flush(self) -> CheckCondition | None:
        """See `Volume.flush`."""
        if self.fails:
            self.fails = False
            self.lost.update(lba for lba, block in enumerate(self.content) if block != self.durable[lba])
            await self._job("a flush of the disk, which fails,", lambda: None)
            return CheckCondition(WRITE_ERROR)
        covered = {lba: block for lba, block in enumerate(self.content) if lba not in self.lost}

        def end() -> None:
            for lba, block in covered.items():
                self.durable[lba] = block

        await self._job("a flush of the disk", end)
        return None

    def residency(self, extent: Extent) -> list[tuple[int, Residency]]:
        """See `Volume.residency`."""
        return [(extent.blocks, Residency.FIRST)]

    async def _job(self, name: str, work: Callable[[], None]) -> None:
        if not self._slow:
            work()
            return
        done: asyncio.Future[None] = self._loop.create_future()

        def finish() -> None:
            work()
            done.set_result(None)

        self._loop.jobs.append(Job(name, finish))
        await done


class MemoryJournal(Journal):
    """A journal whose records lie in memory, each one whole: torn tails are what the tests of the file format are for."""

    def __init__(self, image: Image) -> None:
        super().__init__(Path("memory"), "journal")  # opens nothing
        self.records = list(image.records)
        self.synced = image.synced

    @override
    def recover(self) -> Iterator[Record]:
        yield from self.stored()
        self.sync()
        self._count()

    @override
    def stored(self) -> Iterator[Record]:
        yield from tuple(self.records)

    @override
    def append(self, records: Sequence[Record]) -> None:
        self.records += [Record(record.kind, bytes(record.payload)) for record in records]
        self._count()

    @override
    def sync(self) -> None:
        self.synced = len(self.records)

    @override
    def checkpoint(self, records: Iterable[Record]) -> None:
        self.records = [Record(record.kind, bytes(record.payload)) for record in records]
        self.synced = len(self.records)
        self._count()

    @override
    def close(self) -> None:
        """Nothing is open."""

    def _count(self) -> None:
        self.size_bytes = sum(len(record.payload) for record in self.records)
