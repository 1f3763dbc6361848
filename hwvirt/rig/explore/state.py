"""The state of a world as a value: numbers for what the machines know, the cable, and the host's story."""

from __future__ import annotations

from typing import NamedTuple

from hwvirt.rig.explore.frames import CLOSED, FrameTable
from hwvirt.rig.explore.process import Side
from hwvirt.rig.explore.scenario import Verb
from hwvirt.rig.explore.story import Story

__all__ = ["Line", "Operating", "State", "stray"]


class Line(NamedTuple):
    """One connection: which one it is to each process, -1 for who has closed it, and the frames under way to each.

    `past_a` and `past_b` are all frames that were ever under way; kept where old frames may come back.
    """

    at_a: int
    at_b: int
    to_a: tuple[int, ...] = ()
    to_b: tuple[int, ...] = ()
    past_a: tuple[int, ...] = ()
    past_b: tuple[int, ...] = ()

    def plug(self, side: Side) -> int:
        """Which connection of the process it is; -1: it has closed it."""
        return self.at_a if side is Side.A else self.at_b

    def frames(self, side: Side) -> tuple[int, ...]:
        """What is under way to that side."""
        return self.to_a if side is Side.A else self.to_b

    def with_frames(self, side: Side, frames: tuple[int, ...]) -> Line:
        """With these under way to that side."""
        return self._replace(to_a=frames) if side is Side.A else self._replace(to_b=frames)

    def sent(self, side: Side, frame: int, *, remembered: bool) -> Line:
        """With one frame more on its way to that side."""
        line = self.with_frames(side, (*self.frames(side), frame))
        if not remembered:
            return line
        return line._replace(past_a=(*line.past_a, frame)) if side is Side.A else line._replace(past_b=(*line.past_b, frame))

    def without(self, side: Side) -> Line:
        """Nobody receives on that side any more; the other side will find out."""
        line = self.with_frames(side, ())
        line = line._replace(at_a=-1) if side is Side.A else line._replace(at_b=-1)
        other = side.other
        return line.with_frames(other, (*line.frames(other), CLOSED)) if line.plug(other) >= 0 else line


class Operating(NamedTuple):
    """The operator's command under way. `doubtful`: A crashed or gave up before it said how it ended."""

    verb: Verb
    doubtful: bool = False


class State(NamedTuple):
    """Everything about a world. `a` and `b` number states of the machines, `starts_a` and `starts_b` their starts."""

    a: int
    b: int
    starts_a: int
    starts_b: int
    lines: tuple[Line, ...]
    former: Line | None
    story: Story
    asked: int
    operating: Operating | None
    faults: int


def stray(state: State, side: Side, table: FrameTable) -> int | None:
    """The frame of the former connection that would best pass for the next one of this connection."""
    line, former = state.lines[-1], state.former
    if former is None or line.plug(side) < 0:
        return None
    past, here = (former.past_a, line.past_a) if side is Side.A else (former.past_b, line.past_b)
    taken = len(here) - len(line.frames(side))
    strays = [frame for frame in past if not table[frame].of_session]
    fitting = [frame for frame in strays if table[frame].header.number == taken]
    return next(iter(fitting or strays[-1:]), None)
