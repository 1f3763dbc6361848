"""What can happen next in a world, as values: a schedule is a list of them."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, TypeAlias

from hwvirt.rig.explore.memory import Loss
from hwvirt.rig.explore.process import Side

__all__ = ["Act", "Action", "Schedule"]


class Act(Enum):
    """Kinds of actions: the first six belong to every world, the others are faults."""

    ARRIVE = "arrive"
    FINISH = "finish"
    START = "start"
    CONNECT = "connect"
    ASK = "ask"
    RECOVER = "recover"
    DROP = "drop"
    DOUBLE = "double"
    REORDER = "reorder"
    REPLAY = "replay"
    CUT = "cut"
    HALF = "half"
    SILENCE = "silence"
    STALL = "stall"
    CRASH = "crash"
    FLUSH = "flush"


class Action(NamedTuple):
    """One thing that happens to `side`. `at` counts the connections that are not over, or the side's slow jobs."""

    act: Act
    side: Side | None = None
    at: int = 0
    loss: Loss | None = None

    @property
    def is_fault(self) -> bool:
        """Whether it counts against a schedule's budget of faults."""
        return self.act not in _USUAL


_USUAL = (Act.ARRIVE, Act.FINISH, Act.START, Act.CONNECT, Act.ASK, Act.RECOVER)
Schedule: TypeAlias = tuple[Action, ...]
