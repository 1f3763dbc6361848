"""The stages of one direction of a cable: each does one kind of fault to the units that pass, and nothing until struck.

Pure: time is an argument, chance is a seeded generator. The order of `STAGES` is the order in which data meets them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import ClassVar, NamedTuple

from typing_extensions import override

from hwvirt.link.baud import BITS_OF_A_BYTE
from hwvirt.link.faults.forgery import Memory
from hwvirt.link.faults.model import FaultKind, LinkFault, Medium

__all__ = ["STAGES", "Stage", "Strike", "Surroundings", "Unit"]

_THROTTLED_RUN_S = 0.001
_LEAST_RUN_BYTES = 64


class Unit(NamedTuple):
    """Bytes on their way, and when they arrive."""

    data: bytes
    due: float


class Strike:
    """A fault at work, in one lane or in several together. `struck` counts the units that it has hit."""

    def __init__(self, fault: LinkFault, now: float, spared: int = 0) -> None:
        self.fault = fault
        self.until = float("inf") if fault.for_s is None else now + fault.for_s
        self.left = float("inf") if fault.count is None else fault.count
        self.struck = 0
        self.spared = spared  # units that still pass untouched

    def is_over(self, now: float) -> bool:
        """Whether it has done what it was told."""
        return self.left <= 0 or now >= self.until

    def withdraw(self) -> None:
        """It strikes no more."""
        self.left = 0


class Surroundings(NamedTuple):
    """What the stages of one direction share. `memory` has seen what passes before they do."""

    chance: random.Random
    medium: Medium
    memory: Memory


class Stage:
    """One kind of fault in one direction."""

    kind: ClassVar[FaultKind]

    def __init__(self, around: Surroundings) -> None:
        self.chance, self.medium, self.memory = around
        self._strikes: list[Strike] = []

    def add(self, strike: Strike) -> None:
        """One more fault of this kind is at work; it goes before those that are, which may stand for good."""
        self._strikes.insert(0, strike)

    def active_until(self, now: float) -> float:
        """When the last fault that is at work ends; 0 where none is."""
        return max((strike.until for strike in self._strikes if not strike.is_over(now)), default=0.0)

    def through(self, unit: Unit, now: float) -> Iterable[Unit]:
        """What comes out where `unit` went in."""
        if not self._strikes:
            return self.untouched(unit)
        self._strikes = [strike for strike in self._strikes if not strike.is_over(now)]
        for strike in self._strikes:
            if strike.spared:
                strike.spared -= 1
            elif self.fits(unit, strike.fault):
                strike.left -= 1
                strike.struck += 1
                return self.struck(unit, strike.fault.amount)
        return self.untouched(unit)

    def fits(self, unit: Unit, fault: LinkFault) -> bool:
        """Whether the fault can strike this unit; else it waits for another one."""
        return True

    def struck(self, unit: Unit, amount: float) -> Iterable[Unit]:
        """What the fault makes of the unit."""
        raise NotImplementedError

    def untouched(self, unit: Unit) -> Iterable[Unit]:
        """What comes out when no fault strikes: the unit."""
        return (unit,)

    def begin_connection(self) -> None:
        """What belongs to a connection belongs to a new one from now on."""


class _Cut(Stage):
    kind = FaultKind.CUT

    @override
    def struck(self, unit: Unit, amount: float) -> Iterable[Unit]:
        return ()


class _HalfOpen(_Cut):
    kind = FaultKind.HALF_OPEN


class _Drop(_Cut):
    kind = FaultKind.DROP


class _Delay(Stage):
    kind = FaultKind.DELAY

    @override
    def struck(self, unit: Unit, amount: float) -> Iterable[Unit]:
        return (unit._replace(due=unit.due + amount),)


class _Jitter(Stage):
    kind = FaultKind.JITTER

    @override
    def struck(self, unit: Unit, amount: float) -> Iterable[Unit]:
        return (unit._replace(due=unit.due + amount * self.chance.random()),)


class _Duplicate(Stage):
    kind = FaultKind.DUPLICATE

    @override
    def struck(self, unit: Unit, amount: float) -> Iterable[Unit]:
        return (unit, unit)


class _Reorder(Stage):
    kind = FaultKind.REORDER

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._held: list[Unit] = []

    @override
    def fits(self, unit: Unit, fault: LinkFault) -> bool:
        return not self._held

    @override
    def struck(self, unit: Unit, amount: float) -> Iterable[Unit]:
        self._held = [unit]
        return ()

    @override
    def untouched(self, unit: Unit) -> Iterable[Unit]:
        held, self._held = self._held, []
        return (unit, *(late._replace(due=unit.due) for late in held))

    @override
    def begin_connection(self) -> None:
        self._held = []


class _Truncate(Stage):
    kind = FaultKind.TRUNCATE

    @override
    def fits(self, unit: Unit, fault: LinkFault) -> bool:
        return len(unit.data) > fault.amount

    @override
    def struck(self, unit: Unit, amount: float) -> Iterable[Unit]:
        return (unit._replace(data=unit.data[: int(amount)]),)


class _Flip(Stage):
    kind = FaultKind.FLIP

    @override
    def struck(self, unit: Unit, amount: float) -> Iterable[Unit]:
        bit = self.chance.randrange(8 * len(unit.data))
        damaged = bytearray(unit.data)
        damaged[bit // 8] ^= 1 << bit % 8
        return (unit._replace(data=bytes(damaged)),)


class _Garbage(Stage):
    kind = FaultKind.GARBAGE

    @override
    def struck(self, unit: Unit, amount: float) -> Iterable[Unit]:
        return (unit._replace(data=self.chance.randbytes(int(amount))), unit)


class _Replay(Stage):
    kind = FaultKind.REPLAY

    @override
    def fits(self, unit: Unit, fault: LinkFault) -> bool:
        return bool(self.memory.former)

    @override
    def struck(self, unit: Unit, amount: float) -> Iterable[Unit]:
        return (unit._replace(data=self.chance.choice(self.memory.former)), unit)


class _Forge(Stage):
    kind = FaultKind.FORGE

    @override
    def fits(self, unit: Unit, fault: LinkFault) -> bool:
        return self.memory.forged(unit.data) is not None

    @override
    def struck(self, unit: Unit, amount: float) -> Iterable[Unit]:
        return (unit._replace(data=self.memory.forged(unit.data) or b""), unit)


class _Rate(Stage):
    """Cuts what passes in a stream into short runs, so that a long frame comes in bit by bit as on a line."""

    kind = FaultKind.RATE

    def __init__(self, around: Surroundings) -> None:
        super().__init__(around)
        self._free_at = 0.0
        self._bits = BITS_OF_A_BYTE if self.medium is Medium.LINE else 8

    @override
    def add(self, strike: Strike) -> None:
        """The slowest of those that are at work holds, so it goes first."""
        super().add(strike)
        self._strikes.sort(key=lambda one: one.fault.amount)

    @override
    def struck(self, unit: Unit, amount: float) -> Iterable[Unit]:
        run_bytes = max(_LEAST_RUN_BYTES, int(amount / self._bits * _THROTTLED_RUN_S))
        if self.medium is Medium.PACKETS:
            run_bytes = len(unit.data)
        runs = []
        self._free_at = max(self._free_at, unit.due)
        for start in range(0, len(unit.data), run_bytes):
            run = unit.data[start : start + run_bytes]
            self._free_at += len(run) * self._bits / amount
            runs.append(Unit(run, self._free_at))
        return runs


STAGES: tuple[type[Stage], ...] = (
    _Cut,
    _HalfOpen,
    _Delay,
    _Jitter,
    _Drop,
    _Duplicate,
    _Reorder,
    _Truncate,
    _Flip,
    _Garbage,
    _Replay,
    _Forge,
    _Rate,
)
