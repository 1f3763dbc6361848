"""Sessions of the link come and go at the worst moments: nothing is lost, nothing is done twice, nothing lands late."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, cast

import pytest

from hwvirt.controller import lifecycle
from hwvirt.controller.correlation import CorrelationMap, Rows
from hwvirt.controller.journal import Journal
from hwvirt.controller.link_store import LinkStore
from hwvirt.controller.map_journal import MapJournal
from hwvirt.controller.states import State
from hwvirt.errors import LinkError
from hwvirt.link.messages import Drop, Flush, Free, Placement, Query, Read, Refused, Request, Unmap, Write
from hwvirt.scsi.sense import COMMUNICATION_TIMEOUT, UNRECOVERED_READ_ERROR, CheckCondition
from hwvirt.scsi.volume import Extent
from hwvirt.scsi.volume import Write as VolumeWrite
from hwvirt.units import Deadline

from .cut_sides import CutSides, first, on_cut_sides
from .desk import BLOCK


async def _tried(work: Awaitable[None]) -> None:
    with suppress(CheckCondition):
        await work


async def _refused(work: Awaitable[object]) -> None:
    with pytest.raises(CheckCondition) as caught:
        await work
    assert replace(caught.value.sense, information=None) == COMMUNICATION_TIMEOUT


async def _until(condition: Callable[[], bool]) -> None:
    """Returns when it holds; the story's own deadline bounds it."""
    while not condition():  # noqa: ASYNC110, an event on a trace wakes nobody
        await asyncio.sleep(0.01)


def _at(nth: int) -> Callable[[Request], bool]:
    """True for the nth request from now on, counted from 1."""
    numbers = count(1)
    return lambda request: next(numbers) == nth


@pytest.mark.parametrize("answered_first", [False, True], ids=["request lost", "reply lost"])
def test_session_that_ends_at_any_request_of_mending_loses_nothing(tmp_path: Path, answered_first: bool) -> None:
    async def story(sides: CutSides) -> None:
        sides.answered_first = answered_first
        expected: dict[int, int] = {}
        for nth in range(1, 12):  # Attach, a flush, the ledger, eight writes; the unmap is the last
            for lba in range(10, 14):
                await sides.write(lba, nth)
                expected[lba] = nth * 10 + lba
                await sides.write(lba, expected[lba])
            await sides.unmap(14, 1)
            await sides.stop_b()
            sides.cut_when = _at(nth)
            await sides.start_b_side()
            assert await sides.read(10, 5) == [*(expected[lba] for lba in range(10, 14)), 0]
            await sides.flush()
            sides.check_one_to_one()
        assert sides.cuts >= 7

    on_cut_sides(tmp_path, story)


@pytest.mark.parametrize("answered_first", [False, True], ids=["request lost", "reply lost"])
def test_write_in_doubt_is_decided_before_anything_else_is_asked(tmp_path: Path, answered_first: bool) -> None:
    async def story(sides: CutSides) -> None:
        await sides.write(5, 1)
        sides.answered_first, sides.stay_down, sides.cut_when = answered_first, True, first(Write)
        await _refused(sides.write(5, 2))
        await sides.heal()
        decided = await sides.read(5)
        assert decided == ([2] if answered_first else [1])
        assert await sides.read(5) == decided
        await sides.flush()
        sides.check_one_to_one()
        await sides.write(5, 3)
        await sides.flush()
        assert await sides.read(5) == [3]
        sides.check_one_to_one()

    on_cut_sides(tmp_path, story, stall_s=0.2)


