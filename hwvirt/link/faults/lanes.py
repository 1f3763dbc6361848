"""The two directions of one cable, and faults that are at work in one of them or in both. Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from hwvirt.link.faults.forgery import Memory, Remembered
from hwvirt.link.faults.lane import Lane
from hwvirt.link.faults.model import FaultKind, LinkFault, Medium
from hwvirt.link.faults.stages import Strike

__all__ = ["Blow", "Lanes"]


class Blow:
    """One fault at work on a cable, until its time is over, its units were hit, or it is withdrawn."""

    def __init__(self, fault: LinkFault, strikes: Collection[Strike]) -> None:
        self.fault = fault
        self._strikes = strikes

    def is_over(self, now: float) -> bool:
        """Whether it has done what it was told, in every direction."""
        return all(strike.is_over(now) for strike in self._strikes)

    @property
    def until(self) -> float:
        """When its time is over; infinity for one that ends by its units, or stands for good."""
        return max((strike.until for strike in self._strikes), default=0.0)

    def withdraw(self) -> None:
        """It strikes no more. Idempotent."""
        for strike in self._strikes:
            strike.withdraw()

    @property
    def struck(self) -> int:
        """How many units it has hit so far."""
        return sum(strike.struck for strike in self._strikes)


class Lanes:
    """A lane for each of the two ends, by the name of the end that it leads to; `kinds` are the faults that can strike.

    `standing` faults are at work all the time. The same `seed` draws the same bits and bytes. `remembers` makes the memory
    of whoever forges and replays in one direction.
    """

    def __init__(
        self,
        ends: Iterable[str],
        kinds: Collection[FaultKind],
        seed: int,
        standing: Iterable[LinkFault] = (),
        medium: Medium = Medium.STREAM,
        remembers: Callable[[], Memory] = Remembered,
    ) -> None:
        standing = tuple(standing)
        possible = {*kinds, *(fault.kind for fault in standing)}
        self.toward: Mapping[str, Lane] = {
            name: Lane(possible, f"{seed} to {name}", medium, remembers()) for name in ends
        }
        for fault in standing:
            for lane in self.toward.values():
                lane.add(Strike(fault, 0.0))

    def strike(self, fault: LinkFault, toward: str | None, now: float, sparing: str | None = None) -> Blow:
        """The fault is at work from now on: on what goes to that end, or (None) on what passes next in any direction.

        One unit on its way to the end `sparing` still passes. Raises KeyError for a kind that is not of this cable.
        """
        shared = Strike(fault, now)
        strikes = []
        for name, lane in self.toward.items():
            if toward in (None, name):
                strikes.append(Strike(fault, now, spared=1) if name == sparing else shared)
                lane.add(strikes[-1])
        return Blow(fault, set(strikes))
