"""Every fault of a cable, on both kinds of cable, between two real ends: it strikes, shows, and the link outlives it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import NamedTuple

import pytest

from hwvirt.errors import LinkError
from hwvirt.link import messages as m
from hwvirt.link.config import LinkTiming, Role
from hwvirt.link.endpoint import Endpoint, LinkState, Responder
from hwvirt.link.faults import FaultKind, LinkFault
from hwvirt.rig.cable import Cable, TcpCable
from hwvirt.rig.pty_line import PtyLine
from tests.link.link_rig import LinkRig, echo, play, soon, until
from tests.link.link_samples import write_of
from tests.link.serial.test_serial_endpoint import SerialRig, play_serial

_BAUD = 1_000_000
_PTY_BYTES = 3400
_CALM = LinkTiming(handshake_s=5, ping_s=0.1, silence_s=10, first_retry_s=0.01, last_retry_s=0.05)
"""Only what is really wrong ends a session, however busy the machine is."""


class Outcome(Enum):
    """What becomes of the session."""

    ENDS = "another one begins"
    COUNTS = "it counts what it has refused, and goes on"
    MENDS = "it goes on, and the line below has noticed"
    GOES_ON = "it goes on"
    EITHER = "it depends on what was just passing"


class Row(NamedTuple):
    """A fault, and what it does on Ethernet and on a serial line."""

    fault: LinkFault
    ethernet: Outcome
    serial: Outcome


def _for(kind: FaultKind, amount: float = 0.0) -> LinkFault:
    return LinkFault(kind, amount, for_s=0.3)


def _times(kind: FaultKind, count: int, amount: float = 0.0) -> LinkFault:
    return LinkFault(kind, amount, count=count)


ROWS = [
    Row(_for(FaultKind.CUT), Outcome.ENDS, Outcome.EITHER),
    Row(_for(FaultKind.HALF_OPEN), Outcome.ENDS, Outcome.EITHER),
    Row(_for(FaultKind.DELAY, 0.02), Outcome.GOES_ON, Outcome.GOES_ON),
    Row(_for(FaultKind.JITTER, 0.02), Outcome.GOES_ON, Outcome.GOES_ON),
    Row(_times(FaultKind.DROP, 2), Outcome.ENDS, Outcome.GOES_ON),
    Row(_times(FaultKind.DUPLICATE, 3), Outcome.COUNTS, Outcome.GOES_ON),
    Row(_times(FaultKind.REORDER, 1), Outcome.ENDS, Outcome.GOES_ON),
    Row(_times(FaultKind.TRUNCATE, 1, 20), Outcome.ENDS, Outcome.MENDS),
    Row(_times(FaultKind.FLIP, 2), Outcome.ENDS, Outcome.MENDS),
    Row(_times(FaultKind.GARBAGE, 1, 64), Outcome.ENDS, Outcome.GOES_ON),
    Row(_times(FaultKind.REPLAY, 2), Outcome.COUNTS, Outcome.GOES_ON),
    Row(_times(FaultKind.FORGE, 1), Outcome.ENDS, Outcome.ENDS),
    Row(_for(FaultKind.RATE, 200_000), Outcome.GOES_ON, Outcome.GOES_ON),
]

_each_fault = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.fault.kind.value)


def test_the_table_is_whole() -> None:
    assert [row.fault.kind for row in ROWS] == list(FaultKind)


class _Story:
    """Requests go to and fro over a cable, one after the other, while a fault strikes; each answer is the right one."""

    def __init__(self, cable: Cable, a: Endpoint, b: Endpoint) -> None:
        self.cable, self.a, self.b = cable, a, b
        self.heard: list[m.Request] = []
        b.on_request = self._answer
        self._asked = 0

    def _answer(self, request: m.Request, responder: Responder) -> None:
        self.heard.append(request)
        echo(request, responder)

    async def ask(self) -> None:
        """A write and a flush, again in the next session when one ends; the answers are those to these requests."""
        self._asked += 1
        for request, right in (
            (write_of(bytes([self._asked % 251]) * 512, sequence=self._asked), m.Written(1, [m.Placement(0, 1, 1)])),
            (m.Flush(self._asked), m.Flushed(self._asked)),
        ):
            while True:
                try:
                    assert await self.a.request(request) == right
                    break
                except LinkError:
                    await until(lambda: self.a.state is LinkState.UP)

    async def strike(self, fault: LinkFault) -> int:
        """Asks until the fault is over and after it: how many units it has struck."""
        if fault.kind is FaultKind.REPLAY:
            await self.ask()
            await self.another_session()
        await self.ask()
        strike = await self.cable.strike(fault, "b" if fault.kind is FaultKind.HALF_OPEN else None)

        async def to_its_end() -> None:
            await strike.over()
            await strike.end()

        over = asyncio.create_task(to_its_end())
        try:
            async with asyncio.timeout(15):
                while not over.done():
                    await self.ask()
        finally:
            over.cancel()
        for _ in range(3):
            await self.ask()
        return strike.struck

    async def another_session(self) -> None:
        assert self.a._live is not None
        self.a._live.end(LinkError("link: the test wants another session."))
        await until(lambda: self.a.statistics.reconnects == self.b.statistics.reconnects == 1)

    async def check(self, row: Row, outcome: Outcome) -> None:
        assert await self.strike(row.fault) >= (row.fault.count or 1)
        ended = self.a.statistics.reconnects - (row.fault.kind is FaultKind.REPLAY)
        if outcome is Outcome.ENDS:
            await until(lambda: self.a.statistics.reconnects > 0)
        elif outcome is not Outcome.EITHER:
            assert ended == 0
        if outcome is Outcome.COUNTS:
            await until(lambda: self.a.statistics.refused + self.b.statistics.refused >= (row.fault.count or 1))
        if outcome is Outcome.MENDS:
            assert self.a.line is not None
            assert self.b.line is not None
            noticed = [line.resent_segments + line.damaged_frames for line in (self.a.line, self.b.line)]
            assert sum(noticed) > 0
        sequences = [request.slices[0].sequence for request in self.heard if isinstance(request, m.Write)]
        assert sequences == sorted(sequences), "something came late"
        assert set(sequences) == set(range(1, self._asked + 1))


@_each_fault
def test_fault_on_ethernet(row: Row) -> None:
    async def story(rig: LinkRig) -> None:
        b = await rig.endpoint(Role.LISTEN, timing=_CALM)
        cable = TcpCable("a", "b", b.port, [row.fault.kind], seed=1)
        await cable.start()
        try:
            a = await rig.endpoint(Role.CONNECT, cable.port, timing=_CALM)
            await asyncio.gather(a.wait_up(soon()), b.wait_up(soon()))
            await _Story(cable, a, b).check(row, row.ethernet)
            await asyncio.gather(a.close(), b.close())
        finally:
            await cable.close()

    play(story)


@_each_fault
def test_fault_on_a_serial_line(row: Row) -> None:
    async def story(rig: SerialRig) -> None:
        cable = PtyLine("a", "b", [row.fault.kind], 1, _BAUD)
        await cable.start()
        try:
            ends: dict[str, Callable[[], Awaitable[Endpoint]]] = {
                name: lambda role=role, name=name: rig.end(  # type: ignore[misc]
                    role, cable.devices[name], _BAUD, timing=_CALM, buffer_bytes=_PTY_BYTES
                )
                for name, role in (("a", Role.CONNECT), ("b", Role.LISTEN))
            }
            b, a = await ends["b"](), await ends["a"]()
            await asyncio.gather(a.wait_up(soon()), b.wait_up(soon()))
            await _Story(cable, a, b).check(row, row.serial)
            await asyncio.gather(a.close(), b.close())
        finally:
            await cable.close()

    play_serial(story)