@pytest.mark.parametrize("fails", ["the link", "the store"])
@pytest.mark.parametrize("kind", [Flush, Query])
def test_doubt_stays_until_mending_has_decided_it(tmp_path: Path, kind: type[Request], fails: str) -> None:
    """Mending that fails in its middle has decided nothing, whatever it fails for."""

    async def story(sides: CutSides) -> None:
        await sides.write(5, 1)
        sides.answered_first, sides.stay_down, sides.cut_when = True, True, first(Write)
        await _refused(sides.write(5, 2))
        sides.stay_down, sides.cut_when = False, lambda request: False
        flush, ledger, failures = sides.store.flush, sides.store.records.page, iter([CheckCondition(UNRECOVERED_READ_ERROR)])

        def page_failing_once(*asked: Any) -> tuple[Rows, int | None]:
            for failure in failures:
                raise failure
            return ledger(*asked)

        async def flush_failing_once(volume: int) -> int:
            for failure in failures:
                raise failure
            return await flush(volume)

        if fails == "the link":
            sides.answered_first, sides.cut_when = False, first(kind)
        elif kind is Flush:
            sides.store.flush = flush_failing_once  # type: ignore[method-assign]  # the disk of the store fails once
        else:
            sides.store.records.page = page_failing_once  # type: ignore[assignment, method-assign]  # as above
        with suppress(LinkError):  # what mending failed with
            await sides.heal()
        await _until(lambda: sides.side_a.patient.ready)
        assert sides.cuts == 1 + (fails == "the link")
        assert next(failures, None) is None or fails == "the link"
        assert await sides.read(5) == [2]
        await sides.flush()
        sides.check_one_to_one()

    on_cut_sides(tmp_path, story, stall_s=0.2)


def test_unmap_in_doubt_is_decided_before_anything_else_is_asked(tmp_path: Path) -> None:
    async def story(sides: CutSides) -> None:
        await sides.write(5, 1)
        sides.answered_first, sides.stay_down, sides.cut_when = True, True, first(Unmap)
        await _refused(sides.unmap(5, 1))
        await sides.heal()
        assert await sides.read(5) == [0]
        await sides.flush()
        sides.check_one_to_one()

    on_cut_sides(tmp_path, story, stall_s=0.2)


def test_what_was_decided_in_favour_of_a_write_is_not_lost_by_a_crash_of_the_store(tmp_path: Path) -> None:
    """The store had it in memory alone, and nobody could send it again."""

    async def story(sides: CutSides) -> None:
        await sides.write(5, 1)
        sides.answered_first, sides.stay_down, sides.cut_when = True, True, first(Write)
        await _refused(sides.write(5, 2))
        await sides.heal()
        assert await sides.read(5) == [2]
        await sides.stop_b()
        await sides.start_b_side()
        assert await sides.read(5) == [2]
        await sides.flush()
        sides.check_one_to_one()

    on_cut_sides(tmp_path, story, stall_s=0.2)


def test_store_without_room_for_it_twice_is_mended(tmp_path: Path) -> None:
    """It made durable what no answered flush covers, and has no block left."""

    async def story(sides: CutSides) -> None:
        await sides.write(0, *range(sides.blocks))
        await sides.flush()
        while sides.store.allocator.free:
            await sides.write(5, sides.store.allocator.free)
        await sides.store.flush(0)
        await sides.stop_b()
        await sides.start_b_side()
        assert await sides.read(5) == [1]
        await sides.flush()
        sides.check_one_to_one()

    on_cut_sides(tmp_path, story)


def test_discard_in_the_middle_of_mending_leaves_nothing_behind(tmp_path: Path) -> None:
    async def story(sides: CutSides) -> None:
        await sides.write(5, 1)
        rows = await sides.store.ledger(0)

        class Discarding:
            """A store that is slow to tell its ledger: meanwhile the volume is discarded."""

            async def flush(self, volume: int) -> int:
                return sides.store.epoch

            async def ledger(self, volume: int) -> Rows:
                await sides.lifecycle.discard()
                return rows

        await sides.side_a._make_one_to_one(sides.volume, cast("LinkStore", Discarding()), send=False)
        assert sides.volume.state is State.OWN
        assert len(sides.volume.map.rows()) == 0
        assert sides.volume.superseded == []

    on_cut_sides(tmp_path, story)


