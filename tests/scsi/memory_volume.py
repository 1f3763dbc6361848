"""A volume in RAM that can be told to fail at an LBA, to count what it is asked for, and to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hwvirt.buffers import Pieces, length
from hwvirt.scsi.sense import CheckCondition, Sense
from hwvirt.scsi.volume import Access, Durability, Extent, Residency, Write


class MemoryVolume:
    """`blocks` zeroed blocks. `faults` are the senses that reads, writes and unmaps of an LBA end with; `calls` is what
    was asked for, in order; `received` is the data of the last write, as it came; `pause` holds calls while it is clear.
    """

    def __init__(self, blocks: int, block_bytes: int = 4096) -> None:
        self.blocks = blocks
        self.block_bytes = block_bytes
        self.access = Access.READ_WRITE
        self.content = bytearray(blocks * block_bytes)
        self.unmapped: set[int] = set()
        self.faults: dict[int, Sense] = {}
        self.flush_fault: Sense | None = None
        self.calls: list[tuple[str, int]] = []
        self.received: list[Pieces] = []
        self.pause: asyncio.Event | None = None

    async def read(self, extents: Sequence[Extent]) -> list[Pieces | CheckCondition]:
        self.calls.append(("read", len(extents)))
        await self._paused()
        return [self._fault(lba, blocks) or (self.bytes_of(lba, blocks),) for lba, blocks in extents]

    async def write(
        self, writes: Sequence[Write], durability: Durability = Durability.VOLATILE
    ) -> list[CheckCondition | None]:
        self.calls.append(("write" if durability is Durability.VOLATILE else "write durable", len(writes)))
        self.received = [write.data for write in writes]
        await self._paused()
        return [self._write(lba, data) for lba, data in writes]

    async def unmap(self, extents: Sequence[Extent]) -> list[CheckCondition | None]:
        self.calls.append(("unmap", len(extents)))
        await self._paused()
        return [self._unmap(lba, blocks) for lba, blocks in extents]

    async def flush(self) -> CheckCondition | None:
        self.calls.append(("flush", 0))
        await self._paused()
        return CheckCondition(self.flush_fault) if self.flush_fault else None

    def residency(self, extent: Extent) -> list[tuple[int, Residency]]:
        lba, blocks = extent
        return [(1, Residency.ZERO if at in self.unmapped else Residency.FIRST) for at in range(lba, lba + blocks)]

    def bytes_of(self, lba: int, blocks: int = 1) -> bytes:
        return bytes(self.content[lba * self.block_bytes : (lba + blocks) * self.block_bytes])

    async def _paused(self) -> None:
        if self.pause is not None:
            await self.pause.wait()

    def _write(self, lba: int, data: Pieces) -> CheckCondition | None:
        blocks, rest = divmod(length(data), self.block_bytes)
        assert not rest, "a device server passes on whole blocks only"
        fault = self._fault(lba, blocks)
        if fault is None:
            self._inside(lba, blocks)
            self.content[lba * self.block_bytes : (lba + blocks) * self.block_bytes] = b"".join(data)
            self.unmapped.difference_update(range(lba, lba + blocks))
        return fault

    def _unmap(self, lba: int, blocks: int) -> CheckCondition | None:
        fault = self._fault(lba, blocks)
        if fault is None:
            self._inside(lba, blocks)
            self.content[lba * self.block_bytes : (lba + blocks) * self.block_bytes] = bytes(blocks * self.block_bytes)
            self.unmapped.update(range(lba, lba + blocks))
        return fault

    def _fault(self, lba: int, blocks: int) -> CheckCondition | None:
        self._inside(lba, blocks)
        for at in sorted(self.faults):
            if lba <= at < lba + blocks:
                return CheckCondition(self.faults[at].at(at))
        return None

    def _inside(self, lba: int, blocks: int) -> None:
        assert lba >= 0 < blocks, "a device server passes on no empty extents"
        assert lba + blocks <= self.blocks, "a device server has checked the range"
