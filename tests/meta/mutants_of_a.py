"""Wrong first controllers: the map, the way of a write and of a read, the end of redirection."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hwvirt.buffers import Pieces, joined
from hwvirt.controller import units
from hwvirt.controller.correlation import CHANGE, CorrelationMap
from hwvirt.controller.lifecycle import Lifecycle
from hwvirt.controller.link_store import LinkStore
from hwvirt.controller.position import pack
from hwvirt.controller.redirect import Change, RedirectVolume
from hwvirt.digest import block_digests
from hwvirt.link.messages import Placement, Slice
from hwvirt.scsi.sense import UNRECOVERED_READ_ERROR, CheckCondition
from hwvirt.scsi.volume import Access, Extent, Write
from tests.meta.planting import (
    LBA,
    UNMAPPED,
    instead_of,
    mutant,
    names_lba,
    one_by_one,
    spoiled,
    with_block,
    with_half_a_block,
)

# The map.


def lying_map(lie: Callable[[dict[int, Placement]], dict[int, Placement]]) -> None:
    """What the map says of LBA and its neighbour is a lie at all times, except to changes of these two blocks."""
    truth: dict[int, Placement] = {}

    def told(correlation: CorrelationMap, places: dict[int, Placement]) -> None:
        for lba, place in places.items():
            sequence = int(correlation.sequences_at(np.array([lba], np.uint64))[0])
            correlation.apply(np.array([(lba, 1, pack(place), sequence)], CHANGE))

    for change in ("bind", "unmap"):

        @instead_of(CorrelationMap, change)
        def changed(original: Any, self: CorrelationMap, slices: Sequence[Slice], *placements: Any) -> list[Placement]:
            told(self, truth)
            gone: list[Placement] = original(self, slices, *placements)
            truth.clear()
            for lba in (LBA, LBA + 1):
                (run,) = self.lookup(Extent(lba, 1))
                if run.placement is not None:
                    truth[lba] = run.placement
            told(self, lie(truth))
            return gone


@mutant
def swapped_entries() -> None:
    """The positions of two blocks have changed places."""
    lying_map(lambda truth: dict(zip(truth, reversed(truth.values()), strict=True)))


@mutant
def position_off_by_one() -> None:
    """The position behind the right one."""
    lying_map(lambda truth: {lba: place._replace(lba=place.lba + 1) for lba, place in truth.items() if lba == LBA})


@mutant
def stale_map() -> None:
    """An overwrite does not change the map: its data is acknowledged and given up."""

    @instead_of(CorrelationMap, "bind")
    def bind(
        original: Any, self: CorrelationMap, slices: Sequence[Slice], placements: Sequence[Placement]
    ) -> list[Placement]:
        gone: list[Placement] = []
        for one, place in one_by_one(slices, placements):
            known = one.lba == LBA and self.lookup(Extent(LBA, 1))[0].placement is not None
            gone += [place] if known else original(self, [one], [place])
        return gone


@mutant
def exchanged_replies() -> None:
    """The positions of two slices of one request are taken in the wrong order."""

    @instead_of(LinkStore, "write")
    async def write(
        original: Any, self: LinkStore, volume: int, slices: Sequence[Slice], data: Pieces, digests: array[int]
    ) -> list[Placement]:
        placements: list[Placement] = await original(self, volume, slices, data, digests)
        if len(slices) < 2 or {one.blocks for one in slices} != {1}:
            return placements
        spoiled(slices[0].lba, slices[1].lba)
        places = [place for _, place in one_by_one(slices, placements)]
        return [places[1], places[0], *places[2:]]


# The way of a write.


@mutant
def lost_write() -> None:
    """A write is acknowledged and never sent."""

    @instead_of(RedirectVolume, "_redirect")
    async def redirect(original: Any, self: RedirectVolume, changes: Sequence[Change]) -> list[CheckCondition | None]:
        if changes[0].data is None:
            return await original(self, changes)  # type: ignore[no-any-return]  # `original` is what it replaces
        kept = [change for change in changes if change.lba != LBA]
        results = iter(await original(self, kept) if kept else ())
        return [None if change.lba == LBA else next(results) for change in changes]


@mutant
def first_disk_too() -> None:
    """A redirected write goes to the first disk as well."""

    @instead_of(RedirectVolume, "_redirect")
    async def redirect(original: Any, self: RedirectVolume, changes: Sequence[Change]) -> list[CheckCondition | None]:
        await self.first.write([Write(LBA, change.data) for change in changes if change.lba == LBA and change.data])
        return await original(self, changes)  # type: ignore[no-any-return]  # `original` is what it replaces


@mutant
def forgotten_unmap() -> None:
    """An unmap is acknowledged and forgotten."""

    @instead_of(RedirectVolume, "unmap")
    async def unmap(original: Any, self: RedirectVolume, extents: Sequence[Extent]) -> list[CheckCondition | None]:
        kept = [extent for extent in extents if extent.lba != UNMAPPED]
        results = iter(await original(self, kept) if kept else ())
        return [None if extent.lba == UNMAPPED else next(results) for extent in extents]


@mutant
def torn_block() -> None:
    """A block is torn before anybody has computed its digest."""

    @instead_of(LinkStore, "write")
    async def write(
        original: Any, self: LinkStore, volume: int, slices: Sequence[Slice], data: Pieces, digests: array[int]
    ) -> list[Placement]:
        lbas = [one.lba for one in slices]
        if LBA in lbas:
            data = with_half_a_block(data, lbas.index(LBA), self.block_bytes)
            digests = block_digests(data, self.block_bytes)
        return await original(self, volume, slices, data, digests)  # type: ignore[no-any-return]  # `original` is what it replaces


@mutant
def late_landing() -> None:
    """A write that was reported failed is sent once more after a newer one of its block."""
    late: dict[int, Change] = {}

    @instead_of(RedirectVolume, "_redirect")
    async def redirect(original: Any, self: RedirectVolume, changes: Sequence[Change]) -> list[CheckCondition | None]:
        results: list[CheckCondition | None] = await original(self, changes)
        for change, failed in zip(changes, results, strict=True):
            if failed:
                late[change.lba] = change
                continue
            for lba in late.keys() & range(change.lba, change.lba + change.blocks):
                await original(self, [late.pop(lba)])
                spoiled(lba)
        return results


# The way of a read.


@mutant
def read_past_the_map() -> None:
    """A read of a redirected block is answered from the first disk."""

    @instead_of(RedirectVolume, "read")
    async def read(original: Any, self: RedirectVolume, extents: Sequence[Extent]) -> list[Pieces | CheckCondition]:
        (block,) = await self.first.read([Extent(LBA, 1)])
        assert not isinstance(block, CheckCondition)
        return with_block(await original(self, extents), extents, block)


@mutant
def unreadable_block() -> None:
    """A block that was acknowledged cannot be read."""

    @instead_of(RedirectVolume, "read")
    async def read(original: Any, self: RedirectVolume, extents: Sequence[Extent]) -> list[Pieces | CheckCondition]:
        error = CheckCondition(UNRECOVERED_READ_ERROR.at(LBA))
        results = await original(self, extents)
        return [error if names_lba([extent]) else result for extent, result in zip(extents, results, strict=True)]


@mutant
def live_frozen_lun() -> None:
    """The frozen LU shows the live volume."""
    live: list[RedirectVolume] = []

    class Thawed:
        """Forwards to the first volume; one block is the live one."""

        def __init__(self, first: Any) -> None:
            self._first = first

        def __getattr__(self, name: str) -> Any:
            return getattr(self._first, name)

        @property
        def access(self) -> Access:
            return Access.READ_ONLY

        async def read(self, extents: Sequence[Extent]) -> list[Pieces | CheckCondition]:
            (block,) = await live[0].read([Extent(LBA, 1)])
            assert not isinstance(block, CheckCondition)
            return with_block(await self._first.read(extents), extents, block)

    @instead_of(units, "_served")
    def served(original: Any, config: Any, lun: Any, volume: Any) -> Any:
        if isinstance(volume, RedirectVolume):
            live.append(volume)
        return original(config, lun, Thawed(volume) if lun.mode == "frozen" else volume)


# The end of redirection.


class Forgetful:
    """A first volume to which LBA is not written."""

    def __init__(self, first: Any) -> None:
        self._first = first

    def __getattr__(self, name: str) -> Any:
        return getattr(self._first, name)

    async def write(self, writes: Sequence[Write]) -> list[CheckCondition | None]:
        """Writes what lies before and behind it."""
        parts = []
        for lba, pieces in writes:
            data, size = memoryview(joined(pieces)), self._first.block_bytes
            blocks, at = len(data) // size, LBA - lba
            spans = [(0, at), (at + 1, blocks)] if 0 <= at < blocks else [(0, blocks)]
            parts += [Write(lba + low, [data[low * size : high * size]]) for low, high in spans if low < high]
        failed: CheckCondition | None = next((result for result in await self._first.write(parts) if result), None)
        return [failed] * len(writes)


@mutant
def commit_forgets_a_block() -> None:
    """A block is not written back to the first disk."""

    @instead_of(Lifecycle, "_commit_chunk")
    async def commit_chunk(original: Any, self: Any, chunk: Extent) -> None:
        first = self._volume.first
        self._volume.first = Forgetful(first)
        await original(self, chunk)
        self._volume.first = first


@mutant
def discard_keeps_a_block() -> None:
    """The map still has an entry when redirection has ended."""

    @instead_of(Lifecycle, "_empty")
    def empty(original: Any, self: Any) -> None:
        (run,) = self._volume.map.lookup(Extent(LBA, 1))
        original(self)
        self._volume.map.apply(np.array([(LBA, 1, pack(run.placement), 1)], CHANGE))


@mutant
def discard_not_sent() -> None:
    """The store is not told that redirection has ended."""

    @instead_of(LinkStore, "drop")
    async def drop(original: Any, self: LinkStore, volume: int, extent: Extent) -> None:
        pass