def test_nothing_of_a_write_in_doubt_is_kept(tmp_path: Path) -> None:
    """However often the link fails for longer than the stall time: memory is bounded."""

    async def story(sides: CutSides) -> None:
        sides.answered_first, sides.stay_down = True, True
        for number in range(3):
            sides.cut_when = first(Write)
            results = await asyncio.gather(*(sides.write(lba, number) for lba in range(20)), return_exceptions=True)
            assert len([result for result in results if result is not None]) >= 19
            assert not sides.side_a.patient._waiting
            assert not any(sides.side_a.patient._writes.values())
            await sides.heal()
            await sides.read(0, 20)
        await sides.flush()
        sides.check_one_to_one()

    on_cut_sides(tmp_path, story, stall_s=0.1)


@pytest.mark.parametrize("kind", [Flush, Free])
@pytest.mark.parametrize("answered_first", [False, True], ids=["request lost", "reply lost"])
def test_flush_that_fails_for_want_of_a_link_gives_up_no_position_for_good(
    tmp_path: Path, kind: type[Request], answered_first: bool
) -> None:
    async def story(sides: CutSides) -> None:
        for fill in range(3):
            await sides.write(5, fill)
        sides.answered_first, sides.stay_down, sides.cut_when = answered_first, True, first(kind)
        await _refused(sides.flush())
        await sides.heal()
        await sides.flush()
        sides.check_one_to_one()
        assert await sides.read(5) == [2]

    on_cut_sides(tmp_path, story, stall_s=0.2)


def test_sessions_that_bring_no_answer_do_not_stretch_the_stall(tmp_path: Path) -> None:
    async def story(sides: CutSides) -> None:
        sides.cut_when = lambda request: isinstance(request, Write)
        async with asyncio.timeout(20):
            await _refused(sides.write(5, 1))
        assert sides.cuts > 3

    on_cut_sides(tmp_path, story, stall_s=0.5)


def test_mending_that_fails_is_tried_again_while_the_session_lasts(tmp_path: Path) -> None:
    async def story(sides: CutSides) -> None:
        await sides.write(5, 1)
        await sides.stop_b()
        await sides.start_b_side()
        put, failures = sides.store._put, iter([CheckCondition(UNRECOVERED_READ_ERROR)])

        async def failing_once(*write: Any) -> list[Placement]:
            for failure in failures:
                raise failure
            return await put(*write)

        sides.store._put = failing_once  # type: ignore[assignment]  # the disk of the store fails once
        assert await sides.read(5) == [1]
        assert len(sides.said("link.mend-failed")) == 1
        assert len([event for event in sides.said("link.up") if event.fields["peer"] == "b"]) == 2

    on_cut_sides(tmp_path, story)


@pytest.mark.parametrize("kind", [Read, Flush, Free, Drop])
def test_commit_goes_on_after_a_long_loss_of_the_link(tmp_path: Path, kind: type[Request]) -> None:
    async def story(sides: CutSides) -> None:
        await sides.write(5, 1, 2, 3)
        await sides.write(5, 4)
        sides.answered_first, sides.stay_down, sides.cut_when = True, True, first(kind)
        await sides.lifecycle.commit()
        await _until(lambda: bool(sides.said("redirect.waiting")))
        await sides.heal()
        await sides.lifecycle.settled()
        assert sides.volume.state is State.OWN
        assert sides.first_disk()[5:8] == [4, 2, 3]
        assert len(sides.store.records.rows()) == 0

    on_cut_sides(tmp_path, story, stall_s=0.1)


