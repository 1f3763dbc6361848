"""The second volume: where the second controller puts redirected blocks, and what it answers about them."""

from __future__ import annotations

import asyncio
import os
import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Protocol

import numpy as np

from hwvirt.buffers import Pieces, joined
from hwvirt.controller.allocator import Allocator, NoSpace
from hwvirt.controller.answers import Answers
from hwvirt.controller.correlation import Rows
from hwvirt.controller.journal import PORTION_ROWS, Journal, Record
from hwvirt.controller.ledger import ROW, Ledger
from hwvirt.digest import block_digests
from hwvirt.link.messages import Placement, Slice
from hwvirt.scsi.sense import SPACE_ALLOCATION_FAILED_WRITE_PROTECT, UNRECOVERED_READ_ERROR, CheckCondition, Sense
from hwvirt.scsi.status import SenseKey
from hwvirt.scsi.volume import Extent, Volume, Write
from hwvirt.trace import Trace

__all__ = ["SEND_AGAIN", "STALE_POSITION", "LocalStore", "Store"]

STALE_POSITION = Sense(SenseKey.ABORTED_COMMAND, 0x80, 0x01)
"""The position was given up, or belongs to another generation. Vendor specific (ASC 80h and above, SPC-4 4.5.2.1)."""
SEND_AGAIN = Sense(SenseKey.ABORTED_COMMAND, 0x80, 0x02)
"""A flush of the disk had failed, and the next one says nothing about what was written before: the store has forgotten what
no flush had covered. Vendor specific."""

_ROWS, _LAP = 1, 2
_LAP_RECORD = struct.Struct("<QQ")  # lap of the allocator, newest sequence number ever recorded


class Store(Protocol):
    """A second volume as a first controller sees it. Every call may raise CheckCondition for the whole batch."""

    @property
    def epoch(self) -> int:
        """The epoch in which the store's volatile state began: it changes when that state may have been lost."""
        ...

    async def write(
        self, volume: int, slices: Sequence[Slice], data: Pieces, digests: array[int]
    ) -> Sequence[Placement]:
        """Puts the slices' blocks where the store chooses: placements that cover them in order. Volatile until flush.

        The same slices again, in the same epoch, get the same answer and are not written twice.
        """
        ...

    async def read(self, volume: int, placements: Sequence[Placement]) -> list[Pieces | CheckCondition]:
        """The data at each placement; STALE_POSITION where it is no longer the volume's, INFORMATION in store LBAs."""
        ...

    async def unmap(self, volume: int, slices: Sequence[Slice]) -> None:
        """Records that the slices' blocks read as zeroes. Volatile until flush."""
        ...

    async def flush(self, volume: int) -> int:
        """Data, then ledger, are durable for all that completed before. Returns the store's epoch.

        Raises SEND_AGAIN, and has a new epoch, where a flush of the disk had failed: what it should have covered is gone.
        """
        ...

    async def free(self, volume: int, placements: Sequence[Placement]) -> None:
        """The volume's durable map names these no more."""
        ...

    async def drop(self, volume: int, extent: Extent) -> None:
        """Forgets whatever the volume has stored for the extent; durable when it returns."""
        ...

    async def ledger(self, volume: int) -> Rows:
        """All ledger rows of the volume."""
        ...


