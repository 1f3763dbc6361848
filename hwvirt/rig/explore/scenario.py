"""What a world is like, what its host asks, and which faults may strike: the small stories that are explored."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, Flag, auto
from typing import NamedTuple

from hwvirt.controller.states import State
from hwvirt.rig.judge.history import Kind

__all__ = ["SCENARIOS", "Ask", "Fault", "Scenario", "Verb"]


class Verb(Enum):
    """What the operator asks of A."""

    REDIRECT = "redirect"
    COMMIT = "commit"
    DISCARD = "discard"


class Ask(NamedTuple):
    """One request: of the host, or (without blocks) of the operator."""

    what: Kind | Verb
    lba: int = 0
    blocks: int = 1

    def text(self) -> str:
        """For people: "WRITE of block 0", "FLUSH", "commit"."""
        if isinstance(self.what, Verb):
            return self.what.value
        if self.what is Kind.FLUSH:
            return "FLUSH"
        name = "WRITE with FUA" if self.what is Kind.WRITE_FUA else self.what.name
        return f"{name} of block {self.lba}" + (f" to {self.lba + self.blocks - 1}" if self.blocks > 1 else "")


class Fault(Flag):
    """Kinds of faults that a scenario allows."""

    DROP = auto()
    DOUBLE = auto()
    REORDER = auto()
    REPLAY = auto()
    CUT = auto()
    HALF = auto()
    SILENCE = auto()
    STALL = auto()
    CRASH_A = auto()
    CRASH_B = auto()
    FLUSH = auto()
    CABLE = DROP | DOUBLE | REORDER | REPLAY | CUT | HALF | SILENCE
    CRASH = CRASH_A | CRASH_B
    ALL = CABLE | STALL | CRASH


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A world and its story.

    `before` is asked and answered before exploration begins. By default as many as `states` are met, in schedules of up to
    `depth` actions with up to `budget` faults. `window`: requests that the host has in flight at most. `handshake`: its
    frames are scheduled like all others, instead of a connection being up at once. `slow`: disks and files take their time,
    so that a crash finds them at work.
    """

    name: str
    story: str
    before: tuple[Ask, ...] = ()
    asks: tuple[Ask, ...]
    faults: Fault
    states: int = 20_000
    depth: int = 40
    budget: int = 2
    window: int = 2
    blocks: int = 2
    store_blocks: int = 6
    initial: State = State.REDIRECTING
    handshake: bool = False
    slow: bool = False

    @property
    def after(self) -> tuple[Ask, ...]:
        """What everything ends with: what was written is flushed and read."""
        return Ask(Kind.FLUSH), Ask(Kind.READ, 0, self.blocks)

    @property
    def all_asks(self) -> tuple[Ask, ...]:
        """Everything that is ever asked, in its order."""
        return (*self.before, *self.asks, *self.after)


def _write(lba: int, blocks: int = 1) -> Ask:
    return Ask(Kind.WRITE, lba, blocks)


_FLUSH = Ask(Kind.FLUSH)
_READ_0 = Ask(Kind.READ, 0)
_UNMAP_1 = Ask(Kind.UNMAP, 1)

_ALL = (
    Scenario(
        name="write-path",
        story="writes, an overwrite and a flush, under every fault",
        asks=(_write(0), _write(1), _write(0), _FLUSH, _READ_0, _write(1)),
        faults=Fault.ALL,
        states=110_000,
    ),
    Scenario(
        name="epoch-change",
        story="either side restarts, with flushed and with unflushed data about, under every fault",
        before=(_write(0), _FLUSH, _write(0), _write(1)),
        asks=(_READ_0, _write(0), _FLUSH, _UNMAP_1),
        faults=Fault.ALL,
        states=110_000,
    ),
    Scenario(
        name="commit",
        story="redirected blocks are written back while the host writes and the link and either side fail",
        before=(_write(0), _FLUSH, _write(1)),
        asks=(Ask(Verb.COMMIT), _write(0), _FLUSH),
        faults=Fault.CRASH | Fault.CUT | Fault.STALL,
    ),
    Scenario(
        name="discard",
        story="everything redirected is dropped while the link and either side fail",
        before=(_write(0), _FLUSH, _write(1)),
        asks=(Ask(Verb.DISCARD), _write(0), _FLUSH),
        faults=Fault.CRASH | Fault.CUT | Fault.STALL,
    ),
    Scenario(
        name="slow",
        story="disks and journals take their time, and power cuts find them at work",
        before=(_write(0), _FLUSH),
        asks=(_write(0), _write(1), _FLUSH, _write(0)),
        faults=Fault.CRASH,
        slow=True,
    ),
    Scenario(
        name="handshake",
        story="every frame of the handshake may be lost, doubled, overtaken or come from an earlier connection",
        asks=(_write(0),),
        faults=Fault.CABLE | Fault.CRASH,
        handshake=True,
    ),
    Scenario(
        name="late-replies",
        story="a write and a flush on a new connection, while frames of the former one still arrive",
        before=(_write(0),),
        asks=(_write(0), _FLUSH, _READ_0),
        faults=Fault.CUT | Fault.HALF | Fault.REPLAY,
    ),
    Scenario(
        name="reuse",
        story="a store with hardly any room gives positions out again",
        before=(_write(0), _write(1), _FLUSH),
        asks=(_write(0), _FLUSH, _write(1), _READ_0, _write(0), _FLUSH),
        faults=Fault.CRASH | Fault.CUT | Fault.STALL,
        store_blocks=3,
    ),
    Scenario(
        name="failed-flush",
        story="flushes of the second disk fail, and have lost what they should have covered",
        before=(_write(0), _FLUSH, _write(1)),
        asks=(_write(0), _FLUSH, _write(1), _FLUSH, _READ_0),
        faults=Fault.FLUSH | Fault.CRASH | Fault.CUT,
        slow=True,
    ),
)
SCENARIOS = {scenario.name: scenario for scenario in _ALL}
