"""The workload is repeatable, keeps its depth, records what happened and sees wrong blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from errno import ECONNRESET, EIO, ENOSPC

import pytest

from hwvirt.errors import InfrastructureError
from hwvirt.host.initiator import Answer, Initiator, Op
from hwvirt.rig.judge.block import MISDIRECTED, make_extent
from hwvirt.rig.judge.history import Fate, History, Kind
from hwvirt.rig.judge.register import Register
from hwvirt.rig.workload import Counts, Mix, WorkloadPlan, fill, read_all, run_workload
from hwvirt.rig.workload.plan import workload_script

from .memory import MemoryUnit

PLAN = WorkloadPlan(ops=500, depth=8, least=1, most=4, mix=Mix(write=50, read=30, flush=5, unmap=5, zero=5, fua=5), seed=7)


def _history() -> History:
    return History(volume=1, seed=42, block_bytes=512)


def _run(body: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(body())


def test_the_same_plan_gives_the_same_operations() -> None:
    one, again, other = (workload_script(plan, 64) for plan in (PLAN, PLAN, replace(PLAN, seed=8)))
    assert all((column == same).all() for column, same in zip(one, again, strict=True))
    assert any((column != same).any() for column, same in zip(one, other, strict=True))


def test_the_plan_keeps_its_shares_and_its_block_range() -> None:
    kind, lba, blocks = workload_script(replace(PLAN, ops=20_000), 64)
    for wanted, percent in {Kind.WRITE: 50, Kind.READ: 30, Kind.FLUSH: 5, Kind.WRITE_FUA: 5}.items():
        assert abs(int((kind == wanted).sum()) / 200 - percent) < 1.5
    moving = kind != Kind.FLUSH
    assert set(blocks[moving].tolist()) == {1, 2, 3, 4}
    assert lba.min() == 0
    assert int((lba + blocks).max()) == 64


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (replace(PLAN, mix=Mix()), "the mix has no operations"),
        (replace(PLAN, most=65), "operations of 1 to 65 blocks do not fit into 64 blocks"),
        (replace(PLAN, least=5), "operations of 5 to 4 blocks do not fit into 64 blocks"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(plan: WorkloadPlan, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        workload_script(plan, 64)


def test_a_right_unit_is_found_right() -> None:
    async def body() -> None:
        unit, history = MemoryUnit(64), _history()
        filled = await fill(unit, history)
        assert filled == Counts(acknowledged=1, flushes=1, fills=1)
        counts = await run_workload(unit, PLAN, history)
        assert counts.acknowledged + counts.reads + counts.flushes == PLAN.ops
        assert (counts.failed, counts.in_doubt, counts.mismatches) == (0, 0, 0)
        assert unit.most_in_flight == PLAN.depth
        assert (await read_all(unit, history)).reads == 1
        register = Register(history)
        assert not len(register.accusations.rule)
        assert register.reads == sum(len(history.operation(n + 1).seen) for n in range(len(history)))

    _run(body)


def test_the_counts_are_those_of_the_requests() -> None:
    async def body() -> None:
        unit, history = MemoryUnit(64), _history()
        counts = await run_workload(unit, PLAN, history)
        ops = [op for op, *_ in unit.requests]
        assert counts.reads == ops.count(Op.READ)
        assert counts.flushes == ops.count(Op.FLUSH)
        assert counts.unmaps == ops.count(Op.UNMAP)
        assert counts.acknowledged == ops.count(Op.WRITE) + ops.count(Op.UNMAP) + ops.count(Op.ZERO)
        for number, (*_, fua) in enumerate(unit.requests, 1):
            assert (history.operation(number).fate == Fate.DURABLE) == fua
        assert any(fua for *_, fua in unit.requests)

    _run(body)


def test_a_fill_writes_every_block_once_and_then_flushes_all_of_them() -> None:
    async def body() -> None:
        unit, history = MemoryUnit(5000), _history()
        await fill(unit, history)
        assert unit.requests == [
            (Op.WRITE, 0, 2048, False),
            (Op.WRITE, 2048, 2048, False),
            (Op.WRITE, 4096, 904, False),
            (Op.FLUSH, 0, 0, False),
        ]
        assert bytes(unit.medium[-512:]) == make_extent(1, 4999, 1, 3, 1, 42, 512)
        assert history.durable().tolist() == [True, True, True, False]

    _run(body)


@pytest.mark.parametrize(
    ("answer", "counts"),
    [
        (Answer(0), Counts(acknowledged=3, fills=3, flushes=1)),
        (Answer(EIO), Counts(acknowledged=3, fills=3, failed=1)),
        (Answer(ECONNRESET, in_doubt=True), Counts(acknowledged=3, fills=3, in_doubt=1)),
    ],
    ids=["good", "failed", "in doubt"],
)
def test_the_flush_of_a_fill_counts_however_it_ends(answer: Answer, counts: Counts) -> None:
    async def body() -> None:
        told: list[tuple[int, Counts]] = []

        def progress(submitted: int, so_far: Counts) -> None:
            told.append((submitted, replace(so_far)))

        unit = MemoryUnit(5000, misbehave=lambda number, op: answer if op is Op.FLUSH else None)
        assert await fill(unit, _history(), on_progress=progress) == counts
        assert told[-1] == (3, counts)

    _run(body)


def test_a_wrong_block_in_a_read_is_counted_and_described() -> None:
    async def body() -> None:
        unit, history = MemoryUnit(64), _history()
        await fill(unit, history)
        unit.medium[7 * 512 : 8 * 512] = unit.medium[9 * 512 : 10 * 512]
        counts = await read_all(unit, history)
        assert counts.mismatches == 1
        read = history.operation(len(history))
        assert read.seen[7] == MISDIRECTED
        assert history.strange == {(read.number, 7): "volume 1 lba 9 version 1 of writer 1, seed 42"}

    _run(body)


def test_a_block_of_another_run_in_a_read_is_described_as_such() -> None:
    async def body() -> None:
        unit, history = MemoryUnit(64), _history()
        unit.medium[7 * 512 : 8 * 512] = make_extent(1, 7, 1, 3, 9, 42, 512)
        await read_all(unit, history)
        words = "volume 1 lba 7 version 3 of writer 9, seed 42 (another run's: this one's writer is 1)"
        assert history.strange[len(history), 7] == words

    _run(body)


@pytest.mark.parametrize("errno", [EIO, ENOSPC])
def test_a_failed_request_is_recorded_and_the_workload_goes_on(errno: int) -> None:
    async def body() -> None:
        unit = MemoryUnit(64, misbehave=lambda number, op: Answer(errno) if number == 100 else None)
        history = _history()
        counts = await run_workload(unit, PLAN, history)
        assert (counts.failed, counts.in_doubt, len(history)) == (1, 0, PLAN.ops)
        assert history.operation(100).fate == Fate.FAILED

    _run(body)


def _lose_path(number: int, op: Op) -> Answer | None:
    return Answer(ECONNRESET, in_doubt=True) if number == 100 else None


def test_after_a_lost_path_nothing_more_is_submitted() -> None:
    async def body() -> None:
        unit, history = MemoryUnit(64, misbehave=_lose_path), _history()
        counts = await run_workload(unit, PLAN, history)
        assert (counts.in_doubt, history.operation(100).fate) == (1, Fate.IN_DOUBT)
        assert counts.failed == len(history) - 100 < PLAN.depth
        assert unit.in_flight == 0

    _run(body)


def test_a_path_that_can_be_opened_anew_carries_the_rest() -> None:
    async def body() -> None:
        unit, again, history = MemoryUnit(64, misbehave=_lose_path), MemoryUnit(64), _history()
        again.medium = unit.medium

        async def reconnect() -> Initiator:
            assert unit.in_flight == 0
            return again

        counts = await run_workload(unit, PLAN, history, reconnect=reconnect)
        assert len(history) == PLAN.ops
        assert len(unit.requests) + len(again.requests) == PLAN.ops
        assert counts.in_doubt == 1
        assert not len(Register(history).accusations.rule)

    _run(body)


def test_stop_waits_for_the_answers_that_are_due() -> None:
    async def body() -> None:
        unit, history, stop = MemoryUnit(64), _history(), asyncio.Event()

        def progress(submitted: int, counts: Counts) -> None:
            if submitted >= 100:
                stop.set()

        counts = await run_workload(unit, PLAN, history, on_progress=progress, stop=stop)
        assert len(history) == len(unit.requests) == 100
        assert counts.acknowledged + counts.reads + counts.flushes == 100

    _run(body)


def test_progress_is_told_after_every_answer_at_the_same_counts_each_time() -> None:
    async def body() -> list[tuple[int, int]]:
        told: list[tuple[int, int]] = []

        def progress(submitted: int, counts: Counts) -> None:
            told.append((submitted, counts.acknowledged))

        await run_workload(MemoryUnit(64), PLAN, _history(), on_progress=progress)
        return told

    one, again = asyncio.run(body()), asyncio.run(body())
    assert len(one) == PLAN.ops
    assert one == again
    assert one[-1][0] == PLAN.ops


def test_nothing_is_submitted_while_progress_asks_to_wait_and_then_everything() -> None:
    async def body() -> None:
        unit, history = MemoryUnit(64), _history()
        until: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        held_at: list[int] = []
        quiet = asyncio.Event()

        def progress(submitted: int, counts: Counts) -> asyncio.Future[None] | None:
            if submitted < 100 or until.done():
                return None
            held_at.append(len(unit.requests))
            if not unit.in_flight:
                quiet.set()
            return until

        work = asyncio.ensure_future(run_workload(unit, PLAN, history, on_progress=progress))
        await quiet.wait()
        assert set(held_at) == {100}
        assert not work.done()
        until.set_result(None)
        await work
        assert len(unit.requests) == PLAN.ops
        assert unit.most_in_flight == PLAN.depth

    _run(body)


@pytest.mark.parametrize("at", [1, 40, 500], ids=["the first", "one in the middle", "the last"])
def test_an_answer_whose_progress_cannot_be_told_ends_the_workload(at: int) -> None:
    async def body() -> None:
        told = 0

        def progress(submitted: int, counts: Counts) -> None:
            nonlocal told
            told += 1
            if told == at:
                raise InfrastructureError("nobody listens.")

        unit = MemoryUnit(64)
        with pytest.raises(InfrastructureError, match=r"^nobody listens\.$"):
            await run_workload(unit, PLAN, _history(), on_progress=progress)
        submitted = len(unit.requests)
        assert submitted <= at + PLAN.depth
        for _ in range(2 * PLAN.depth):
            await asyncio.sleep(0)
        assert (len(unit.requests), unit.in_flight) == (submitted, 0)

    _run(body)


def test_a_cancelled_workload_submits_nothing_more() -> None:
    async def body() -> None:
        begun = asyncio.Event()
        unit, history = MemoryUnit(64, misbehave=lambda number, op: begun.set()), _history()
        task = asyncio.ensure_future(run_workload(unit, replace(PLAN, ops=100_000), history))
        await begun.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        submitted = len(unit.requests)
        await asyncio.sleep(0)
        assert unit.in_flight == 0
        assert len(unit.requests) == submitted < 100_000

    _run(body)


def test_a_short_read_is_an_error_of_the_path() -> None:
    async def body() -> None:
        unit = MemoryUnit(64, misbehave=lambda number, op: Answer(0, data=(bytes(100),)) if op is Op.READ else None)
        with pytest.raises(InfrastructureError, match="a read of 64 blocks at lba 0 returned 100 bytes"):
            await read_all(unit, _history())

    _run(body)


def test_a_history_of_another_block_size_is_refused() -> None:
    async def body() -> None:
        with pytest.raises(ValueError, match="blocks of 4096 bytes, the history is of 512"):
            await read_all(MemoryUnit(64, block_bytes=4096), _history())

    _run(body)


def test_no_operations_are_no_counts() -> None:
    async def body() -> None:
        assert await run_workload(MemoryUnit(64), replace(PLAN, ops=0), _history()) == Counts()

    _run(body)