class LocalStore:
    """The store on a volume of this process. One asyncio loop; several writes and reads may be under way at once."""

    def __init__(self, volume: Volume, journal: Journal, trace: Trace) -> None:
        self.block_bytes = volume.block_bytes
        self._volume = volume
        self._journal = journal
        self._trace = trace
        self.epoch = _new_epoch()
        self.allocator = Allocator(volume.blocks)
        self.records = Ledger(volume.blocks, self.allocator)
        self._answers: dict[int, Answers[list[Placement]]] = {}  # by volume
        self._flushing = asyncio.Lock()
        self._flush_fails = False
        self._failed_flushes = 0
        self._recover()

    def _recover(self) -> None:
        lap = _replay(self._journal.recover(), self.records)
        self.records.recovered()
        # Positions taken after the last durable row are forgotten: no later one may share their generation.
        self.allocator.lap = lap + 1
        self._begin_lap()

    def _begin_lap(self) -> None:
        lap = self.allocator.lap
        self._journal.append([self._lap_record()])
        self._journal.sync()
        self._durable_lap = lap

    def _lap_record(self) -> Record:
        return Record(_LAP, _LAP_RECORD.pack(self.allocator.lap, self.records.last_sequence))

    async def write(
        self, volume: int, slices: Sequence[Slice], data: Pieces, digests: array[int]
    ) -> list[Placement]:
        """See `Store.write`."""
        answers = self._answers.get(volume)
        if answers is None:
            answers = self._answers[volume] = Answers()
        number = slices[0].sequence
        if (repeated := answers.get(number)) is not None:
            return await asyncio.shield(repeated)
        with answers.coming(number) as answer:
            placements = await self._put(volume, slices, data, digests)
            answer.set_result(placements)
        return placements

    async def _put(self, volume: int, slices: Sequence[Slice], data: Pieces, digests: array[int]) -> list[Placement]:
        placements, failed_flushes = await self._take(len(digests)), self._failed_flushes
        for failed in await self._volume.write(_placed(placements, data, self.block_bytes)):
            if failed is not None:
                self.allocator.take_back(placements)  # no flush is needed to have them again: the disk may be gone
                raise failed
        self.records.record(volume, slices, placements, digests)
        if failed_flushes != self._failed_flushes:
            self.records.doubt_changes()
        return placements

    def forget_answers(self) -> None:
        """Whoever asked was restarted: it repeats nothing, and may count its writes from the beginning."""
        self._answers.clear()

    def settled(self, volume: int, sequence: int) -> None:
        """The volume has the answers to all writes up to this sequence number: they need not be remembered."""
        if (answers := self._answers.get(volume)) is not None:
            answers.settled(sequence)

    async def _take(self, blocks: int) -> list[Placement]:
        try:
            placements = self.allocator.take(blocks)
        except NoSpace as full:
            if full.free + full.freed < blocks:
                raise CheckCondition(SPACE_ALLOCATION_FAILED_WRITE_PROTECT) from full
            await self._flush_ledger()
            try:
                placements = self.allocator.take(blocks)
            except NoSpace:
                raise CheckCondition(SPACE_ALLOCATION_FAILED_WRITE_PROTECT) from full
        if self.allocator.lap != self._durable_lap:
            try:
                await self._record_lap()
            except BaseException:
                self.allocator.take_back(placements)
                raise
        return placements

    async def _record_lap(self) -> None:
        """No position of a lap is used before its number is durable. It waits for a checkpoint, which would lose it."""
        async with self._flushing:
            if self.allocator.lap != self._durable_lap:
                self._begin_lap()

    async def read(self, volume: int, placements: Sequence[Placement]) -> list[Pieces | CheckCondition]:
        """See `Store.read`."""
        return (await self.fetch(placements))[0]

    async def fetch(self, placements: Sequence[Placement]) -> tuple[list[Pieces | CheckCondition], array[int]]:
        """As `read`, with the digests of all blocks that could be read, in order.

        What the ledger's digests do not confirm is a MEDIUM ERROR.
        """
        results = await self._volume.read([Extent(place.lba, place.blocks) for place in placements])
        digests = array("I")
        for index, place in enumerate(placements):
            # Checked after the read: while it was under way the position may have been given up and used again.
            if not self.records.holds(place):
                results[index] = CheckCondition(STALE_POSITION)
            elif not isinstance(result := results[index], CheckCondition):
                found, expected = block_digests(result, self.block_bytes), self.records.digests(place)
                if found == expected:
                    digests += expected
                else:
                    results[index] = self._damaged(place, found, expected)
        return results, digests

    def _damaged(self, place: Placement, found: array[int], expected: array[int]) -> CheckCondition:
        bad = next(index for index, pair in enumerate(zip(found, expected, strict=True)) if pair[0] != pair[1])
        self._trace.emit("store.digest-mismatch", position=place.lba + bad, generation=place.generation)
        return CheckCondition(UNRECOVERED_READ_ERROR.at(place.lba + bad))

    async def unmap(self, volume: int, slices: Sequence[Slice]) -> None:
        """See `Store.unmap`."""
        self.records.bury(volume, slices)

    async def flush(self, volume: int) -> int:
        """See `Store.flush`."""
        await self._flush_ledger()
        if self.records.give_up_doubtful():
            self._answers.clear()
            self.epoch = _new_epoch()
            raise CheckCondition(SEND_AGAIN)
        return self.epoch

    async def _flush_ledger(self) -> None:
        async with self._flushing:
            try:
                await self._flush_changes()
            finally:
                if self._flush_fails:
                    self.records.doubt_changes()

    async def _flush_changes(self) -> None:
        if self._flush_fails:  # it is asked before the rows are made: a disk that is gone costs next to nothing
            await self._flush_volume()
        # Rows as they are now: all of them name data that the flush below covers, later ones may not.
        rows, mark = self.records.take_changes(), self.allocator.pending()
        try:
            await self._flush_volume()
            if len(rows):
                self._journal.append([Record(_ROWS, rows.tobytes())])
                await asyncio.get_running_loop().run_in_executor(None, self._journal.sync)
        except BaseException:
            self.records.put_back(rows)
            raise
        self.allocator.settle(mark)
        if self._journal.outgrown:
            await asyncio.get_running_loop().run_in_executor(None, self._compact, self._lap_record())

    def _compact(self, lap: Record) -> None:
        """Replaces the journal by what it says: not by what memory says, where rows may name data that no flush covers."""
        durable = Ledger(self.records.capacity, Allocator(0))
        _replay(self._journal.stored(), durable)
        self._journal.checkpoint(chain([lap], _portions(durable)))

    async def _flush_volume(self) -> None:
        self._flush_fails = True
        if failed := await self._volume.flush():
            self._failed_flushes += 1
            raise failed
        self._flush_fails = False

    async def free(self, volume: int, placements: Sequence[Placement]) -> None:
        """See `Store.free`."""
        refused = self.records.free(volume, placements)
        if refused:
            self._trace.emit("store.free-refused", volume=volume, blocks=refused)

    async def drop(self, volume: int, extent: Extent) -> None:
        """See `Store.drop`."""
        self.records.drop(volume, *extent)
        await self._flush_ledger()

    async def ledger(self, volume: int) -> Rows:
        """See `Store.ledger`."""
        return self.records.rows_of(volume)

    def status(self) -> dict[str, int]:
        """Counts of blocks for the status view."""
        allocator = self.allocator
        return {
            "blocks": allocator.capacity,
            "live": allocator.live,
            "free": allocator.free,
            "freed": allocator.freed,
            "lap": allocator.lap,
        }


def _new_epoch() -> int:
    return int.from_bytes(os.urandom(7), "little") | 1


def _replay(records: Iterable[Record], ledger: Ledger) -> int:
    """Fills the ledger with what the records say; returns the newest lap that they know."""
    lap = 0
    for record in records:
        if record.kind == _ROWS:
            ledger.apply(np.frombuffer(record.payload, ROW))
        else:
            lap, ledger.last_sequence = _LAP_RECORD.unpack(record.payload)
    return lap


def _portions(ledger: Ledger) -> Iterator[Record]:
    """All rows of the ledger."""
    start: int | None = 0
    while start is not None:
        rows, start = ledger.listing(start, PORTION_ROWS)
        yield Record(_ROWS, rows.tobytes())


def _placed(placements: Sequence[Placement], data: Pieces, block_bytes: int) -> list[Write]:
    if len(placements) == 1:
        return [Write(placements[0].lba, data)]
    view, offset, writes = memoryview(joined(data)), 0, []
    for place in placements:
        end = offset + place.blocks * block_bytes
        writes.append(Write(place.lba, [view[offset:end]]))
        offset = end
    return writes
