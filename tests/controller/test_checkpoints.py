"""Checkpoints take their time, and hosts do not wait for them; nor does anything get lost that happens meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from hwvirt.controller.correlation import CorrelationMap
from hwvirt.controller.journal import Journal, Record
from hwvirt.controller.map_journal import MapJournal
from hwvirt.controller.states import State
from hwvirt.errors import StateError
from hwvirt.link.messages import Placement, Slice
from hwvirt.scsi.volume import Extent

from .desk import Desk, on_desk
from .test_flush import AWHILE_S, durable_map

PATIENCE_S = 20.0
"""What a checkpoint waits for a loop that stands still; a sound one is not kept waiting."""


@pytest.fixture(autouse=True)
def _at_every_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwvirt.controller.journal._CHECKPOINT_BYTES", 0)


class Slowly:
    """The next checkpoint of a journal waits until it is let go."""

    def __init__(self, journal: Journal) -> None:
        self._journal, self._checkpoint = journal, journal.checkpoint
        self._loop = asyncio.get_running_loop()
        self._may_go = threading.Event()
        self.begun = asyncio.Event()
        journal.checkpoint = self._wait  # type: ignore[method-assign]  # the next one

    def _wait(self, records: Iterable[Record]) -> None:
        self._journal.checkpoint = self._checkpoint  # type: ignore[method-assign]  # as it was
        self._loop.call_soon_threadsafe(self.begun.set)
        assert self._may_go.wait(PATIENCE_S), "the event loop waits for the checkpoint"
        self._checkpoint(records)

    def go_on(self) -> None:
        self._may_go.set()


def durable_blocks(desk: Desk) -> list[int]:
    """What a start of B would find."""
    desk.ledger_journal.close()
    desk.start_b()
    desk.volume.store = desk.store
    return sorted(desk.store.records.rows_of(0)["lba"].tolist())


def test_host_is_served_while_a_checkpoint_of_the_ledger_is_written(tmp_path: Path) -> None:
    """And what he writes then is not in it: no flush has covered his data."""

    async def story(desk: Desk) -> None:
        await desk.write(1, 5)
        slowly = Slowly(desk.ledger_journal)
        flushing = asyncio.create_task(desk.flush())
        await slowly.begun.wait()
        await desk.write(2, 6)
        await desk.unmap(3, 1)
        assert await desk.read(1, 3) == [5, 6, 0]
        assert not flushing.done()
        slowly.go_on()
        await flushing
        assert durable_blocks(desk) == [1]
        desk.volume.map.clear()

    on_desk(tmp_path, story)


def test_ledger_is_whole_after_checkpoints_of_many_portions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwvirt.controller.store.PORTION_ROWS", 3)
    monkeypatch.setattr("hwvirt.controller.map_journal.PORTION_ROWS", 3)

    async def story(desk: Desk) -> None:
        for lba in range(0, 40, 2):
            await desk.write(lba, lba + 1)
        await desk.unmap(50, 3)
        await desk.unmap(60, 1)
        await desk.flush()
        await desk.write(4, 200)
        await desk.flush()
        await desk.flush()  # what the first one gave up
        before = desk.store.records.rows()
        assert len(before) == 22
        assert durable_map(desk).rows().tolist() == desk.volume.map.rows().tolist()
        durable_blocks(desk)
        assert desk.store.records.rows().tolist() == before.tolist()
        await desk.crash_a()
        expected = [200 if lba == 4 else lba + 1 if lba % 2 == 0 else lba for lba in range(40)]
        assert await desk.read(0, 40) == expected
        assert await desk.read(49, 5) == [49, 0, 0, 0, 53]
        desk.check_one_to_one()

    on_desk(tmp_path, story)


def test_lap_that_begins_while_a_checkpoint_is_written_is_not_lost(tmp_path: Path) -> None:
    """Else what is taken after a restart could have the generation of what was never flushed."""

    async def story(desk: Desk) -> None:
        await desk.write(0, *range(60))
        await desk.flush()
        await desk.store.drop(0, Extent(0, 30))
        lap, slowly = desk.store.allocator.lap, Slowly(desk.ledger_journal)
        flushing = asyncio.create_task(desk.store.flush(0))
        await slowly.begun.wait()
        writing = asyncio.create_task(desk.write(0, *[9] * 6))
        await asyncio.wait([writing], timeout=AWHILE_S)
        slowly.go_on()
        await asyncio.gather(flushing, writing)
        assert desk.store.allocator.lap == lap + 1
        desk.ledger_journal.close()
        desk.start_b()
        assert desk.store.allocator.lap == lap + 2

    on_desk(tmp_path, story, store_blocks=64)


def test_lap_whose_number_cannot_be_recorded_is_not_used(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        await desk.write(0, *range(60))
        await desk.flush()
        await desk.store.drop(0, Extent(0, 30))
        append, live = desk.ledger_journal.append, desk.store.allocator.live

        def full(_records: object) -> None:
            raise StateError("no space")

        desk.ledger_journal.append = full  # type: ignore[method-assign, assignment]  # the file system is
        for _ in range(2):
            with pytest.raises(StateError):
                await desk.write(0, *[7] * 6)
            assert desk.store.allocator.live == live
        desk.ledger_journal.append = append  # type: ignore[method-assign]  # as it was
        await desk.write(0, *[7] * 6)
        lap = desk.store.allocator.lap
        desk.ledger_journal.close()
        desk.start_b()
        assert desk.store.allocator.lap == lap + 1

    on_desk(tmp_path, story, store_blocks=64)


def test_state_and_changes_that_come_while_the_map_is_compacted_are_not_lost(tmp_path: Path) -> None:
    async def story() -> None:
        correlation, journal = CorrelationMap(64), Journal(tmp_path, "map-0")
        kept = MapJournal(journal, correlation)
        kept.recover()
        await kept.enter(State.REDIRECTING, 7)
        correlation.bind([Slice(3, 1, 8)], [Placement(5, 1, 1)])
        slowly = Slowly(journal)
        adding = asyncio.create_task(kept.add(correlation.take_changes(), 8))
        await slowly.begun.wait()
        correlation.bind([Slice(4, 1, 9)], [Placement(6, 1, 1)])
        later = [
            asyncio.create_task(kept.enter(State.COMMITTING, 20)),
            asyncio.create_task(kept.add(correlation.take_changes(), 21)),
        ]
        await asyncio.wait(later, timeout=AWHILE_S)
        assert not adding.done()
        slowly.go_on()
        await asyncio.gather(adding, *later)
        journal.close()
        correlation, journal = CorrelationMap(64), Journal(tmp_path, "map-0")
        again = MapJournal(journal, correlation)
        again.recover()
        assert (again.state, again.sequence, correlation.mapped_blocks) == (State.COMMITTING, 21, 2)
        journal.close()

    asyncio.run(story())
