"""The gate: overlapping changes one after the other, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from hwvirt.controller.gate import RangeGate
from hwvirt.scsi.volume import Extent


def on_gate(story: Callable[[RangeGate], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(10):
            await story(RangeGate(100))

    asyncio.run(run())


async def idle() -> None:
    """Everything that can go on has gone on."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_extents_that_overlap_none_inside_and_none_before_them_are_admitted() -> None:
    async def story(gate: RangeGate) -> None:
        extents = [Extent(0, 10), Extent(5, 10), Extent(12, 3), Extent(20, 1)]
        assert gate.admit(extents) == [0, 3]
        assert gate.admit([Extent(9, 1)]) == []
        gate.leave([extents[0]])
        assert gate.admit([Extent(9, 1)]) == [0]

    on_gate(story)


def test_a_range_that_is_never_idle_is_entered_all_the_same() -> None:
    async def story(gate: RangeGate) -> None:
        busy = [Extent(10, 1), Extent(20, 1)]
        assert gate.admit(busy) == [0, 1]
        entering = asyncio.ensure_future(gate.enter(Extent(0, 50)))
        await idle()
        assert gate.admit([Extent(30, 1), Extent(60, 1)]) == [1], "only what is not in its way may overtake it"
        gate.leave(busy[:1])
        await idle()
        assert not entering.done()
        assert gate.admit([Extent(10, 1)]) == []
        gate.leave(busy[1:])
        await entering
        assert gate.admit([Extent(30, 1)]) == []
        gate.leave([Extent(0, 50)])
        assert gate.admit([Extent(30, 1)]) == [0]

    on_gate(story)


def test_overlapping_ranges_are_entered_in_their_order() -> None:
    async def story(gate: RangeGate) -> None:
        assert gate.admit([Extent(15, 1)]) == [0]
        entering = [asyncio.ensure_future(gate.enter(extent)) for extent in (Extent(0, 20), Extent(5, 20), Extent(0, 5))]
        await idle()
        gate.leave([Extent(15, 1)])
        await entering[0]
        await idle()
        assert not (entering[1].done() or entering[2].done())
        gate.leave([Extent(0, 20)])
        await asyncio.gather(*entering)

    on_gate(story)


def test_who_gives_up_entering_is_in_nobody_s_way() -> None:
    async def story(gate: RangeGate) -> None:
        assert gate.admit([Extent(15, 1)]) == [0]
        entering = asyncio.ensure_future(gate.enter(Extent(0, 20)))
        await idle()
        changed = asyncio.ensure_future(gate.changed())
        await idle()
        entering.cancel()
        await changed
        assert gate.admit([Extent(0, 5)]) == [0]

    on_gate(story)


def test_who_closes_second_waits_until_the_first_has_opened() -> None:
    async def story(gate: RangeGate) -> None:
        await gate.close()
        second = asyncio.create_task(gate.close())
        third = asyncio.create_task(gate.close())
        await idle()
        gate.open()
        await idle()
        assert [second.done(), third.done()] == [True, False]
        assert gate.admit([Extent(0, 1)]) == []
        gate.open()
        await third
        gate.open()
        assert gate.admit([Extent(0, 1)]) == [0]

    on_gate(story)
