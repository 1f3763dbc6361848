"""Two ends of a line and the wires between them, in virtual time: paced bits, faults, and a tty that must not overflow."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from hwvirt.link.baud import line_s
from hwvirt.link.serial.line import Arrived, Line, LineEvent, LineUp, Lost
from hwvirt.link.serial.traits import LineTraits

__all__ = ["Bench", "End", "Program", "Spoil", "Wire", "frames_in", "losing", "traits"]

_GRAIN_BYTES = 64
_TIMER_S = 0.001

Spoil = Callable[[bytes], list[bytes]]
"""What becomes of one frame on its way: none, itself, another, several."""


def traits(**changes: object) -> LineTraits:
    values = {
        "baud": 115_200,
        "buffer_bytes": 3400,
        "packs": False,
        "first_retry_s": 0.05,
        "last_retry_s": 2.0,
        "place": "the line",
    }
    return LineTraits(**(values | changes))  # type: ignore[arg-type]  # a test names what it changes


def frames_in(data: bytes) -> list[bytes]:
    """The frames and knocks of what an end hands out."""
    found, start = [], 0
    while start < len(data):
        end = data.find(b"\0", start + 1)
        whole = end > start + 1
        found.append(data[start : end + 1] if whole else data[start : start + 1])
        start += len(found[-1])
    return found


@dataclass
class Wire:
    """One direction: what an end writes leaves at the baud rate, and arrives in grains, as from a UART's FIFO."""

    baud: int
    spoil: Spoil | None = None
    up: bool = True
    free_at: float = 0.0
    carried_bytes: int = 0

    def write(self, data: bytes, now: float) -> list[tuple[float, bytes]]:
        """When which bytes arrive."""
        arrivals = []
        for frame in frames_in(data):
            for piece in [frame] if self.spoil is None else self.spoil(frame):
                for start in range(0, len(piece), _GRAIN_BYTES):
                    grain = piece[start : start + _GRAIN_BYTES]
                    self.free_at = max(self.free_at, now) + line_s(len(grain), self.baud)
                    self.carried_bytes += len(grain)
                    arrivals.append((self.free_at, grain))
        return arrivals


class Program(Protocol):
    """What runs on a line."""

    def event(self, event: LineEvent, now: float) -> None: ...

    def deadline(self) -> float: ...

    def tick(self, now: float) -> None: ...


@dataclass
class End:
    """A line's end, its program, and its tty: `unread` is what lies there; past `dies_at` the tty is dead for ever."""

    line: Line
    wire: Wire
    dies_at: int
    number: int
    unread: bytearray = field(default_factory=bytearray)
    most_unread: int = 0
    dead: bool = False
    stalled: bool = False
    got: bytearray = field(default_factory=bytearray)
    events: list[LineEvent] = field(default_factory=list)
    program: Program | None = None

    @property
    def ups(self) -> int:
        return sum(isinstance(event, LineUp) for event in self.events)

    @property
    def losses(self) -> int:
        return sum(isinstance(event, Lost) for event in self.events)


class Bench:
    """Ends a and b. Time is `now`; nothing happens but in `run`."""

    def __init__(self, mine: LineTraits | None = None, theirs: LineTraits | None = None, baud: int = 0) -> None:
        mine = mine or traits()
        theirs = theirs or mine
        self.now = 0.0
        self._order = count()
        self._coming: list[tuple[float, int, End, bytes]] = []
        self.a = self._end(mine, 0x0A000000, baud)
        self.b = self._end(theirs, 0x0B000000, baud)

    @property
    def ends(self) -> tuple[End, End]:
        return self.a, self.b

    def _end(self, of: LineTraits, own: int, baud: int) -> End:
        return End(Line(of, own, 0.0), Wire(baud or of.baud), of.buffer_bytes, own)

    def other(self, end: End) -> End:
        return self.b if end is self.a else self.a

    def inject(self, to: End, data: bytes) -> None:
        """Bytes that nobody sent arrive now."""
        self._arrive(to, data)

    def replace(self, end: End, of: LineTraits | None = None) -> None:
        """The program at that end is started again; its tty keeps what lies there."""
        end.number += 0x10000
        end.line = Line(of or traits(), end.number, self.now)
        end.stalled = False
        self._read(end)

    def start(self) -> None:
        """Both ends are up."""
        assert self.run(5.0, lambda: self.a.line.up and self.b.line.up)

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Time passes; True as soon as `until` holds."""
        stop = self.now + seconds
        self._pump()
        while not until():
            due = self._next()
            if due > stop:
                self.now = stop
                return until()
            self.now = max(self.now, due)
            while self._coming and self._coming[0][0] <= self.now:
                _, _, end, data = heapq.heappop(self._coming)
                self._arrive(end, data)
            self._pump()
        return True

    def _next(self) -> float:
        timers = [end.line.next_deadline() for end in self.ends if not end.stalled and not end.dead]
        timers += [end.program.deadline() for end in self.ends if end.program is not None and not end.stalled]
        # A timer fires at the next tick, as that of an event loop.
        timer = min(timers, default=float("inf"))
        late = timer if timer == float("inf") else max(self.now, timer) // _TIMER_S * _TIMER_S + _TIMER_S
        return min(late, self._coming[0][0] if self._coming else float("inf"))

    def _pump(self) -> None:
        for end in self.ends:
            if end.stalled:
                continue
            if end.program is not None and end.program.deadline() <= self.now:
                end.program.tick(self.now)
            data = end.line.outgoing(self.now)
            if data and end.wire.up:
                other = self.other(end)
                for at, grain in end.wire.write(data, self.now):
                    heapq.heappush(self._coming, (at, next(self._order), other, grain))

    def _arrive(self, end: End, data: bytes) -> None:
        if end.dead:
            return
        end.unread += data
        end.most_unread = max(end.most_unread, len(end.unread))
        if len(end.unread) > end.dies_at:
            end.dead = True
        elif not end.stalled:
            self._read(end)

    def wake(self, end: End) -> None:
        end.stalled = False
        self._read(end)

    def _read(self, end: End) -> None:
        data, end.unread = bytes(end.unread), bytearray()
        if not data:
            return
        for event in end.line.received(data, self.now):
            if isinstance(event, Arrived):
                end.got += event.data
            else:
                end.events.append(event)
            if end.program is not None:
                end.program.event(event, self.now)


def losing(rate: float, seed: int) -> Spoil:
    """Loses that part of the frames."""
    chance = random.Random(seed)
    return lambda frame: [] if chance.random() < rate else [frame]
