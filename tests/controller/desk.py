"""Both controllers' storage in one process: a first volume, a store and their journals, on files in a folder."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from hwvirt.buffers import joined
from hwvirt.controller.correlation import CorrelationMap
from hwvirt.controller.journal import Journal
from hwvirt.controller.lifecycle import Lifecycle
from hwvirt.controller.map_journal import MapJournal
from hwvirt.controller.recovery import durable_ledger, reconcile, send_again
from hwvirt.controller.redirect import RedirectVolume
from hwvirt.controller.states import State
from hwvirt.controller.store import SEND_AGAIN, LocalStore
from hwvirt.disk.file import FileVolume
from hwvirt.scsi.sense import CheckCondition
from hwvirt.scsi.volume import Extent, Residency, Write
from hwvirt.trace import Event, Trace

BLOCK = 512


class CountingVolume(FileVolume):
    """A `FileVolume` that remembers how often it was changed, and fails flushes on demand."""

    changes = 0
    flush_failure: CheckCondition | None = None

    async def write(self, writes, durability=None):  # type: ignore[no-untyped-def]  # as FileVolume
        self.changes += len(writes)
        return await super().write(writes)

    async def unmap(self, extents: Sequence[Extent]) -> list[CheckCondition | None]:
        self.changes += len(extents)
        return await super().unmap(extents)

    async def flush(self) -> CheckCondition | None:
        return self.flush_failure or await super().flush()


class Desk:
    """Start it in a running loop. `crash_a` and `crash_b` forget what the process had in memory; files stay."""

    def __init__(self, folder: Path, blocks: int = 64, store_blocks: int = 96) -> None:
        self.folder, self.blocks, self.store_blocks = folder, blocks, store_blocks
        self.events: list[Event] = []
        self.trace = Trace("desk")
        self.trace.subscribe(self.events.append)
        for name, size in (("first", blocks), ("second", store_blocks)):
            path = folder / name
            if not path.exists():
                path.write_bytes(b"".join(bytes([lba % 251]) * BLOCK for lba in range(size)))
        self.first_fd = os.open(folder / "first", os.O_RDWR)
        self.second_fd = os.open(folder / "second", os.O_RDWR)
        self.first = CountingVolume(self.first_fd, BLOCK)
        self.second = CountingVolume(self.second_fd, BLOCK)

    async def start(self, initial: State = State.REDIRECTING) -> None:
        self.start_b()
        await self.start_a(initial)

    def start_b(self) -> None:
        self.ledger_journal = Journal(self.folder, "ledger")
        self.store = LocalStore(self.second, self.ledger_journal, self.trace)

    async def start_a(self, initial: State = State.REDIRECTING) -> None:
        correlation = CorrelationMap(self.blocks)
        self.map_journal = Journal(self.folder, "map-0")
        self.volume = RedirectVolume(0, self.first, self.store, MapJournal(self.map_journal, correlation), correlation)
        self.lifecycle = Lifecycle(self.volume, self.trace)
        self.lifecycle.load()
        await self.lifecycle.start(initial)

    async def crash_a(self, initial: State = State.REDIRECTING) -> None:
        await self.lifecycle.close()
        self.map_journal.close()
        await self.start_a(initial)

    def close(self) -> None:
        self.map_journal.close()
        self.ledger_journal.close()
        os.close(self.first_fd)
        os.close(self.second_fd)

    async def mend(self) -> None:
        """What a new session of the link does when the store has a new epoch."""
        rows = await durable_ledger(self.volume, self.store)
        reconcile(self.volume, await send_again(self.volume, self.store, rows))

    async def flush_again(self) -> None:
        """A flush after one that the second disk has failed: the store asks for what it may have lost, and gets it."""
        failed = await self.volume.flush()
        assert failed is not None
        assert failed.sense == SEND_AGAIN
        await self.mend()
        await self.flush()

    # What a host does, one request at a time.

    async def write(self, lba: int, *fills: int) -> None:
        (failed,) = await self.volume.write([Write(lba, [bytes([fill]) * BLOCK for fill in fills])])
        if failed:
            raise failed

    async def unmap(self, lba: int, blocks: int) -> None:
        (failed,) = await self.volume.unmap([Extent(lba, blocks)])
        if failed:
            raise failed

    async def flush(self) -> None:
        if failed := await self.volume.flush():
            raise failed

    async def read(self, lba: int, blocks: int = 1) -> list[int]:
        (result,) = await self.volume.read([Extent(lba, blocks)])
        if isinstance(result, CheckCondition):
            raise result
        data = bytes(joined(result))
        assert len(data) == blocks * BLOCK
        found = [data[offset : offset + BLOCK] for offset in range(0, len(data), BLOCK)]
        assert all(block == block[:1] * BLOCK for block in found), "torn"
        return [block[0] for block in found]

    def original(self, lba: int, blocks: int = 1) -> list[int]:
        return [(lba + index) % 251 for index in range(blocks)]

    def first_disk(self) -> list[int]:
        return list((self.folder / "first").read_bytes()[::BLOCK])

    def check_one_to_one(self) -> None:
        """The map and the ledger name the same blocks at the same positions, and every block is accounted for."""
        from hwvirt.controller.ledger import Kind
        from hwvirt.controller.recovery import _packed

        rows = self.store.records.rows_of(0)
        live = rows[rows["kind"] == Kind.LIVE]
        in_ledger = dict(zip(live["lba"].tolist(), _packed(live).tolist(), strict=True))
        in_map = {
            run.lba + index: None
            for run in self.volume.map.lookup(Extent(0, self.blocks))
            for index in range(run.blocks)
            if run.residency is Residency.REDIRECTED
        }
        assert sorted(in_ledger) == sorted(in_map)
        assert len(live) == len(in_ledger), "one block, two positions"
        for lba, packed in in_ledger.items():
            assert int(self.volume.map.positions_at([lba])[0]) == packed  # type: ignore[arg-type]  # numpy takes lists
        allocator = self.store.allocator
        assert allocator.free + allocator.live + allocator.freed == self.store_blocks
        assert allocator.live == len(live)


def on_desk(folder: Path, story, **sizes: int) -> None:  # type: ignore[no-untyped-def]  # an async function of a Desk
    async def run() -> None:
        desk = Desk(folder, **sizes)
        await desk.start()
        try:
            await story(desk)
        finally:
            await desk.lifecycle.close()
            desk.close()

    asyncio.run(run())
