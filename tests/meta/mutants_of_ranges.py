"""Controllers that are wrong about ranges: their ends, their parts, where they lie and where they must not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hwvirt.buffers import Pieces, joined
from hwvirt.controller import lifecycle
from hwvirt.controller.allocator import Allocator
from hwvirt.controller.correlation import CHANGE, CorrelationMap
from hwvirt.controller.forward import ForwardUnit
from hwvirt.controller.ledger import Ledger
from hwvirt.controller.lifecycle import Lifecycle
from hwvirt.controller.position import pack
from hwvirt.controller.redirect import Change, RedirectVolume
from hwvirt.controller.store import LocalStore
from hwvirt.disk.volume import DiskVolume
from hwvirt.link.messages import Placement, Slice
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.sense import CheckCondition
from hwvirt.scsi.status import Status
from hwvirt.scsi.volume import Extent, Write
from tests.meta.planting import LBA, instead_of, mutant, one_by_one, spoiled

_LARGE_BLOCKS = 256


# Ends and parts.


@mutant
def end_of_a_range() -> None:
    """The map's entry of the last block of a write is off by one."""

    @instead_of(CorrelationMap, "bind")
    def bind(
        original: Any, self: CorrelationMap, slices: Sequence[Slice], placements: Sequence[Placement]
    ) -> list[Placement]:
        gone: list[Placement] = original(self, slices, placements)
        for one, place in one_by_one(slices, placements):
            if any(of.blocks > 1 and of.lba + of.blocks - 1 == one.lba for of in slices):
                self.apply(np.array([(one.lba, 1, pack(place._replace(lba=place.lba - 1)), one.sequence)], CHANGE))
                spoiled(one.lba)
        return gone


@mutant
def half_of_a_large_write() -> None:
    """Of a write of 1 MiB the first half is done, and all of it acknowledged."""

    @instead_of(RedirectVolume, "_redirect")
    async def redirect(original: Any, self: RedirectVolume, changes: Sequence[Change]) -> list[CheckCondition | None]:
        sizes = [change.blocks // 2 if change.blocks >= _LARGE_BLOCKS else change.blocks for change in changes]
        torn = [change.part(0, size, self.block_bytes) for change, size in zip(changes, sizes, strict=True)]
        return await original(self, torn)  # type: ignore[no-any-return]  # `original` is what it replaces


@mutant
def zeroes_leave_the_last_block() -> None:
    """The last block of a range that is to read as zeroes keeps its data."""

    @instead_of(RedirectVolume, "unmap")
    async def unmap(original: Any, self: RedirectVolume, extents: Sequence[Extent]) -> list[CheckCondition | None]:
        spoiled(*(lba + blocks - 1 for lba, blocks in extents))
        shorter = [Extent(lba, max(1, blocks - 1)) for lba, blocks in extents]
        return await original(self, shorter)  # type: ignore[no-any-return]  # `original` is what it replaces


@mutant
def commit_without_its_end() -> None:
    """A commit goes by chunks of 16 blocks and leaves the last one out."""
    vars(lifecycle)["COMMIT_CHUNK_BYTES"], vars(lifecycle)["_CHUNKS_MOST"] = 16 * 4096, 1

    @instead_of(Lifecycle, "_commit_chunk")
    async def commit_chunk(original: Any, self: Any, chunk: Extent) -> None:
        if chunk.lba + chunk.blocks < self._volume.blocks:
            await original(self, chunk)
        else:
            spoiled(*range(chunk.lba, chunk.lba + chunk.blocks))


# Where things lie.


@mutant
def position_outside_the_store() -> None:
    """The store believes that it is 64 blocks larger than it is, and takes those first, in each write."""
    inside: list[int] = []

    @instead_of(LocalStore, "__init__")
    def init(original: Any, self: LocalStore, volume: Any, *rest: Any) -> None:
        inside.append(volume.blocks)
        original(self, DiskVolume(volume._disk, Extent(volume._first, volume.blocks + 64), volume.block_bytes), *rest)

    @instead_of(Allocator, "take")
    def take(original: Any, self: Allocator, blocks: int) -> list[Placement]:
        self.cursor, self.lap = inside[0], self.lap + 1
        return original(self, blocks)  # type: ignore[no-any-return]  # `original` is what it replaces


@mutant
def rows_of_nobody() -> None:
    """What a volume gives up stays in the ledger, as another volume's."""

    @instead_of(Ledger, "free")
    def free(original: Any, self: Ledger, volume: int, placements: Sequence[Placement]) -> int:
        for place in placements:
            self._volumes[place.lba : place.lba + place.blocks] = 9
        return 0


@mutant
def first_disk_for_a_moment() -> None:
    """A redirected write goes to the first disk as well, which then gets its old data back."""

    @instead_of(RedirectVolume, "_redirect")
    async def redirect(original: Any, self: RedirectVolume, changes: Sequence[Change]) -> list[CheckCondition | None]:
        for change in changes:
            if change.lba == LBA and change.data:
                (old,) = await self.first.read([Extent(LBA, 1)])
                assert not isinstance(old, CheckCondition)
                await self.first.write([Write(LBA, change.data), Write(LBA, old)])
        return await original(self, changes)  # type: ignore[no-any-return]  # `original` is what it replaces


@mutant
def dropped_forward() -> None:
    """A write to a logical unit of the other controller is acknowledged and dropped."""

    @instead_of(ForwardUnit, "execute")
    async def execute(original: Any, self: ForwardUnit, batch: Sequence[Command]) -> list[Completion]:
        dropped = [one.cdb[0] == 0x8A and int.from_bytes(one.cdb[2:10], "big") == LBA for one in batch]
        kept = [one for one, drop in zip(batch, dropped, strict=True) if not drop]
        done = iter(await original(self, kept) if kept else ())
        return [Completion(Status.GOOD) if drop else next(done) for drop in dropped]


@mutant
def garbage_for_the_original() -> None:
    """A read of a block that nobody has written returns garbage."""

    @instead_of(RedirectVolume, "read")
    async def read(original: Any, self: RedirectVolume, extents: Sequence[Extent]) -> list[Pieces | CheckCondition]:
        results = list(await original(self, extents))
        for index, extent in enumerate(extents):
            whole = bytearray(joined(results[index]))
            for at, lba in enumerate(range(extent.lba, extent.lba + extent.blocks)):
                if self.map.lookup(Extent(lba, 1))[0].residency.value == "first":
                    whole[at * self.block_bytes] ^= 0xFF
            results[index] = [bytes(whole)]
        return results


@mutant
def swallowed_error() -> None:
    """A write that the store has no room for is acknowledged."""

    @instead_of(RedirectVolume, "_redirect")
    async def redirect(original: Any, self: RedirectVolume, changes: Sequence[Change]) -> list[CheckCondition | None]:
        results: list[CheckCondition | None] = await original(self, changes)
        spoiled(*(change.lba for change, failed in zip(changes, results, strict=True) if failed))
        return [None] * len(results)
