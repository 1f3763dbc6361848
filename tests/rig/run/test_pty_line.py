"""The line between two ptys keeps its rate, however late the loop comes back to it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest

from hwvirt.link.baud import line_s
from hwvirt.link.faults import PTY_RUN, FaultKind, LinkFault
from hwvirt.rig.pty_line import PtyLine

BAUD = 115_200
BYTE_S = line_s(1, BAUD)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time of the cable."""
    now = 0.0

    def at(seconds: float) -> None:
        nonlocal now
        now = seconds

    monkeypatch.setattr("hwvirt.rig.pty_line.time.monotonic", lambda: now)
    return at


@pytest.mark.parametrize(("rate", "carried"), [(10e6, 150), (BAUD / 2, 75)])
def test_a_rate_that_is_struck_makes_the_line_slower_only(
    clock: Callable[[float], None], rate: float, carried: int
) -> None:
    async def script() -> None:
        line = PtyLine("a", "b", [FaultKind.RATE], 1, BAUD)
        await line.strike(LinkFault(FaultKind.RATE, rate, for_s=60.0), None)
        flow = line.flow("b")
        for _ in range(1000):
            flow.send(b"x", 0.0)
        assert sum(map(len, flow.arrived(150.5 * BYTE_S))) == carried
        await line.close()

    clock(0.0)
    asyncio.run(script())


def test_a_late_loop_finds_what_the_line_has_carried_meanwhile(
    clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = os.write, 0

    def counted(descriptor: int, data: bytes) -> int:
        nonlocal written
        written += len(data)
        return write(descriptor, data)

    def came_out() -> int:
        """How many bytes have come out since the last look."""
        nonlocal written
        count, written = written, 0
        return count

    async def script() -> None:
        cable = PtyLine("a", "b", (), 1, BAUD)
        sent = os.open(cable.devices["a"], os.O_RDWR | os.O_NOCTTY)
        (strand,) = (one for one in cable._strands if one._target == cable._ends["b"][0])
        os.write(sent, bytes(1000))
        monkeypatch.setattr(os, "write", counted)
        strand.start()
        for _ in range(100):
            if strand._reading:
                strand._readable()
        clock(150 * BYTE_S)
        strand._deliver()
        assert 64 < came_out() <= 150
        clock(220 * BYTE_S)  # this long nobody came
        strand._deliver()
        assert came_out() >= 64
        clock(10.0)
        strand._deliver()
        rest = came_out()
        assert 0 < rest < 300, "no more is read than the line carries in a moment: the sender is held back"
        os.close(sent)
        await cable.close()

    asyncio.run(script())


@pytest.mark.parametrize("baud", [9600, BAUD, 3_000_000])
def test_no_run_is_longer_than_a_rig_file_may_cut(clock: Callable[[float], None], baud: int) -> None:
    """And one that has waited is just as long."""

    async def script() -> None:
        line = PtyLine("a", "b", [FaultKind.TRUNCATE], 1, baud)
        for byte, strikes in ((PTY_RUN.at(baud), 0), (PTY_RUN.at(baud) - 1, 1)):
            strike = await line.strike(LinkFault(FaultKind.TRUNCATE, byte, count=1), "b")
            sent = os.open(line.devices["a"], os.O_RDWR | os.O_NOCTTY)
            os.write(sent, bytes(2000))
            (strand,) = (one for one in line._strands if one._target == line._ends["b"][0])
            strand._readable()
            assert strike.struck == strikes
            os.close(sent)
        await line.close()

    clock(0.0)
    asyncio.run(script())
