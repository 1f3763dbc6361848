"""The cable between the two controllers of a rig, in the runner's hands: a relay that does what the rig's link faults say.

What a fault does to bytes is in `hwvirt.link.faults`. Here is the I/O around it: `Cable` holds a lane for each direction
and the faults that are at work, `TcpCable` carries connections. Another kind of line is another subclass.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

from typing_extensions import override

from hwvirt.link.faults import Blow, Cutter, FaultKind, Flow, Frames, Lanes, LinkFault, Medium, Memory, Remembered, Runs
from hwvirt.rig.file.model import Ethernet, Rig
from hwvirt.rig.file.scenario import StrikeLink, Workload

__all__ = ["Cable", "LinkStrike", "TcpCable", "cable_of", "strikes_of"]

_CHUNK_BYTES = 1 << 18
_WAITING_BYTES = 4 << 20
"""With more than this under way in one direction, its sender has to wait."""
_BY_TIME_ONLY = {FaultKind.CUT, FaultKind.DELAY, FaultKind.RATE}


def cable_of(rig: Rig, dialler: str, far_port: int) -> TcpCable | None:
    """The cable that a rig needs; None where nothing is ever wrong with the link, and the controllers need no relay."""
    standing = rig.link.standing if isinstance(rig.link, Ethernet) else ()
    kinds = {fault.kind for fault in standing} | strikes_of(rig)
    if not kinds:
        return None
    (listener,) = (name for name in rig.controllers if name != dialler)
    return TcpCable(dialler, listener, far_port, kinds, rig.seed, standing)


def strikes_of(rig: Rig) -> set[FaultKind]:
    """The faults of the link that steps of the rig fire."""
    return {
        fault.action.fault.kind
        for scenario in rig.scenarios
        for step in scenario.steps
        for fault in (step.faults if isinstance(step, Workload) else ())
        if isinstance(fault.action, StrikeLink)
    }


class LinkStrike:
    """A fault of the link at work; `over` waits for its end, `end` is its end. `struck` counts frames that it has hit."""

    def __init__(self, blow: Blow, ended: Callable[[], None]) -> None:
        self._blow = blow
        self._ended = ended
        self._worked_off = asyncio.Event()

    async def over(self) -> None:
        """Returns when the time of the fault is over, or all its frames were hit."""
        if self._blow.fault.for_s is not None:
            await asyncio.sleep(self._blow.fault.for_s)  # the fault itself, not a wait
        else:
            await self._worked_off.wait()

    def look(self, now: float) -> None:
        """Something has passed."""
        if self._blow.is_over(now):
            self._worked_off.set()

    @property
    def struck(self) -> int:
        """How many frames it has hit so far."""
        return self._blow.struck

    async def end(self) -> None:
        """It strikes no more; after a cut connections are reset. Idempotent."""
        self._blow.withdraw()
        self._ended()


class Cable:
    """The lanes between controller `dialler`, which connects, and `listener`: see `Lanes`."""

    medium = Medium.STREAM
    remembers: Callable[[], Memory] = Remembered

    def __init__(
        self, dialler: str, listener: str, kinds: Collection[FaultKind], seed: int, standing: Iterable[LinkFault] = ()
    ) -> None:
        self.lanes = Lanes((dialler, listener), kinds, seed, standing, self.medium, self.remembers)
        self._listener = listener
        self._frames = not _BY_TIME_ONLY.issuperset(kinds)
        self._at_work: list[LinkStrike] = []
        self._cuts = 0

    async def strike(self, fault: LinkFault, toward: str | None) -> LinkStrike:
        """The fault is at work from now on: on what goes to that controller, or (None) on what passes next in any direction.

        A cut comes at the worst moment: what is just on its way to the listener still arrives, and its replies are lost.
        """
        cut = fault.kind is FaultKind.CUT
        self._cuts += cut
        blow = self.lanes.strike(fault, toward, time.monotonic(), sparing=self._listener if cut else None)
        strike = LinkStrike(blow, lambda: self._ended(strike, fault))
        self._at_work.append(strike)
        return strike

    def _ended(self, strike: LinkStrike, fault: LinkFault) -> None:
        if strike in self._at_work:
            self._at_work.remove(strike)
            if fault.kind is FaultKind.CUT:
                self._cuts -= 1
                self.reset()

    @property
    def is_cut(self) -> bool:
        """Whether nothing passes."""
        return self._cuts > 0

    def reset(self) -> None:
        """A cut has healed: what was under way is lost, and connections with it."""

    def flow(self, toward: str) -> Flow:
        """The way of one connection's bytes to that controller."""
        cutter: Cutter = Frames() if self._frames else Runs()
        return Flow(self.lanes.toward[toward], cutter)

    def passed(self, now: float) -> None:
        """Something went into a lane: faults that end by count may have ended."""
        for strike in self._at_work:
            strike.look(now)


