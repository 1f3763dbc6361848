"""Controllers that are wrong about time: data of before, promises that were given too early, restarts that forget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hwvirt.buffers import Pieces, split
from hwvirt.controller import lifecycle, units
from hwvirt.controller.correlation import Rows
from hwvirt.controller.ledger import Ledger
from hwvirt.controller.map_journal import MapJournal
from hwvirt.controller.position import UNMAPPED, ZERO
from hwvirt.controller.redirect import Change, RedirectVolume
from hwvirt.controller.store import LocalStore
from hwvirt.digest import block_digests
from hwvirt.link.messages import Placement, Slice
from hwvirt.scsi.sense import CheckCondition
from hwvirt.scsi.volume import Extent, Write
from tests.meta.planting import LBA, instead_of, mutant, names_lba, spoiled


@mutant
def former_generation() -> None:
    """A position that is used again is read as it was before."""
    cache: dict[int, bytes] = {}

    @instead_of(LocalStore, "_put")
    async def put(original: Any, self: LocalStore, volume: int, slices: Sequence[Slice], data: Any, digests: Any) -> Any:
        placements: list[Placement] = await original(self, volume, slices, data, digests)
        blocks = iter(split(data, self.block_bytes))
        lbas = iter([lba for one in slices for lba in range(one.lba, one.lba + one.blocks)])
        for place in placements:
            for at in range(place.lba, place.lba + place.blocks):
                block, lba = bytes(next(blocks)), next(lbas)
                if cache.setdefault(at, block) is not block:
                    spoiled(lba)
        return placements

    @instead_of(LocalStore, "fetch")
    async def fetch(original: Any, self: LocalStore, placements: Sequence[Placement]) -> Any:
        results, _ = await original(self, placements)
        for index, place in enumerate(placements):
            if not isinstance(results[index], CheckCondition):
                results[index] = [cache[at] for at in range(place.lba, place.lba + place.blocks)]
        pieces = [piece for result in results if not isinstance(result, CheckCondition) for piece in result]
        return results, block_digests(pieces, self.block_bytes)


@mutant
def acknowledged_too_early() -> None:
    """A write is acknowledged at once and done after the next read of its block."""
    late: list[Change] = []

    @instead_of(RedirectVolume, "_redirect")
    async def redirect(original: Any, self: RedirectVolume, changes: Sequence[Change]) -> list[CheckCondition | None]:
        kept = [change for change in changes if change.lba != LBA]
        late.extend(change for change in changes if change.lba == LBA)
        results = iter(await original(self, kept) if kept else ())
        return [None if change.lba == LBA else next(results) for change in changes]

    @instead_of(RedirectVolume, "read")
    async def read(original: Any, self: RedirectVolume, extents: Sequence[Extent]) -> list[Pieces | CheckCondition]:
        results: list[Pieces | CheckCondition] = await original(self, extents)
        if names_lba(extents):
            while late:
                await self._send([late.pop(0)])
        return results


@mutant
def volatile_ledger() -> None:
    """A flush is answered before the ledger is durable."""

    @instead_of(LocalStore, "flush")
    async def flush(original: Any, self: LocalStore, volume: int) -> int:
        return self.epoch


@mutant
def unmaps_without_tombstones() -> None:
    """The ledger has nothing about blocks that were unmapped."""

    @instead_of(Ledger, "bury")
    def bury(original: Any, self: Ledger, volume: int, slices: Sequence[Slice]) -> None:
        self.last_sequence = max(self.last_sequence, *(one.sequence for one in slices))


@mutant
def tombstones_of_nobody() -> None:
    """What is unmapped is buried for another volume, too."""

    @instead_of(Ledger, "bury")
    def bury(original: Any, self: Ledger, volume: int, slices: Sequence[Slice]) -> None:
        original(self, volume, slices)
        original(self, 8, slices)


@mutant
def unmaps_that_a_restart_forgets() -> None:
    """Neither journal has anything about blocks that were unmapped."""
    unmaps_without_tombstones()

    @instead_of(MapJournal, "add")
    async def add(original: Any, self: MapJournal, changes: Rows, sequence: int) -> None:
        forgetful = changes.copy()
        forgetful["position"][changes["position"] == ZERO] = UNMAPPED
        await original(self, forgetful, sequence)


@mutant
def ledger_not_taken_over() -> None:
    """After a crash of the first controller the newer rows of the ledger are not taken over."""

    @instead_of(lifecycle, "reconcile")
    def reconcile(original: Any, volume: RedirectVolume, rows: Rows) -> None:
        volume.sequence = max(volume.sequence, int(rows["sequence"].max(initial=0)))


@mutant
def memory_only() -> None:
    """An own volume keeps what is written to it in memory."""

    @instead_of(units, "_served")
    def served(original: Any, config: Any, lun: Any, volume: Any) -> Any:
        return original(config, lun, _InMemory(volume) if lun.mode == "own" else volume)


class _InMemory:
    def __init__(self, first: Any) -> None:
        self._first = first
        self._kept: dict[int, bytes] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._first, name)

    async def read(self, extents: Sequence[Extent]) -> list[Any]:
        results = await self._first.read(extents)
        for index, extent in enumerate(extents):
            blocks = enumerate(split(results[index], self._first.block_bytes), extent.lba)
            results[index] = [self._kept.get(lba, block) for lba, block in blocks]
        return list(results)

    async def write(self, writes: Sequence[Write], *rest: Any) -> list[Any]:
        for lba, data in writes:
            for at, block in enumerate(split(data, self._first.block_bytes)):
                self._kept[lba + at] = bytes(block)
        return [None] * len(writes)

    async def unmap(self, extents: Sequence[Extent]) -> list[Any]:
        for lba, blocks in extents:
            for at in range(lba, lba + blocks):
                self._kept[at] = bytes(self._first.block_bytes)
        return [None] * len(extents)
