"""A line on an open device: bytes to and fro, timers, and a Connection for each session of the line."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import TypeAlias

from hwvirt.buffers import Buffer
from hwvirt.errors import LinkError
from hwvirt.link.config import Compression, Role, SerialLink
from hwvirt.link.connection import Connection, Port
from hwvirt.link.errors import LinkDown
from hwvirt.link.ethernet import Backoff
from hwvirt.link.serial.line import Arrived, Line, LineUp, Lost, Misled
from hwvirt.link.serial.traits import LineStatistics, LineTraits
from hwvirt.link.serial.tty import Wire

__all__ = ["Connected", "Driver", "SerialPort", "nobody_answers"]

_UNSENT_MOST_S = 0.5
_UNSENT_LEAST_S = 0.25
"""Line time of unsent bytes from which requests wait, and below which they flow again."""
_LINGER_S = 1.0
_ROUNDING_S = 0.0005

Connected: TypeAlias = Callable[[Port, str], Connection]
"""Makes the Connection of a new session of the line; the text names the other end."""


class SerialPort:
    """One session of the line, as its Connection sees it."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def send(self, buffers: list[Buffer]) -> None:
        """See `Port`."""
        self._driver.send(self, buffers)

    def close(self) -> None:
        """See `Port`. Who does not take the rest in time (a second, or twice its line time) does without."""
        self._driver.close_port(self)


class Driver:
    """Runs a line on one device until that is gone. `gone` is then done, with the reason."""

    def __init__(
        self,
        link: SerialLink,
        backoff: Backoff,
        statistics: LineStatistics,
        connected: Connected,
        unreachable: Callable[[LinkError], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.gone_because: asyncio.Future[str] = self._loop.create_future()
        self._link = link
        self._backoff = backoff
        self._connected = connected
        self._unreachable = unreachable
        self._traits = LineTraits(
            link.baud,
            link.receive_buffer_bytes,
            link.compression is Compression.ZSTD,
            link.timing.first_retry_s,
            link.timing.last_retry_s,
            link.device,
        )
        self._line = Line(self._traits, secrets.randbelow(0xFFFF_FFFF) + 1, time.monotonic(), statistics)
        self._wire: Wire | None = None
        self._port: SerialPort | None = None  # while a session of the line is up
        self._connection: Connection | None = None  # until it has ended; what it sent may still be on its way
        self._paused = False
        self._linger_until = float("inf")
        self._silent_at = time.monotonic() + link.paced_timing.handshake_s
        self._timer: asyncio.TimerHandle | None = None
        self._due = float("inf")
        self._closing = False
        self._quiet = asyncio.Event()  # no session is up or lingers
        self._quiet.set()

    def run(self, wire: Wire) -> None:
        """Begins to greet, and to listen."""
        self._wire = wire
        self._pump()

    async def close(self, error: LinkError) -> None:
        """Ends the session, if any, and gives the device back when the rest was taken, or not in time."""
        self._closing = True
        if self._connection is not None:
            self._connection.end(error)
        await self._quiet.wait()
        wire, self._wire = self._wire, None
        if self._timer is not None:
            self._timer.cancel()
        if wire is not None:
            await wire.close()

    # The Connection's side

    def send(self, port: SerialPort, buffers: list[Buffer]) -> None:
        """See `Port`; nothing is sent for a session that is over."""
        if port is self._port:
            self._line.send(buffers)
            self._pump()

    def close_port(self, port: SerialPort) -> None:
        """See `SerialPort.close`."""
        if port is self._port and self._connection is not None:
            self._forget_connection()
            self._linger_until = time.monotonic() + max(_LINGER_S, 2 * self._traits.line_s(self._line.unsent_bytes))
            self._pump()

    # The wire's side

    def received(self, data: bytes) -> None:
        """See `WireOwner`."""
        for event in self._line.received(data, time.monotonic()):
            match event:
                case Arrived(piece):
                    self._deliver(piece)
                case LineUp():
                    self._begin_session()
                case Lost(error):
                    self._session_is_over(error)
                case Misled(error):
                    self._unreachable(error)
        self._pump()

    def writable(self) -> None:
        """See `WireOwner`."""
        self._pump()

    def gone(self, why: str) -> None:
        """See `WireOwner`."""
        if not self.gone_because.done():
            self.gone_because.set_result(why)
            self._wire = None
            self._session_is_over(LinkDown(f"link: {self._link.device} is gone: {why}.", next_step="Check the adapter."))

    # Sessions of the line

    def _begin_session(self) -> None:
        if self._line.up:  # an earlier event may have ended it already
            self._port, self._paused = SerialPort(self), False
            self._quiet.clear()
            self._connection = self._connected(self._port, self._link.device)

    def _deliver(self, data: Buffer) -> None:
        rest = memoryview(data)
        while rest and self._connection is not None:
            room = self._connection.writable()
            size_bytes = min(len(room), len(rest))
            room[:size_bytes] = rest[:size_bytes]
            self._connection.received(size_bytes)
            rest = rest[size_bytes:]

    def _session_is_over(self, error: LinkError) -> None:
        self._port, self._linger_until = None, float("inf")
        self._silent_at = time.monotonic() + self._link.paced_timing.handshake_s
        self._quiet.set()
        if (connection := self._forget_connection()) is not None:
            connection.end(error)

    def _forget_connection(self) -> Connection | None:
        connection, self._connection = self._connection, None
        if connection is not None and connection.session.peer is not None:
            self._backoff.reset()
        return connection

    # Time

    def _pump(self) -> None:
        """Does what is due, and sets the timer for the next time."""
        now, line, wire = time.monotonic(), self._line, self._wire
        if now >= self._linger_until or (line.idle and self._linger_until < float("inf")):
            self._session_is_over(LinkDown("link: closed by this controller."))
            # The side that connects sets the pace: the other one greets at once and waits.
            line.restart(now + self._backoff.next_s() if self._link.role is Role.CONNECT else now)
        if now >= self._silent_at:
            self._silent_at = float("inf")
            if not line.up:
                self._unreachable(nobody_answers(self._link.device))
        if wire is None or (self._closing and self._port is None):
            return
        if not wire.busy and (data := line.outgoing(now)):
            wire.write(data)
        self._hold_or_let_go()
        due = min(self._silent_at, self._linger_until)
        self._arm(due if wire.busy else min(due, line.next_deadline()), now)

    def _hold_or_let_go(self) -> None:
        if self._connection is None:
            return
        unsent_s = self._traits.line_s(self._line.unsent_bytes)
        if not self._paused and unsent_s > _UNSENT_MOST_S:
            self._paused = True
            self._connection.pause()
        elif self._paused and unsent_s < _UNSENT_LEAST_S:
            self._paused = False
            self._connection.resume()

    def _arm(self, due: float, now: float) -> None:
        if due == self._due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        # uvloop rounds to milliseconds, and too early would be for nothing.
        self._timer = self._loop.call_later(max(0.0, due - now) + _ROUNDING_S, self._tick) if due < float("inf") else None

    def _tick(self) -> None:
        self._due = float("inf")
        self._pump()


def nobody_answers(device: str) -> LinkError:
    """Nothing came that a peer says."""
    return LinkError(
        f"link: nobody answers on {device}.", next_step="Start the other controller; check cable and baud rate."
    )