def test_discard_without_a_link_is_at_once_and_keeps_what_is_written_after_it(tmp_path: Path) -> None:
    async def story(sides: CutSides) -> None:
        await sides.write(5, 1)
        await sides.write(6, 1)
        await sides.flush()
        await sides.unplug()
        discarding = asyncio.create_task(sides.lifecycle.discard())
        await _until(lambda: bool(sides.said("redirect.waiting")))
        assert sides.said("redirect.waiting")[0].fields["state"] == "discarding"
        assert await sides.read(5, 2) == sides.original(5, 2)
        await sides.write(5, 7)
        await sides.flush()
        await sides.plug_in()
        await discarding
        assert sides.volume.state is State.OWN
        assert await sides.read(5, 2) == [7, *sides.original(6)]
        assert sides.first_disk()[5] == 7
        assert len(sides.store.records.rows()) == 0

    on_cut_sides(tmp_path, story, stall_s=0.1)


def test_after_a_commit_the_store_is_not_taken_for_a_lost_one(tmp_path: Path) -> None:
    async def story(sides: CutSides) -> None:
        await sides.write(5, 1)
        await sides.lifecycle.commit()
        await sides.lifecycle.settled()
        await sides.heal()
        await sides.lifecycle.redirect()
        await sides.write(5, 2)
        await sides.flush()
        sides.check_one_to_one()

    on_cut_sides(tmp_path, story)


def test_number_of_a_write_that_was_never_sent_is_not_missed_in_the_ledger(tmp_path: Path) -> None:
    async def story(sides: CutSides) -> None:
        await sides.write(5, 1)
        await sides.unplug()
        await _refused(sides.write(6, 2))
        await sides.plug_in()
        await sides.side_a.patient.wait_ready(Deadline.after(10))
        await sides.flush()
        await sides.heal()
        assert await sides.read(5, 2) == [1, *sides.original(6)]

    on_cut_sides(tmp_path, story, stall_s=0.1)


def test_flush_that_begins_while_the_volume_is_mended_gives_up_nothing_that_is_named(tmp_path: Path) -> None:
    """The store had it all, and died before it could say so: each block has two rows with the same sequence number."""

    async def story(sides: CutSides) -> None:
        for _ in range(3):  # so that the store has room in front of what it holds
            await sides.flush()
            for lba in range(10, 20):
                await sides.write(lba, lba)
        sides.answered_first, sides.stay_down, sides.cut_when = True, True, first(Flush)
        await _refused(sides.flush())
        flushes: list[asyncio.Task[None]] = []

        def flush_begins(request: Request) -> bool:
            if isinstance(request, Query) and not flushes:
                flushes.append(asyncio.create_task(sides.flush()))
            return False

        sides.cut_when = flush_begins
        await sides.stop_b()
        await sides.start_b_side()
        await sides.side_a.patient.wait_ready(Deadline.after(10))
        assert await sides.read(10, 10) == [*range(10, 20)]
        await asyncio.gather(*flushes)
        await sides.flush()
        assert len(flushes) == 1
        assert await sides.read(10, 10) == [*range(10, 20)]
        sides.check_one_to_one()

    on_cut_sides(tmp_path, story, stall_s=0.3)


@pytest.mark.parametrize("doubt_comes", ["before the commit", "during the commit"])
def test_commit_leaves_no_block_behind_whose_write_is_in_doubt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doubt_comes: str
) -> None:
    """Else a restart of A in the middle of the commit would take it over what hosts have written there since."""
    monkeypatch.setattr(lifecycle, "COMMIT_CHUNK_BYTES", BLOCK)
    monkeypatch.setattr(lifecycle, "_CHUNKS_MOST", 1)

    async def story(sides: CutSides) -> None:
        redirected, doubtful = (5, 3) if doubt_comes == "before the commit" else (3, 5)
        await sides.write(redirected, 1)
        sides.answered_first, sides.stay_down = True, True
        sides.cut_when = first(Write)
        if doubt_comes == "before the commit":
            await _refused(sides.write(doubtful, 2))
        else:
            writing: list[asyncio.Task[None]] = []

            drop = sides.volume.store.drop

            async def dropped(volume: int, extent: Extent) -> None:
                await drop(volume, extent)
                if not writing:  # the first is back
                    writing.append(asyncio.create_task(_refused(sides.write(doubtful, 2))))
                    await asyncio.sleep(0)

            monkeypatch.setattr(sides.volume.store, "drop", dropped)
        await sides.lifecycle.commit()
        await _until(lambda: bool(sides.said("redirect.waiting")))
        assert sides.volume.committed_below <= doubtful
        assert sides.volume.in_doubt, "nobody could decide it yet"
        sides.cut_when = lambda request: False
        await sides.heal()
        await sides.lifecycle.settled()
        assert await sides.read(doubtful) == [2]
        assert (sides.first_disk()[redirected], sides.first_disk()[doubtful]) == (1, 2)
        assert len(sides.store.records.rows()) == 0

    on_cut_sides(tmp_path, story, stall_s=0.2)


