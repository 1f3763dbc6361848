"""Drives an initiator through a script of operations, a fixed number in flight, by callbacks, and records the history."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from errno import ECONNRESET, ENOTCONN
from functools import partial
from typing import TypeAlias

from hwvirt.buffers import Pieces, length, split
from hwvirt.errors import InfrastructureError
from hwvirt.host.initiator import Answer, Initiator, Op
from hwvirt.rig.judge.block import describe, identify, make_extent, versions_in
from hwvirt.rig.judge.history import WRITES, Fate, History, Kind
from hwvirt.rig.workload.plan import Script

__all__ = ["PATH_GONE", "Counts", "Drive", "Progress", "Reconnect"]

_OPS = {
    Kind.READ: Op.READ,
    Kind.WRITE: Op.WRITE,
    Kind.WRITE_FUA: Op.WRITE,
    Kind.UNMAP: Op.UNMAP,
    Kind.ZERO: Op.ZERO,
    Kind.FLUSH: Op.FLUSH,
}
PATH_GONE = (ENOTCONN, ECONNRESET)
"""The errors of a path through which nothing can be reached any more."""


@dataclass(slots=True)
class Counts:
    """Operations by how they ended; `acknowledged` are the changes: writes, unmaps and writes of zeroes.

    `fills` and `unmaps` are those among them that a fill wrote, and that were unmaps.
    `failed` and `in_doubt` count operations of every kind. `mismatches` counts blocks that were read and are neither zeroes
    nor a block of this history at its own LBA.
    """

    acknowledged: int = 0
    failed: int = 0
    in_doubt: int = 0
    reads: int = 0
    flushes: int = 0
    unmaps: int = 0
    fills: int = 0
    mismatches: int = 0


Progress: TypeAlias = Callable[[int, Counts], Future[None] | None]
"""Called after every answer with the number of operations submitted so far and the counts, which go on changing.

Where it returns a future, nothing more is submitted before that is done. What it raises ends the drive.
"""
Reconnect: TypeAlias = Callable[[], Awaitable[Initiator]]
"""Opens the path anew after it was lost."""


class Drive:
    """One run of a script. When the path is lost and cannot be opened anew, nothing more is submitted.

    Raises ValueError when initiator and history do not agree on the size of a block.
    """

    def __init__(
        self,
        initiator: Initiator,
        script: Script,
        history: History,
        depth: int,
        *,
        on_progress: Progress | None = None,
        stop: asyncio.Event | None = None,
        reconnect: Reconnect | None = None,
    ) -> None:
        if initiator.block_bytes != history.block_bytes:
            raise ValueError(f"blocks of {initiator.block_bytes} bytes, the history is of {history.block_bytes}")
        self._initiator, self._history, self._depth = initiator, history, depth
        self._on_progress, self._reconnect = on_progress, reconnect
        self._stop = stop or asyncio.Event()
        self._rows = iter(zip(map(Kind, script.kind.tolist()), script.lba.tolist(), script.blocks.tolist(), strict=True))
        self._total = len(script.kind)
        self._submitted = self._in_flight = 0
        self._lost = False
        self._error: Exception | None = None
        self._counts = Counts()
        self._held: Future[None] | None = None
        self._idle: Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> Counts:
        """Submits everything and waits for every answer; after `stop` only for those that are due.

        Raises InfrastructureError when a read returns another amount of data than was asked for. What `on_progress`
        raises is raised here.
        """
        try:
            while True:
                self._idle = asyncio.get_running_loop().create_future()
                self._pump()
                await self._idle
                if self._error is not None:
                    raise self._error
                if not self._lost or self._reconnect is None or self._stop.is_set() or self._submitted == self._total:
                    return self._counts
                self._initiator = await self._reconnect()
                self._lost = False
        finally:
            self._depth = 0  # whoever answers after a cancellation starts nothing any more

    def _pump(self) -> None:
        history, block_bytes = self._history, self._history.block_bytes
        submit = self._initiator.submit
        while self._in_flight < self._depth and self._submitted < self._total and self._may_submit:
            kind, lba, blocks = next(self._rows)
            number = history.begin(kind, lba, blocks)
            data: Pieces = ()
            if kind in WRITES:
                data = (make_extent(history.volume, lba, blocks, number, history.writer, history.seed, block_bytes),)
            self._submitted += 1
            self._in_flight += 1
            done = partial(self._answered, kind, number, lba, blocks)
            submit(_OPS[kind], lba, blocks, data, done, fua=kind is Kind.WRITE_FUA)
        if not self._in_flight and not self._held and not self._idle.done():
            self._idle.set_result(None)

    @property
    def _may_submit(self) -> bool:
        return not self._lost and not self._held and not self._stop.is_set()

    def _hold(self, until: Future[None]) -> None:
        self._held = until
        until.add_done_callback(self._go_on)

    def _go_on(self, until: Future[None]) -> None:
        self._held = None
        self._pump()

    def _answered(self, kind: Kind, number: int, lba: int, blocks: int, answer: Answer) -> None:
        counts = self._counts
        self._in_flight -= 1
        if answer.error or answer.in_doubt:
            self._without_success(number, answer)
        elif kind is Kind.READ:
            counts.reads += 1
            self._look(number, lba, blocks, answer.data)
        else:
            self._history.end(number, Fate.DURABLE if kind is Kind.WRITE_FUA else Fate.ACKNOWLEDGED)
            if kind is Kind.FLUSH:
                counts.flushes += 1
            else:
                counts.acknowledged += 1
                counts.unmaps += kind is Kind.UNMAP
        self._pump()
        if self._on_progress is not None:
            self._tell(self._on_progress)

    def _tell(self, on_progress: Progress) -> None:
        try:
            hold = on_progress(self._submitted, self._counts)
        except Exception as error:  # whatever it is, it belongs to whoever drives and not to whoever answered
            self._error, self._depth = self._error or error, 0
            if not self._idle.done():
                self._idle.set_result(None)
            return
        if hold and not self._held:
            self._hold(hold)

    def _without_success(self, number: int, answer: Answer) -> None:
        if answer.in_doubt:
            self._counts.in_doubt += 1
        else:
            self._counts.failed += 1
        self._lost |= answer.in_doubt or answer.error in PATH_GONE
        self._history.end(number, Fate.IN_DOUBT if answer.in_doubt else Fate.FAILED)

    def _look(self, number: int, lba: int, blocks: int, data: Pieces) -> None:
        """Every block of a read says whose it is."""
        history = self._history
        if length(data) != blocks * history.block_bytes:
            history.end(number, Fate.FAILED)
            if not self._idle.done():
                reason = f"a read of {blocks} blocks at lba {lba} returned {length(data)} bytes."
                self._idle.set_exception(InfrastructureError(reason))
            return
        seen = versions_in(data, history.volume, history.seed, lba, history.block_bytes, history.writer)
        history.end(number, Fate.ACKNOWLEDGED, seen)
        if min(seen) >= 0:
            return
        for at, version, block in zip(range(lba, lba + blocks), seen, split(data, history.block_bytes), strict=True):
            if version < 0:
                self._counts.mismatches += 1
                history.note(number, at, describe(identify(block), history.writer))
