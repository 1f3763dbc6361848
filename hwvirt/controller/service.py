"""Answers the other controller: its blocks in our store, its hosts' commands for our logical units."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from hwvirt.buffers import Buffer
from hwvirt.controller.ledger import ROW
from hwvirt.controller.repeats import Repeats
from hwvirt.controller.reply_room import ReplyRoom
from hwvirt.controller.store import LocalStore
from hwvirt.eager import Errand, begin
from hwvirt.errors import HwvirtError
from hwvirt.link.config import LinkLimits
from hwvirt.link.layouts import COMPLETION_BYTES, PAGE_BYTES
from hwvirt.link.messages import (
    Attach,
    Attached,
    Done,
    Drop,
    Execute,
    Executed,
    Failure,
    Flush,
    Flushed,
    Free,
    LedgerPage,
    Placement,
    Query,
    Read,
    ReadData,
    Refused,
    Reply,
    Request,
    Slice,
    Unmap,
    Write,
    Written,
)
from hwvirt.link.wire import DIGEST_BYTES, HEADER_BYTES
from hwvirt.scsi.command import LogicalUnit
from hwvirt.scsi.sense import (
    INTERNAL_TARGET_FAILURE,
    INVALID_FIELD_IN_PARAMETER_LIST,
    LOGICAL_UNIT_NOT_SUPPORTED,
    CheckCondition,
)
from hwvirt.scsi.volume import Extent
from hwvirt.trace import Trace

__all__ = ["REPLIES_BYTES", "REPLY_BYTES", "Answering", "Service"]

REPLY_BYTES, REPLIES_BYTES = LinkLimits().frame_bytes, LinkLimits().request_bytes
"""The most that the frame of one reply may have, whatever the peer takes; and the data of all of them together, from the
start of the work until the peer has taken them."""
_MOST_ROWS = 1 << 16
_MOST_SENSE_BYTES = 252  # SPC-4 4.5: sense data is never longer


class Answering(Protocol):
    """Takes the reply to one request; does nothing when its session has ended."""

    @property
    def most_bytes(self) -> int:
        """The most that the frame of the reply may have, as the peer told."""
        ...

    def reply(self, message: Reply) -> None:
        """Sends the reply."""
        ...

    def when_sent(self, told: Callable[[], None]) -> None:
        """Calls `told` once there is room for more replies, or the session is over."""
        ...


class Service:
    """The requests of one peer. What a session began is finished before the next one's first request is looked at."""

    def __init__(self, store: LocalStore | None, units: Mapping[int, LogicalUnit], trace: Trace) -> None:
        self._store = store
        self._units = units
        self._trace = trace
        self._errands: set[Errand] = set()
        self._former: set[Errand] = set()
        self._one_ended = asyncio.Event()
        self._peer_boot = 0
        self._repeats: dict[int, Repeats] = {}
        self._attached: dict[int, int] = {}  # volume → its blocks
        self._room = ReplyRoom(REPLIES_BYTES)

    def session_began(self, boot_epoch: int) -> None:
        """Requests from now on belong to a new session, with a peer that has been running since `boot_epoch`."""
        self._former |= self._errands
        if boot_epoch != self._peer_boot:
            self._peer_boot = boot_epoch
            # What is still to be done for its former life remembers its answers, too: they go when the last one is known.
            if errand := begin(self._after(frozenset(self._former), self._forget_answers()), self._ended):
                self._errands.add(errand)
                self._former.add(errand)

    async def _forget_answers(self) -> None:
        self._repeats.clear()
        if self._store is not None:
            self._store.forget_answers()

    def on_request(self, message: Request, answering: Answering) -> None:
        """Begins to work on a request; what needs no waiting is answered before this returns."""
        work = self._serve(message, answering)
        # What was asked before a Drop must not come to lie in the ledger after it.
        before = self._errands if isinstance(message, Drop) else self._former
        if errand := begin(self._after(frozenset(before), work) if before else work, self._ended):
            self._errands.add(errand)

    def _ended(self, errand: Errand) -> None:
        self._errands.discard(errand)
        self._former.discard(errand)
        self._one_ended.set()

    async def _after(self, before: frozenset[Errand], work: Coroutine[Any, Any, None]) -> None:
        while not before.isdisjoint(self._errands):
            self._one_ended.clear()
            await self._one_ended.wait()
        await work

    async def _serve(self, message: Request, answering: Answering) -> None:
        size_bytes, frame_bytes = self._weighed(message)
        most_bytes = min(answering.most_bytes, REPLY_BYTES)
        if frame_bytes > most_bytes:
            reason = f"a reply of {frame_bytes} bytes is asked for, more than {most_bytes}"
            answering.reply(Refused(INVALID_FIELD_IN_PARAMETER_LIST, reason=reason))
        elif size_bytes:
            await self._room.enter(size_bytes)
            try:
                await self._serve_now(message, answering)
            finally:
                answering.when_sent(partial(self._room.leave, size_bytes))
        else:
            await self._serve_now(message, answering)

    def _weighed(self, message: Request) -> tuple[int, int]:
        """What the data of the reply may weigh, and its whole frame on the wire; zeroes where the request names no size."""
        if isinstance(message, Read):  # a placement that fails has a row instead of its data, and that is shorter
            blocks = sum([place.blocks for place in message.placements])
            data_bytes = blocks * self._store.block_bytes if self._store else 0
            return data_bytes, HEADER_BYTES + DIGEST_BYTES * blocks + data_bytes
        if isinstance(message, Execute):  # a command has data or a sense
            lengths = [command.data_in_length for command in message.commands]
            rests = sum([max(_MOST_SENSE_BYTES - length, 0) for length in lengths])
            data_bytes = sum(lengths)
            return data_bytes, HEADER_BYTES + DIGEST_BYTES + COMPLETION_BYTES * len(lengths) + rests + data_bytes
        if isinstance(message, Query):
            data_bytes = _rows(message.limit) * ROW.itemsize
            return data_bytes, HEADER_BYTES + DIGEST_BYTES + PAGE_BYTES + data_bytes
        return 0, 0

    async def _serve_now(self, message: Request, answering: Answering) -> None:
        try:
            reply = await self._answer(message)
        except CheckCondition as error:
            reply = Refused(error.sense)
        except (HwvirtError, OSError) as error:
            self._trace.emit("service.failed", request=type(message).__name__, reason=str(error))
            reply = Refused(INTERNAL_TARGET_FAILURE, reason=str(error))
        answering.reply(reply)

    async def _answer(self, message: Request) -> Reply:
        if isinstance(message, Execute):
            return await self._execute(message)
        store = self._store
        if store is None:
            return Refused(LOGICAL_UNIT_NOT_SUPPORTED, reason="this controller has no store")
        match message:
            case Write(volume, settled, slices, data, digests):
                _refuse_beyond(self._attached.get(volume), slices)
                store.settled(volume, settled)
                return Written(store.epoch, await store.write(volume, slices, data, digests))
            case Read(_, placements):
                return await _read(store, placements)
            case Unmap(volume, slices):
                _refuse_beyond(self._attached.get(volume), slices)
                await store.unmap(volume, slices)
                return Done()
            case Flush(volume):
                return Flushed(await store.flush(volume))
            case Free(volume, placements):
                _refuse_beyond(store.allocator.capacity, placements)
                await store.free(volume, placements)
                return Done()
            case Query(volume, after, limit):
                rows, following = store.records.page(volume, after, _rows(limit))
                return LedgerPage((rows.tobytes(),), following)
            case Drop(volume, lba, blocks):
                _refuse_beyond(self._attached.get(volume), [Extent(lba, blocks)])
                await store.drop(volume, Extent(lba, blocks))
                return Done()
            case Attach(volume, blocks):
                reply = _attach(store, message)
                if isinstance(reply, Attached):
                    self._attached[volume] = blocks
                return reply

    async def _execute(self, message: Execute) -> Reply:
        unit = self._units.get(message.lun)
        if unit is None:
            return Refused(LOGICAL_UNIT_NOT_SUPPORTED, reason=f"no logical unit {message.lun}")
        if not message.number:
            return Executed(await unit.execute(message.commands))
        repeats = self._repeats.setdefault(message.lun, Repeats(unit))
        repeats.settled(message.settled)
        return Executed(await repeats.execute(message.number, message.commands))


