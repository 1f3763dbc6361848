"""What happens while a flush is under way: writes, restarts of the store, a full file system, a discard."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hwvirt.controller.correlation import CorrelationMap
from hwvirt.controller.journal import Journal, Record
from hwvirt.controller.map_journal import MapJournal
from hwvirt.controller.states import State
from hwvirt.link.messages import Placement
from hwvirt.scsi.sense import INTERNAL_TARGET_FAILURE, CheckCondition
from hwvirt.scsi.volume import Extent

from .desk import Desk, on_desk

AWHILE_S = 0.2
"""Long enough for who does not wait as he should; who does is not hurried by it."""


async def restart_store(desk: Desk) -> None:
    """B has lost what was not durable, and the volume has been mended: as when the link is back."""
    desk.ledger_journal.close()
    desk.start_b()
    desk.volume.store = desk.store
    await desk.mend()


def durable_map(desk: Desk) -> CorrelationMap:
    """What a start of A would read."""
    correlation, journal = CorrelationMap(desk.blocks), Journal(desk.folder, "map-0")
    MapJournal(journal, correlation).recover()
    journal.close()
    return correlation


def durable_position(desk: Desk, lba: int) -> Placement | None:
    return durable_map(desk).lookup(Extent(lba, 1))[0].placement


def position(desk: Desk, lba: int) -> Placement | None:
    return desk.volume.map.lookup(Extent(lba, 1))[0].placement


def instead_of_flush(desk: Desk, happens: Callable[[Callable[[int], Awaitable[int]]], Awaitable[int]]) -> None:
    """The store's next flush goes so."""
    store, flush = desk.store, desk.store.flush

    async def flushed(volume: int) -> int:
        assert volume == 0
        store.flush = flush  # type: ignore[method-assign]  # as it was
        return await happens(flush)

    store.flush = flushed  # type: ignore[method-assign]  # the next one alone


def test_what_is_answered_while_a_flush_is_under_way_is_not_taken_for_covered(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        async def writing_meanwhile(flush: Callable[[int], Awaitable[int]]) -> int:
            epoch = await flush(0)
            await desk.write(2, 6)
            await desk.write(1, 7)
            return epoch

        await desk.write(1, 5)
        instead_of_flush(desk, writing_meanwhile)
        await desk.flush()
        assert [one.slices[0].lba for one in desk.volume.unflushed] == [2, 1]
        await restart_store(desk)
        assert await desk.read(1, 2) == [7, 6]
        await desk.flush()
        desk.check_one_to_one()

    on_desk(tmp_path, story)


def test_flush_in_whose_middle_the_store_restarts_makes_no_position_of_before_durable(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        async def restarting(_flush: Callable[[int], Awaitable[int]]) -> int:
            await restart_store(desk)
            instead_of_flush(desk, looking)
            return await desk.store.flush(0)

        async def looking(flush: Callable[[int], Awaitable[int]]) -> int:
            epoch = await flush(0)
            assert durable_position(desk, 1) is None
            return epoch

        await desk.write(1, 5)
        before = position(desk, 1)
        instead_of_flush(desk, restarting)
        await desk.flush()
        assert durable_position(desk, 1) == position(desk, 1) != before

    on_desk(tmp_path, story)


def test_changes_that_no_file_took_are_in_the_next_flush_and_nothing_is_given_up_before(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        append, failures = desk.map_journal.append, iter([OSError("no space")])

        def failing_once(records: Sequence[Record]) -> None:
            for failure in failures:
                raise failure
            append(records)

        await desk.write(1, 5)
        await desk.flush()
        before = position(desk, 1)
        await desk.write(1, 6)
        desk.map_journal.append = failing_once  # type: ignore[method-assign]  # the file system is full, once
        with pytest.raises(CheckCondition) as caught:
            await desk.flush()
        assert caught.value.sense == INTERNAL_TARGET_FAILURE
        assert (durable_position(desk, 1), desk.store.allocator.live) == (before, 2)
        await desk.flush()
        assert durable_position(desk, 1) == position(desk, 1) != before
        desk.check_one_to_one()

    on_desk(tmp_path, story)


def test_position_that_mending_has_gone_back_to_is_not_given_up_by_a_flush_from_before(tmp_path: Path) -> None:
    """The store had the write and died before it could say so; asked again it chose another place, and lost that one."""

    async def story(desk: Desk) -> None:
        write = desk.store.write

        async def answer_lost(*asked: Any) -> list[Placement]:
            await write(*asked)
            await desk.store.flush(0)
            await restart_store(desk)
            return await desk.store.write(*asked)

        async def restarting(_flush: Callable[[int], Awaitable[int]]) -> int:
            await restart_store(desk)
            assert position(desk, 1) == first
            return await desk.store.flush(0)

        desk.store.write = answer_lost  # type: ignore[method-assign, assignment]  # of this epoch
        await desk.write(1, 5)
        (first,) = desk.volume.superseded
        instead_of_flush(desk, restarting)
        await desk.flush()
        await desk.flush()
        assert await desk.read(1) == [5]
        desk.check_one_to_one()

    on_desk(tmp_path, story)


def test_discard_waits_for_the_flush_that_is_under_way(tmp_path: Path) -> None:
    """Else the map that it drops would be written behind it, and the next redirection would find it."""

    async def story(desk: Desk) -> None:
        async def discarding_meanwhile(flush: Callable[[int], Awaitable[int]]) -> int:
            epoch = await flush(0)
            discards.append(asyncio.create_task(desk.lifecycle.discard()))
            await asyncio.wait(discards, timeout=AWHILE_S)
            assert desk.volume.state is State.REDIRECTING
            return epoch

        discards: list[asyncio.Task[None]] = []
        await desk.write(1, 5)
        instead_of_flush(desk, discarding_meanwhile)
        await desk.flush()
        await asyncio.gather(*discards)
        await desk.lifecycle.redirect()
        assert durable_position(desk, 1) is None
        await desk.crash_a()
        assert await desk.read(1) == desk.original(1)
        desk.check_one_to_one()

    on_desk(tmp_path, story)


def test_unmaps_alone_begin_a_flush_before_too_much_hangs_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwvirt.controller.redirect.UNFLUSHED_LIMIT_BYTES", 64 << 10)

    async def story(desk: Desk) -> None:
        most = 0
        for number in range(1000):
            await desk.unmap(number % desk.blocks, 1)
            most = max(most, len([*desk.volume.unflushed]))
        assert 64 <= most <= 129
        assert len(desk.store.records.take_changes()) <= 129
        await desk.flush()
        desk.check_one_to_one()

    on_desk(tmp_path, story)