@pytest.mark.parametrize("chunks_most", [1, 256])
@pytest.mark.parametrize("kind", [Read, Flush, Drop])
def test_hosts_are_not_held_up_by_a_commit_that_waits_for_the_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Request], chunks_most: int
) -> None:
    monkeypatch.setattr(lifecycle, "COMMIT_CHUNK_BYTES", BLOCK)
    monkeypatch.setattr(lifecycle, "_CHUNKS_MOST", chunks_most)

    async def story(sides: CutSides) -> None:
        await sides.write(5, 1)
        sides.stay_down, sides.cut_when = True, first(kind)
        await sides.lifecycle.commit()
        await _until(lambda: bool(sides.said("redirect.waiting")))
        async with asyncio.timeout(20):  # many times the stall: each fails after it, or works on the first disk
            await asyncio.gather(*(_tried(sides.write(lba, 7)) for lba in (3, 5, 60)), _tried(sides.flush()))
        await sides.heal()
        await sides.lifecycle.settled()
        assert sides.volume.state is State.OWN
        assert [sides.first_disk()[lba] for lba in (3, 5, 60)] == [(await sides.read(lba))[0] for lba in (3, 5, 60)]
        assert (await sides.read(5))[0] in (1, 7)
        assert len(sides.store.records.rows()) == 0

    on_cut_sides(tmp_path, story, stall_s=0.2)


def test_after_a_loss_of_the_link_a_commit_still_makes_the_map_durable_before_the_store_forgets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "COMMIT_CHUNK_BYTES", BLOCK)
    monkeypatch.setattr(lifecycle, "_CHUNKS_MOST", 1)

    def durable_map(sides: CutSides) -> CorrelationMap:
        correlation, journal = CorrelationMap(sides.blocks), Journal(sides.folder, "map-0")
        MapJournal(journal, correlation).recover()
        journal.close()
        return correlation

    async def story(sides: CutSides) -> None:
        await sides.write(3, 1)
        await sides.write(5, 2)
        await sides.flush()
        assert not durable_map(sides).is_empty(Extent(5, 1))
        flushes, drops = count(1), list[Drop]()

        def cut(request: Request) -> bool:
            if isinstance(request, Drop):
                drops.append(request)
                assert durable_map(sides).is_empty(Extent(request.lba, request.blocks))
            return isinstance(request, Flush) and next(flushes) == 2

        sides.stay_down, sides.cut_when = True, cut
        await sides.lifecycle.commit()
        await _until(lambda: bool(sides.said("redirect.waiting")))
        await sides.heal()
        await sides.lifecycle.settled()
        assert [(drop.lba, drop.blocks) for drop in drops] == [(3, 1), (5, 1), (0, 64)]
        assert (sides.first_disk()[3], sides.first_disk()[5]) == (1, 2)

    on_cut_sides(tmp_path, story, stall_s=0.2)