def _rows(limit: int) -> int:
    return max(1, min(limit, _MOST_ROWS))


def _refuse_beyond(most: int | None, runs: Sequence[Slice | Placement | Extent]) -> None:
    """Raises CheckCondition for a run that ends behind so many blocks. None: nobody knows how many there are."""
    if most is not None and any(run.lba + run.blocks > most for run in runs):
        raise CheckCondition(INVALID_FIELD_IN_PARAMETER_LIST)


def _attach(store: LocalStore, message: Attach) -> Reply:
    if message.block_bytes != store.block_bytes:
        return Refused(
            INVALID_FIELD_IN_PARAMETER_LIST,
            reason=f"blocks of {message.block_bytes} bytes asked for, the store has blocks of {store.block_bytes} bytes",
        )
    if message.durable_sequence > store.records.last_sequence:
        # Rather no answer than a wrong one: the map names rows that this ledger never had, or has lost.
        return Refused(
            INTERNAL_TARGET_FAILURE,
            reason=f"the ledger ends at sequence {store.records.last_sequence}, "
            f"the map of volume {message.volume} at {message.durable_sequence}: the ledger is lost or another one",
        )
    return Attached(store.epoch, store.allocator.capacity, store.records.last_sequence)


async def _read(store: LocalStore, placements: Sequence[Placement]) -> Reply:
    data: list[Buffer] = []
    failures: list[Failure] = []
    results, digests = await store.fetch(placements)
    for index, result in enumerate(results):
        if isinstance(result, CheckCondition):
            failures.append(Failure(index, result.sense))
        else:
            data += result
    return ReadData(data, digests, failures)
