"""Changes of a redirected volume's state: start, redirect, commit, discard. One at a time for a volume."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

from hwvirt.controller.correlation import Run
from hwvirt.controller.recovery import durable_ledger, reconcile
from hwvirt.controller.redirect import RedirectVolume
from hwvirt.controller.states import State, Step, follow
from hwvirt.link.messages import Slice
from hwvirt.scsi.sense import COMMUNICATION_TIMEOUT, CheckCondition
from hwvirt.scsi.volume import Extent, Residency, Write
from hwvirt.trace import Trace

__all__ = ["Lifecycle"]

COMMIT_CHUNK_BYTES = 4 << 20
_CHUNKS_MOST = 256
"""Chunks with little to write back are taken together: each time costs flushes on both sides."""


class Lifecycle:
    """Walks a volume through the table of `states`."""

    def __init__(self, volume: RedirectVolume, trace: Trace) -> None:
        self._volume = volume
        self._trace = trace
        self._background: asyncio.Task[None] | None = None
        self._known = False
        self._half_done = False
        self.chunk_bytes, self.chunks_most = COMMIT_CHUNK_BYTES, _CHUNKS_MOST

    def load(self) -> None:
        """Reads the volume's own state directory. Before anything else, once. Raises StateError on damage."""
        self._known = self._volume.journal.recover()
        self._volume.sequence = self._volume.journal.sequence

    async def start(self, initial: State) -> None:
        """Goes on where the state directory says, or with `initial` where it says nothing. The store must answer.

        A map that was lost is rebuilt from the ledger: a ledger that knows the volume says that it was redirecting.
        """
        volume = self._volume
        state, rows = volume.journal.state, None
        if not self._known:
            rows = await durable_ledger(volume, volume.store)
            state = State.REDIRECTING if len(rows) else initial
        volume.state = state
        if state.uses_map:
            reconcile(volume, await durable_ledger(volume, volume.store) if rows is None else rows)
            if failed := await volume.flush():
                raise failed
        if not self._known:
            await volume.journal.enter(state, volume.sequence)
        if state is State.DISCARDING:
            await self._forget()
        elif state is State.OWN:
            await volume.store.drop(volume.number, Extent(0, volume.blocks))
        elif state is State.COMMITTING:
            self._background = asyncio.get_running_loop().create_task(self._commit())
        self._trace.emit("redirect.state", lun=volume.number, state=volume.state.value)

    async def redirect(self) -> None:
        """From now on new data goes to the store. Returns when what was written before is durable on the first disk."""
        volume = self._volume
        async with self._standstill():
            following = follow(volume.state, Step.REDIRECT)
            if failed := await volume.first.flush():
                raise failed
            await self._enter(following)

    async def commit(self) -> None:
        """Starts to write redirected blocks back; hosts go on working. `settled()` tells when it is done."""
        volume = self._volume
        async with self._standstill():
            following = follow(volume.state, Step.COMMIT)
            volume.committed_below = 0
            await self._enter(following)
        self._background = asyncio.get_running_loop().create_task(self._commit())

    async def discard(self) -> None:
        """Drops every redirected block: the volume is the original again, in the same time whatever was redirected.

        Returns when the store has forgotten them too. While it cannot be reached hosts have the original already.
        """
        async with self._standstill():
            await self._enter(follow(self._volume.state, Step.DISCARD))
            self._empty()
        self._background = asyncio.get_running_loop().create_task(self._reaching_the_store(self._forget))
        await self.settled()

    async def settled(self) -> None:
        """Returns when no commit or discard is under way. Raises what ended it early."""
        if self._background is not None:
            await asyncio.shield(self._background)

    async def close(self) -> None:
        """Stops a commit or discard where it is: the next start goes on with it."""
        if self._background is not None:
            self._background.cancel()
            await asyncio.gather(self._background, return_exceptions=True)

    @asynccontextmanager
    async def _standstill(self) -> AsyncIterator[None]:
        """No change of a block and no flush is under way inside."""
        volume = self._volume
        await volume.gate.close()
        try:
            async with volume.flush_lock:
                yield
        finally:
            volume.gate.open()

    def _empty(self) -> None:
        self._volume.map.clear()
        self._volume.unflushed.clear()
        self._volume.superseded.clear()

    async def _enter(self, state: State) -> None:
        await self._volume.journal.enter(state, self._volume.sequence)
        self._volume.state = state
        self._trace.emit("redirect.state", lun=self._volume.number, state=state.value)

    async def _forget(self) -> None:
        volume = self._volume
        await volume.store.drop(volume.number, Extent(0, volume.blocks))
        await self._enter(follow(volume.state, Step.DONE))

    async def _commit(self) -> None:
        volume = self._volume
        while volume.committed_below < volume.blocks:
            await self._or_wait_for_the_store(self._commit_next)
        while volume.state is State.COMMITTING:
            await self._or_wait_for_the_store(self._end_commit)

    async def _commit_next(self) -> None:
        volume = self._volume
        step = max(1, self.chunk_bytes // volume.block_bytes)
        ahead = Extent(volume.committed_below, min(step * self.chunks_most, volume.blocks - volume.committed_below))
        held = volume.map.prefix(ahead, step, step)
        await volume.gate.enter(held)
        try:
            chunk = volume.map.prefix(held, step, step)  # hosts may have written there meanwhile
            if self._half_done or volume.in_doubt or not volume.map.is_empty(chunk):
                self._half_done = True  # until it is through: the map may have forgotten what is not yet durable
                await self._commit_chunk(chunk)
                self._half_done = False
            volume.committed_below += chunk.blocks
        finally:
            volume.gate.leave([held])

    async def _end_commit(self) -> None:
        async with self._standstill():
            self._empty()
            await self._forget()

    async def _or_wait_for_the_store(self, work: Callable[[], Awaitable[None]]) -> None:
        """Does the work; if the store cannot be reached, returns when it can, and hosts are in nobody's way meanwhile."""
        try:
            await work()
        except CheckCondition as error:
            if error.sense != COMMUNICATION_TIMEOUT:
                raise
            await self._reaching_the_store(partial(self._volume.store.flush, self._volume.number))

    async def _reaching_the_store(self, work: Callable[[], Awaitable[object]]) -> None:
        """Does the work again for as long as the store cannot be reached: whoever began it has long had his answer."""
        while True:
            try:
                await work()
                return
            except CheckCondition as error:
                if error.sense != COMMUNICATION_TIMEOUT:
                    raise
                self._trace.emit("redirect.waiting", lun=self._volume.number, state=self._volume.state.value)

    async def _commit_chunk(self, chunk: Extent) -> None:
        """Blocks of the chunk are durable on the first disk before the map, and then the store, forget them.

        The flush gives their positions up. The drop is for what the map never named, and for tombstones.

        What is in doubt is decided before: it must not come back out of the ledger over what is written after the commit.
        """
        volume = self._volume
        if volume.in_doubt:
            await self._decide()
        runs = [run for run in volume.map.lookup(chunk) if run.residency is not Residency.FIRST]
        if runs:
            await self._copy_back(runs)
        if failed := await volume.flush():
            raise failed
        await volume.store.drop(volume.number, chunk)

    async def _decide(self) -> None:
        """Once the store can be reached the volume has been mended, and the map names what has happened."""
        volume = self._volume
        volume.in_doubt = False
        try:
            await volume.store.flush(volume.number)
        except BaseException:
            volume.in_doubt = True
            raise

    async def _copy_back(self, runs: Sequence[Run]) -> None:
        volume = self._volume
        writes = []
        for run, data in zip(runs, await volume.read([Extent(run.lba, run.blocks) for run in runs]), strict=True):
            if isinstance(data, CheckCondition):
                raise data
            writes.append(Write(run.lba, data))
        if failed := next((result for result in await volume.first.write(writes) if result), None):
            raise failed
        if failed := await volume.first.flush():
            raise failed
        # A sequence number of its own: older rows of a ledger must not bring the blocks back after a crash.
        volume.sequence += 1
        volume.superseded += volume.map.release([Slice(run.lba, run.blocks, volume.sequence) for run in runs])
