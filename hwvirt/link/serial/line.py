"""A reliable stream over a serial line, pure: bytes and time in, bytes and events out.

Rule 1: bytes arrive once, in order, or the session of the line ends: a restart of either end is never papered over.
Rule 2: what may lie unread at the other end never exceeds its buffer (`sender`).
Rule 3: no more is handed out than the line carries in a moment, so that answers and repetitions do not wait behind data.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from hwvirt.buffers import Buffer
from hwvirt.errors import LinkError, PeerError
from hwvirt.link.errors import LinkDown, WrongVersion
from hwvirt.link.serial.frames import KNOCK, VERSION, FrameReader, Hello, HelloFlag, Packet, seed_of, write_hello
from hwvirt.link.serial.greeting import Greeting, News
from hwvirt.link.serial.stream import Stream
from hwvirt.link.serial.traits import LineStatistics, LineTraits

__all__ = ["BUFFER_LEAST_BYTES", "Arrived", "Line", "LineEvent", "LineUp", "Lost", "Misled"]

BUFFER_LEAST_BYTES = 1024
_AHEAD_S = 0.04
"""So much line time is handed out at most, and then one frame: a timer may be that late before the line stands still."""
_REFILL_S = 0.03
_HELLO_TIMES = 4
_HELLO_BYTES = 22


class LineUp(NamedTuple):
    """A session begins: bytes flow both ways."""


class Arrived(NamedTuple):
    """The next bytes of the session."""

    data: Buffer


class Lost(NamedTuple):
    """The session is over; the line greets anew by itself."""

    error: LinkError


class Misled(NamedTuple):
    """Somebody is there, but no peer: why no session begins."""

    error: PeerError


LineEvent: TypeAlias = LineUp | Arrived | Lost | Misled


class Line:
    """One end of a line, for as long as it is open. `own`: a number other than zero that differs after each start."""

    def __init__(self, traits: LineTraits, own: int, now: float, statistics: LineStatistics | None = None) -> None:
        self.statistics = statistics or LineStatistics()
        self.traits = traits
        first_s = max(traits.first_retry_s, _HELLO_TIMES * traits.line_s(_HELLO_BYTES))
        self._greeting = Greeting(own, now, first_s, max(first_s, traits.last_retry_s))
        self._reader = FrameReader()
        self._free_at = now
        self._peer_hello: Hello | None = None
        self._session: Stream | None = None

    # The upper side

    @property
    def up(self) -> bool:
        """Whether bytes flow."""
        return self._session is not None

    @property
    def unsent_bytes(self) -> int:
        """Bytes that were given to `send` and have not been handed out once."""
        return self._session.unsent_bytes if self._session else 0

    @property
    def idle(self) -> bool:
        """Whether all that was sent has arrived, or never will."""
        return self._session is None or self._session.idle

    def send(self, buffers: list[Buffer]) -> None:
        """Sends all, in order; lost when the line is not up. They must not change until they have left."""
        if self._session is not None:
            self._session.send(buffers)

    def restart(self, at: float) -> None:
        """Ends the session, if any, at both ends; greets again from `at` on."""
        self._session = self._reader.seed = None
        self._greeting.begin_anew(at)

    # The wire's side

    def received(self, data: bytes, now: float) -> list[LineEvent]:
        """Bytes came from the wire, at most 64 KiB; what they meant."""
        events: list[LineEvent] = []
        self.statistics.received_bytes += len(data)
        self._greeting.heard_something(now)
        for raw in self._reader.closed(data):
            frame = self._reader.read(raw)
            if frame is not None:
                self.statistics.received_frames += 1
                if isinstance(frame, Hello):
                    self._take_hello(frame, now, events)
                else:
                    self._take_packet(frame, len(raw) + 2, now, events)
        self.statistics.damaged_frames += self._reader.take_damaged()
        return events

    def outgoing(self, now: float) -> bytes:
        """What to write to the wire now."""
        out = []
        while self._free_at - now < _AHEAD_S:
            gone_from = max(self._free_at, now)
            frame = self._next_frame(now, gone_from)
            if frame is None:
                break
            self._free_at = gone_from + self.traits.line_s(len(frame))
            out.append(frame)
        data = b"".join(out)
        self.statistics.sent_bytes += len(data)
        self.statistics.sent_frames += len(out)
        return data

    def next_deadline(self) -> float:
        """When to ask for `outgoing` again, if nothing happens before."""
        wanted = self._greeting.sign_at()
        if self._session is not None:
            wanted = min(wanted, self._session.wants_at())
        return max(wanted, self._free_at - _REFILL_S)

    # Inside

    def _take_hello(self, hello: Hello, now: float, events: list[LineEvent]) -> None:
        if objection := self._objection(hello):
            if self._session is None:
                events.append(Misled(objection))
            return
        news = self._greeting.heard(hello, now)
        if news is News.LOST:
            self._end(events, LinkDown(f"link: the other controller on {self.traits.place} has begun anew."))
        if hello.own == self._greeting.peer and self._session is None:
            self._peer_hello = hello
            self._reader.seed = seed_of(hello.own, self._greeting.own)
        if news is News.UP:
            self._begin(hello, events)

    def _objection(self, hello: Hello) -> PeerError | None:
        place = self.traits.place
        if hello.version != VERSION:
            why = f"link: {place} speaks version {hello.version} of the line, this controller version {VERSION}."
            return WrongVersion(why, next_step="Run the same hwvirt on both sides.")
        if hello.own == self._greeting.own:
            why = f"link: on {place} this controller hears itself."
            return PeerError(why, next_step="Take the loop off, or connect the other controller.")
        if not hello.own or hello.buffer_bytes < BUFFER_LEAST_BYTES:
            return PeerError(f"link: {place} sent a hello that cannot be used.")
        return None

    def _begin(self, hello: Hello, events: list[LineEvent]) -> None:
        seed = seed_of(self._greeting.own, hello.own)
        self._session = Stream(self.traits, hello, seed, _AHEAD_S, self.statistics)
        events.append(LineUp())

    def _end(self, events: list[LineEvent], error: LinkError) -> None:
        if self._session is not None:
            self._session = None
            events.append(Lost(error))

    def _take_packet(self, packet: Packet, size_bytes: int, now: float, events: list[LineEvent]) -> None:
        if self._greeting.heard_packet() and self._peer_hello is not None:
            self._begin(self._peer_hello, events)
        assert self._session is not None  # packets are read from the first hello of a peer on
        try:
            events += [Arrived(data) for data in self._session.take(packet, size_bytes, now)]
        except PeerError as error:
            self.restart(now)
            events.append(Lost(error))

    def _next_frame(self, now: float, gone_from: float) -> bytes | None:
        if self._greeting.sign_at() <= now:
            said = self._greeting.sign(now)
            if said is None:
                return KNOCK
            echo, up = said
            flags = HelloFlag.UP * up | HelloFlag.ZSTD * self.traits.packs | HelloFlag.ZEROES
            return write_hello(Hello(VERSION, HelloFlag(flags), self._greeting.own, echo, self.traits.buffer_bytes))
        return self._session.next_frame(now, gone_from) if self._session else None
