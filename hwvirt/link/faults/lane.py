"""One direction of a cable: its stages, and what is under way on each connection. Bytes and time in, bytes out."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Collection, Sequence

from hwvirt.link.faults.forgery import Memory, Remembered
from hwvirt.link.faults.model import SEALED, FaultKind, Medium
from hwvirt.link.faults.stages import STAGES, Strike, Surroundings, Unit
from hwvirt.link.faults.units import Cutter

__all__ = ["Flow", "Lane"]

_SILENT = (FaultKind.CUT, FaultKind.HALF_OPEN)


class Lane:
    """The stages of one direction. They outlast connections: a fault that is at work strikes the next one too.

    `kinds` are the faults that can strike here; the same `seed` draws the same bits and bytes. `memory` is that of whoever
    forges and replays here.
    """

    def __init__(
        self,
        kinds: Collection[FaultKind],
        seed: str,
        medium: Medium = Medium.STREAM,
        memory: Memory | None = None,
    ) -> None:
        around = Surroundings(random.Random(seed), medium, memory or Remembered())
        self._memory = None if SEALED.isdisjoint(kinds) else around.memory
        self._stages = {stage.kind: stage(around) for stage in STAGES if stage.kind in kinds}
        self._chain = list(self._stages.values())

    def add(self, strike: Strike) -> None:
        """The fault is at work here from now on. Raises KeyError for a kind that is not of this lane."""
        self._stages[strike.fault.kind].add(strike)

    def silent_until(self, now: float) -> float:
        """When something passes again; `now` where it does."""
        return max(now, *(self._stages[kind].active_until(now) for kind in _SILENT if kind in self._stages), 0.0)

    def begin_connection(self) -> None:
        """A new connection begins: nothing that a former one sent comes out of it."""
        for stage in self._chain:
            stage.begin_connection()

    def through(self, data: bytes, now: float) -> Sequence[Unit]:
        """What comes out at the other end where the unit `data` goes in now, and when."""
        if self._memory is not None:
            self._memory.see(data)
        units: Sequence[Unit] = (Unit(data, now),)
        for stage in self._chain:
            units = [out for unit in units for out in stage.through(unit, now)]
        return units


class Flow:
    """The bytes of one connection on their way through a lane. What goes in first comes out first, unless reordered."""

    def __init__(self, lane: Lane, cutter: Cutter) -> None:
        self._lane = lane
        self._cutter = cutter
        self._under_way: deque[Unit] = deque()
        self._last_due = 0.0
        self.waiting_bytes = 0
        lane.begin_connection()

    def send(self, data: bytes, now: float) -> None:
        """`data` goes in."""
        for whole in self._cutter.cut(data):
            for unit in self._lane.through(whole, now):
                self._last_due = max(self._last_due, unit.due)
                self._under_way.append(unit._replace(due=self._last_due))
                self.waiting_bytes += len(unit.data)

    def arrived(self, now: float) -> list[bytes]:
        """Takes what has come out by now."""
        out = []
        while self._under_way and self._under_way[0].due <= now:
            out.append(self._under_way.popleft().data)
        self.waiting_bytes -= sum(map(len, out))
        return out

    def closes_at(self, now: float) -> float:
        """When the other end hears of it that the connection was closed now: behind all that went in, and not in silence."""
        return max(self._last_due, self._lane.silent_until(now))

    def next_due(self) -> float:
        """When `arrived` has something; infinity when nothing is under way."""
        return self._under_way[0].due if self._under_way else float("inf")