class TcpCable(Cable):
    """An Ethernet cable: connections to `port` go on to 127.0.0.1:`far_port`, where the listener is.

    It is silent about its faults, as a pulled cable is: while a direction is dead, its connections stay open.
    """

    def __init__(
        self,
        dialler: str,
        listener: str,
        far_port: int,
        kinds: Collection[FaultKind],
        seed: int,
        standing: Iterable[LinkFault] = (),
    ) -> None:
        super().__init__(dialler, listener, kinds, seed, standing)
        self._toward = (listener, dialler)
        self._far_port = far_port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> None:
        """Listens on a free port."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Ends all connections. Idempotent."""
        if self._server is not None:
            self._server.close()
        self.reset()
        await asyncio.gather(*self._connections, return_exceptions=True)

    @override
    def reset(self) -> None:
        for connection in tuple(self._connections):
            connection.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        try:
            if self.is_cut:
                await asyncio.Event().wait()  # nothing gets through, until the reset
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._far_port)
            there, back = (self.flow(name) for name in self._toward)
            try:
                await self._carry_both(_Strand(self, there, reader, far_writer), _Strand(self, back, far_reader, writer))
            finally:
                far_writer.transport.abort()
        except (OSError, asyncio.CancelledError):
            pass  # the far end is not there, or the cable was cut
        finally:
            self._connections.discard(connection)
            writer.transport.abort()

    async def _carry_both(self, there: _Strand, back: _Strand) -> None:
        """Returns when one end has closed and the other one would have heard of it."""
        carrying = [asyncio.ensure_future(there.carry()), asyncio.ensure_future(back.carry())]
        try:
            await asyncio.wait(carrying, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in carrying:
                one.cancel()
            await asyncio.gather(*carrying, return_exceptions=True)


class _Strand:
    """One direction of one connection."""

    def __init__(self, cable: Cable, flow: Flow, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._cable = cable
        self._flow = flow
        self._reader = reader
        self._writer = writer
        self._room = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    async def carry(self) -> None:
        """Returns when the sender has closed, all it sent has arrived, and the receiver would hear that it has closed."""
        try:
            with suppress(OSError):  # it has closed by force
                await self._carry_bytes()
            now = time.monotonic()
            await asyncio.sleep(self._flow.closes_at(now) - now)
            self._deliver()
        finally:
            self._cancel_timer()

    async def _carry_bytes(self) -> None:
        while data := await self._reader.read(_CHUNK_BYTES):
            now = time.monotonic()
            self._flow.send(data, now)
            self._cable.passed(now)
            self._deliver()
            try:
                await self._writer.drain()
            except OSError:
                await asyncio.Event().wait()  # the receiver has closed: the sender hears of it from the other direction
            while self._flow.waiting_bytes > _WAITING_BYTES:
                self._room.clear()
                await self._room.wait()

    def _deliver(self) -> None:
        """Sends on what has come out, and comes back for the rest."""
        self._cancel_timer()
        now = time.monotonic()
        if out := self._flow.arrived(now):
            self._room.set()
            if not self._writer.is_closing():
                self._writer.writelines(out)
        if self._flow.waiting_bytes:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._flow.next_due() - now, self._deliver)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
