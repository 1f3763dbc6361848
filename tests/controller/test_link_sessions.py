"""Sessions of the link come and go at the worst moments: nothing is lost, nothing is done twice, nothing lands late."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

import pytest
import uvloop

from hwvirt.link.messages import Request

from .cut_sides import CutSides


def _on_cut_sides(folder: Path, story: Callable[[CutSides], Awaitable[None]], stall_s: float = 5.0) -> None:
    async def run() -> None:
        sides = CutSides(folder, stall_s=stall_s)
        await sides.start()
        try:
            async with asyncio.timeout(20):
                await story(sides)
        finally:
            await sides.stop()
            sides.close()

    uvloop.run(run())


def _at(nth: int) -> Callable[[Request], bool]:
    """True for the nth request from now on, counted from 1."""
    numbers = count(1)
    return lambda request: next(numbers) == nth


@pytest.mark.parametrize("answered_first", [False, True], ids=["request lost", "reply lost"])
def test_session_that_ends_at_any_request_of_mending_loses_nothing(tmp_path: Path, answered_first: bool) -> None:
    async def story(sides: CutSides) -> None:
        sides.answered_first = answered_first
        expected: dict[int, int] = {}
        for nth in range(1, 9):  # Attach, four writes, an unmap, the ledger; then the mending is over
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

    _on_cut_sides(tmp_path, story)
