"""The redirecting volume: new data goes to the store, its position into the map, and reads follow the map.

Rules of this file:
1. While redirecting nothing here writes the first volume.
2. A change of a block becomes visible by one change of the map, after the store has answered, before GOOD.
3. A flush is: store durable, then map durable, then GOOD. What the map named before is given up only after that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from hwvirt.buffers import Buffer, Pieces, joined, length
from hwvirt.controller.correlation import CorrelationMap, Run
from hwvirt.controller.gate import RangeGate
from hwvirt.controller.map_journal import MapJournal
from hwvirt.controller.states import State
from hwvirt.controller.store import STALE_POSITION, Store
from hwvirt.controller.unflushed import Sent, Unflushed
from hwvirt.digest import block_digests
from hwvirt.errors import HwvirtError
from hwvirt.link.messages import Placement, Slice
from hwvirt.scsi.sense import (
    COMMUNICATION_FAILURE,
    COMMUNICATION_TIMEOUT,
    INTERNAL_TARGET_FAILURE,
    SPACE_ALLOCATION_FAILED_WRITE_PROTECT,
    CheckCondition,
)
from hwvirt.scsi.status import SenseKey
from hwvirt.scsi.volume import Access, Durability, Extent, Residency, Volume, Write

__all__ = ["RedirectVolume"]

_FIRST, _ZERO = Residency.FIRST, Residency.ZERO  # to look up a member of an enum is a call
_GONE = (COMMUNICATION_TIMEOUT, COMMUNICATION_FAILURE)
UNFLUSHED_LIMIT_BYTES = 64 << 20
_STALE_RETRIES = 16


class Change(NamedTuple):
    """New data for a run of blocks, or None: they are unmapped."""

    lba: int
    blocks: int
    data: Pieces | None

    def part(self, start: int, end: int, block_bytes: int) -> Change:
        """The change of its blocks from `start` to `end`."""
        if self.data is None:
            return Change(self.lba + start, end - start, None)
        data = memoryview(joined(self.data))[start * block_bytes : end * block_bytes]
        return Change(self.lba + start, end - start, (data,))


class RedirectVolume:
    """A `Volume` on a first volume, a store and a map. For one asyncio loop; batches may overlap in time.

    Its parts are open to `lifecycle`, which changes its state, and to `recovery`, which mends it after a restart.
    """

    def __init__(self, number: int, first: Volume, store: Store, journal: MapJournal, correlation: CorrelationMap) -> None:
        self.number = number
        self.first = first
        self.block_bytes = first.block_bytes
        self.blocks = first.blocks
        self.access = Access.READ_WRITE  # if not to the first volume
        self.store = store
        self.journal = journal
        self.map = correlation
        self.gate = RangeGate(first.blocks)
        self.unflushed = Unflushed()
        self.superseded: list[Placement] = []
        self.given_up_blocks = 0
        self.reconciled = 0
        self.in_doubt = False  # whether the store may hold a change that it has not answered; who decides it clears this
        self.state = State.OWN
        self.committed_below = 0
        self.sequence = 0
        self._zeroes = memoryview(bytes(first.block_bytes * 256))
        self.flush_lock = asyncio.Lock()
        self._flush_waiting: asyncio.Task[CheckCondition | None] | None = None
        self._flush_newest: asyncio.Task[CheckCondition | None] | None = None  # a task lives while somebody holds it

    def residency(self, extent: Extent) -> list[tuple[int, Residency]]:
        """See `Volume.residency`."""
        return [(run.blocks, run.residency) for run in self.map.lookup(extent)]

    # Reads.

    async def read(self, extents: Sequence[Extent]) -> list[Pieces | CheckCondition]:
        """See `Volume.read`. Runs on the first volume and runs in the store are fetched side by side."""
        if self.state is State.OWN:
            return await self.first.read(extents)
        results = await self._read_once(extents)
        for _ in range(_STALE_RETRIES):
            stale = [index for index, result in enumerate(results) if _is_stale(result)]
            if not stale:
                return results
            # The blocks moved between the look at the map and the read: the map has the answer.
            again = await self._read_once([extents[index] for index in stale])
            for index, result in zip(stale, again, strict=True):
                results[index] = result
        return [
            CheckCondition(INTERNAL_TARGET_FAILURE.at(extent.lba)) if _is_stale(result) else result
            for extent, result in zip(extents, results, strict=True)
        ]

    async def _read_once(self, extents: Sequence[Extent]) -> list[Pieces | CheckCondition]:
        lookup = self.map.lookup
        runs = [lookup(extent) for extent in extents]
        here = [Extent(run.lba, run.blocks) for of in runs for run in of if run.residency is _FIRST]
        there = [run.placement for of in runs for run in of if run.placement is not None]
        if here and there:
            first, stored = await asyncio.gather(self.first.read(here), self._read_stored(there))
        else:
            first = await self.first.read(here) if here else []
            stored = await self._read_stored(there) if there else []
        from_first, from_store = iter(first), iter(stored)
        results: list[Pieces | CheckCondition] = []
        for of in runs:
            parts: list[Pieces | CheckCondition] = []
            for run in of:
                if run.residency is _ZERO:
                    parts.append(self._zero_pieces(run.blocks))
                else:
                    parts.append(next(from_store if run.placement else from_first))
            results.append(_together(parts, of))
        return results

    async def _read_stored(self, there: Sequence[Placement]) -> Sequence[Pieces | CheckCondition]:
        """A store that cannot be reached fails the reads that need it, and no other one of the batch."""
        try:
            return await self.store.read(self.number, there)
        except CheckCondition as error:
            return [error] * len(there)

    def _zero_pieces(self, blocks: int) -> list[Buffer]:
        size, most = blocks * self.block_bytes, len(self._zeroes)
        return [self._zeroes[: min(most, size - offset)] for offset in range(0, size, most)]

    # Changes: a batch is all writes or all unmaps.

    async def write(
        self, writes: Sequence[Write], durability: Durability = Durability.VOLATILE
    ) -> list[CheckCondition | None]:
        """See `Volume.write`."""
        size = self.block_bytes
        results = await self._change([Change(lba, length(data) // size, data) for lba, data in writes])
        if durability is Durability.DURABLE:
            failed = await self.flush()
            results = [result or failed for result in results]
        return results

    async def unmap(self, extents: Sequence[Extent]) -> list[CheckCondition | None]:
        """See `Volume.unmap`. While redirecting the first volume keeps its blocks; the map says that they are zero."""
        return await self._change([Change(lba, blocks, None) for lba, blocks in extents])

    async def _change(self, changes: Sequence[Change]) -> list[CheckCondition | None]:
        admitted = self.gate.admit(changes)
        if len(admitted) == len(changes):  # nobody is in the way, as nearly always
            return await self._change_inside(changes)
        results: list[CheckCondition | None] = [None] * len(changes)
        pending = list(range(len(changes)))
        while pending:
            if admitted:
                served = [pending[index] for index in admitted]
                done = await self._change_inside([changes[index] for index in served])
                for index, result in zip(served, done, strict=True):
                    results[index] = result
                pending = sorted(set(pending).difference(served))
            else:
                await self.gate.changed()
            admitted = self.gate.admit([changes[index] for index in pending])
        return results

    async def _change_inside(self, changes: Sequence[Change]) -> list[CheckCondition | None]:
        """Changes that the gate has admitted; they leave it."""
        try:
            if not self.state.uses_map:
                return await self._change_first(changes)
            if self.state is State.COMMITTING:
                return [await self._change_while_committing(change) for change in changes]
            return await self._redirect(changes)
        finally:
            self.gate.leave(changes)

    async def _change_first(self, changes: Sequence[Change]) -> list[CheckCondition | None]:
        if changes[0].data is None:
            return await self.first.unmap([Extent(change.lba, change.blocks) for change in changes])
        return await self.first.write([Write(change.lba, change.data or ()) for change in changes])

    async def _change_while_committing(self, change: Change) -> CheckCondition | None:
        """Blocks that are back on the first volume are changed there, the others are still redirected."""
        back = min(max(self.committed_below - change.lba, 0), change.blocks)
        failed = None
        if back:
            (failed,) = await self._change_first([change.part(0, back, self.block_bytes)])
        if back < change.blocks and failed is None:
            (failed,) = await self._redirect([change.part(back, change.blocks, self.block_bytes)])
        return failed

    async def _redirect(self, changes: Sequence[Change]) -> list[CheckCondition | None]:
        if self.unflushed.weight_bytes > UNFLUSHED_LIMIT_BYTES:
            if failed := await self.flush():
                return [failed] * len(changes)
        elif self.unflushed.weight_bytes > UNFLUSHED_LIMIT_BYTES // 2 and not self.flush_lock.locked():
            self._begin_flush()  # early, so that no write has to stand still for it
        while True:
            given_up = self.given_up_blocks
            try:
                await self._send(changes)
            except BaseException as error:
                self.in_doubt = True
                if not isinstance(error, CheckCondition):
                    raise
                if await self._made_room(error, given_up):
                    continue
                if len(changes) > 1 and not _is_for_all(error):
                    return [(await self._redirect([change]))[0] for change in changes]
                return [CheckCondition(error.sense.at(change.lba)) for change in changes]
            return [None] * len(changes)

    async def _made_room(self, error: CheckCondition, given_up: int) -> bool:
        """A full store has room again when a flush gives up positions that newer writes have replaced."""
        if error.sense != SPACE_ALLOCATION_FAILED_WRITE_PROTECT or await self.flush():
            return False
        return self.given_up_blocks > given_up

    async def _send(self, changes: Sequence[Change]) -> None:
        slices = []
        for lba, blocks, _ in changes:
            self.sequence += 1
            slices.append(Slice(lba, blocks, self.sequence))
        if changes[0].data is None:
            await self.store.unmap(self.number, slices)
            self.answered(Sent(slices, (), block_digests((), self.block_bytes)), None)
            return
        data = changes[0].data if len(changes) == 1 else [piece for change in changes for piece in change.data or ()]
        digests = block_digests(data, self.block_bytes)
        placements = await self.store.write(self.number, slices, data, digests)
        self.answered(Sent(slices, data, digests), placements)

    def answered(self, sent: Sent, placements: Sequence[Placement] | None) -> None:
        """The store has answered: the one moment at which a change becomes visible. None: the slices were unmapped."""
        gone = self.map.unmap(sent.slices) if placements is None else self.map.bind(sent.slices, placements)
        self.superseded += gone
        self.unflushed.add(sent)

    # Flushes.

    async def flush(self) -> CheckCondition | None:
        """See `Volume.flush`. Flushes that wait for their turn are served by one."""
        if not self.state.uses_map:
            return await self.first.flush()
        return await asyncio.shield(self._begin_flush())

    def _begin_flush(self) -> asyncio.Task[CheckCondition | None]:
        if self._flush_waiting is None:
            self._flush_waiting = self._flush_newest = asyncio.get_running_loop().create_task(self._flush_next())
        return self._flush_waiting

    async def _flush_next(self) -> CheckCondition | None:
        async with self.flush_lock:
            self._flush_waiting = None  # who comes now has writes that this flush does not cover
            try:
                if self.state is not State.REDIRECTING and (failed := await self.first.flush()):
                    return failed
                if not self.state.uses_map:
                    return None  # the redirection has ended while this waited for its turn
                while not await self._flush_epoch():
                    pass
            except CheckCondition as error:
                return error
            except (OSError, HwvirtError):
                return CheckCondition(INTERNAL_TARGET_FAILURE)
            return None

    async def _flush_epoch(self) -> bool:
        """One flush; False when the store has restarted meanwhile, so that it says nothing about what was taken here."""
        epoch, mark, sequence, reconciled = self.store.epoch, self.unflushed.mark(), self.sequence, self.reconciled
        changes = self.map.take_changes()
        superseded, self.superseded = self.superseded, []
        covered = written = False
        try:
            covered = await self.store.flush(self.number) == epoch
            if covered:
                await self.journal.add(changes, sequence)
                written = True
                self.unflushed.drop_before(mark)
                if superseded:
                    await self.store.free(self.number, superseded)
                    self.given_up_blocks += sum(place.blocks for place in superseded)
                    superseded = []
        finally:
            if not written:
                self.map.put_back(changes)
            if reconciled == self.reconciled:  # else the ledger has told anew what there is to give up
                self.superseded += superseded
        return covered


def _together(parts: Sequence[Pieces | CheckCondition], runs: Sequence[Run]) -> Pieces | CheckCondition:
    """The parts of one extent, or the first error among them."""
    if len(parts) == 1 and not isinstance(parts[0], CheckCondition):
        return parts[0]
    pieces: list[Buffer] = []
    for part, run in zip(parts, runs, strict=True):
        if isinstance(part, CheckCondition):
            return _at_host(part, run)
        pieces += part
    return pieces


def _is_for_all(error: CheckCondition) -> bool:
    """Whether one change alone would fail as well, and have to wait once more: the link, or the store's disk, is gone."""
    return error.sense in _GONE or error.sense.key is SenseKey.NOT_READY


def _is_stale(result: Pieces | CheckCondition) -> bool:
    return isinstance(result, CheckCondition) and result.sense == STALE_POSITION


def _at_host(error: CheckCondition, run: Run) -> CheckCondition:
    """The same error at the host's LBA: INFORMATION came in the store's."""
    found = error.sense.information
    if run.placement is None or found is None:
        return error
    return CheckCondition(error.sense.at(run.lba + found - run.placement.lba))
