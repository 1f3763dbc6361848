"""Wrong stores, and wrong ways to flush."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from hwvirt.buffers import Pieces
from hwvirt.controller import link_side
from hwvirt.controller.allocator import Allocator
from hwvirt.controller.correlation import Rows
from hwvirt.controller.ledger import Ledger
from hwvirt.controller.link_store import LinkStore
from hwvirt.controller.redirect import RedirectVolume
from hwvirt.controller.store import LocalStore
from hwvirt.link.messages import Placement, Slice
from hwvirt.scsi.sense import CheckCondition
from hwvirt.scsi.volume import Durability, Write
from tests.meta.planting import LBA, instead_of, mutant, one_by_one, spoiled, with_half_a_block

# The store.


@mutant
def half_written_block() -> None:
    """Half of a block reaches the second disk; the ledger has the digest of the whole."""

    @instead_of(LocalStore, "_put")
    async def put(
        original: Any, self: LocalStore, volume: int, slices: Sequence[Slice], data: Pieces, digests: array[int]
    ) -> list[Placement]:
        lbas = [one.lba for one in slices]
        if LBA in lbas:
            data = with_half_a_block(data, lbas.index(LBA), self.block_bytes)
        return await original(self, volume, slices, data, digests)  # type: ignore[no-any-return]  # `original` is what it replaces


@mutant
def position_given_twice() -> None:
    """The store puts blocks where it has just put others."""
    counter = count()
    last: list[Placement] = []
    last_lbas: list[int] = []

    @instead_of(Allocator, "take")
    def take(original: Any, self: Allocator, blocks: int) -> list[Placement]:
        if last and blocks <= last[0].blocks and next(counter) % 4 == 0:
            return [last[0]._replace(blocks=blocks)]
        placements: list[Placement] = original(self, blocks)
        return placements

    @instead_of(LocalStore, "_put")
    async def put(original: Any, self: LocalStore, volume: int, slices: Sequence[Slice], *rest: Any) -> list[Placement]:
        placements: list[Placement] = await original(self, volume, slices, *rest)
        lbas = [one.lba for one in slices]
        if last and placements[0].lba == last[0].lba:
            spoiled(*last_lbas, *lbas)
        last[:], last_lbas[:] = placements[:1], lbas
        return placements


def wrong_rows(wrong: Callable[[Slice, int], tuple[Slice, int]]) -> None:
    """The ledger's row of LBA is wrong."""

    @instead_of(Ledger, "record")
    def record(
        original: Any,
        self: Ledger,
        volume: int,
        slices: Sequence[Slice],
        placements: Sequence[Placement],
        digests: array[int],
    ) -> None:
        for (one, place), digest in zip(one_by_one(slices, placements), digests, strict=True):
            row, crc = wrong(one, digest) if one.lba == LBA else (one, digest)
            original(self, volume, [row], [place], array("I", [crc]))


@mutant
def wrong_lba_in_the_ledger() -> None:
    """The row names another block."""
    wrong_rows(lambda one, crc: (one._replace(lba=LBA + 1), crc))


@mutant
def wrong_sequence_in_the_ledger() -> None:
    """The row names another write."""
    wrong_rows(lambda one, crc: (one._replace(sequence=one.sequence + 1), crc))


@mutant
def wrong_digest_in_the_ledger() -> None:
    """The row has the digest of other data."""
    wrong_rows(lambda one, crc: (one, crc ^ 1))


@mutant
def forgotten_free() -> None:
    """Positions that newer writes have replaced are never given back."""

    @instead_of(LinkStore, "free")
    async def free(original: Any, self: LinkStore, volume: int, placements: Sequence[Placement]) -> None:
        pass


@mutant
def leak() -> None:
    """Blocks that are given back still count as live."""

    @instead_of(Allocator, "give_back")
    def give_back(original: Any, self: Allocator, placements: Sequence[Placement]) -> None:
        original(self, placements)
        self.live += 1


# Flushes and crashes.


@mutant
def forgotten_flush() -> None:
    """A flush is acknowledged and nothing is done."""

    @instead_of(RedirectVolume, "flush")
    async def flush(original: Any, self: RedirectVolume) -> CheckCondition | None:
        return None


@mutant
def flush_not_sent() -> None:
    """A flush makes the map durable; the store never hears of it."""

    @instead_of(LinkStore, "flush")
    async def flush(original: Any, self: LinkStore, volume: int) -> int:
        return self.epoch


@mutant
def ignored_fua() -> None:
    """A write that must be durable is not."""

    @instead_of(RedirectVolume, "write")
    async def write(
        original: Any, self: RedirectVolume, writes: Sequence[Write], durability: Durability = Durability.VOLATILE
    ) -> list[CheckCondition | None]:
        return await original(self, writes)  # type: ignore[no-any-return]  # `original` is what it replaces


@mutant
def reused_at_once() -> None:
    """A position is given up, and used again, before the map that no longer names it is durable."""

    @instead_of(RedirectVolume, "answered")
    def answered(original: Any, self: RedirectVolume, sent: Any, placements: Sequence[Placement] | None) -> None:
        original(self, sent, placements)
        gone, self.superseded = self.superseded, []
        asyncio.get_running_loop().create_task(self.store.free(self.number, gone))

    @instead_of(Allocator, "give_back")
    def give_back(original: Any, self: Allocator, placements: Sequence[Placement]) -> None:
        original(self, placements)
        self.settle(self.pending())
        self.cursor = 0


@mutant
def not_sent_again() -> None:
    """After a restart of the store, what it may have lost is forgotten instead of sent again."""

    @instead_of(link_side, "send_again")
    async def send_again(original: Any, volume: RedirectVolume, store: Any, rows: Rows) -> Rows:
        lost = [Slice(lba, blocks, volume.sequence) for sent in volume.unflushed for lba, blocks, _ in sent.slices]
        volume.unflushed.clear()
        volume.map.release(lost)
        spoiled(*(one.lba for one in lost))
        return rows