def test_hosts_are_not_held_up_by_the_end_of_a_commit_either(tmp_path: Path) -> None:
    async def story(sides: CutSides) -> None:
        await sides.write(5, 1)
        drops: list[Request] = []

        def at_the_last_drop(request: Request) -> bool:
            drops.extend([request] if isinstance(request, Drop) else [])
            return isinstance(request, Drop) and len(drops) == 2

        sides.stay_down, sides.cut_when = True, at_the_last_drop
        await sides.lifecycle.commit()
        await _until(lambda: bool(sides.said("redirect.waiting")))
        async with asyncio.timeout(20):
            await sides.write(60, 7)
            await _refused(sides.flush())
        await sides.heal()
        await sides.lifecycle.settled()
        assert (sides.volume.state, sides.first_disk()[5], sides.first_disk()[60]) == (State.OWN, 1, 7)

    on_cut_sides(tmp_path, story, stall_s=0.2)


def test_a_batch_that_finds_no_link_fails_as_a_whole_after_one_stall(tmp_path: Path) -> None:
    async def story(sides: CutSides) -> None:
        await sides.unplug()
        async with asyncio.timeout(5):  # one after the other they would need 6 seconds
            results = await sides.volume.write([VolumeWrite(lba, [bytes(BLOCK)]) for lba in range(10)])
        assert [result and result.sense.information for result in results] == [*range(10)]

    on_cut_sides(tmp_path, story, stall_s=0.6)


def test_nothing_of_a_former_session_lands_after_what_the_next_one_asks(tmp_path: Path) -> None:
    """B still writes what an ended session asked for. Whatever the next one asks, be it the same again, sees it done."""

    async def story(sides: CutSides) -> None:
        gate, put = asyncio.Event(), sides.store._put
        begun, done = [], []

        async def slowly(*write: Any) -> list[Placement]:
            begun.append(write[1][0].lba)
            if len(begun) == 1:
                await gate.wait()
            placements = await put(*write)
            done.append(write[1][0].lba)
            return placements

        sides.store._put = slowly  # type: ignore[assignment]  # the disk of the store takes its time, once
        writing = asyncio.create_task(sides.write(5, 1))
        await _until(lambda: begun == [5])
        sides.cut()
        await _until(lambda: len(sides.said("link.up")) == 4)
        reached: list[Request] = []
        sides.cut_when = lambda request: bool(reached.append(request))  # type: ignore[func-returns-value]
        later = asyncio.create_task(sides.write(6, 2))
        asked = asyncio.ensure_future(sides.side_a.endpoint.request(Query(0, None, 10)))
        await _until(lambda: any(isinstance(request, Query) for request in reached))
        # The cable keeps the order: were the query answered, this would be heard behind the answer.
        assert isinstance(await sides.side_b.endpoint.request(Flush(0)), Refused)
        assert not asked.done()
        assert (begun, done) == ([5], [])
        gate.set()
        await asyncio.gather(writing, later, asked)
        assert done == [5, 6]
        await sides.flush()
        sides.check_one_to_one()

    on_cut_sides(tmp_path, story)


def test_a_drop_waits_for_the_writes_that_were_asked_before_it(tmp_path: Path) -> None:
    async def story(sides: CutSides) -> None:
        gate, put = asyncio.Event(), sides.store._put

        async def slowly(*write: Any) -> list[Placement]:
            await gate.wait()
            return await put(*write)

        sides.store._put = slowly  # type: ignore[assignment]  # the disk of the store takes its time
        writing = asyncio.create_task(sides.write(5, 1))
        await asyncio.sleep(0)
        dropping = asyncio.ensure_future(sides.side_a.patient.ask(Drop(0, 0, 64)))
        answer = asyncio.ensure_future(sides.side_a.patient.ask(Query(0, None, 10)))
        await answer
        assert not dropping.done()
        gate.set()
        await asyncio.gather(writing, dropping)
        assert len(sides.store.records.rows()) == 0
        sides.volume.map.clear()

    on_cut_sides(tmp_path, story)
