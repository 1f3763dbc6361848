"""What happens in a rig: scenarios, their steps, the faults that strike meanwhile, and what is expected of the counts."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from hwvirt.link.faults import LinkFault
from hwvirt.rig.judge.verdict import Property

__all__ = [
    "AfterCount",
    "AtShare",
    "Backup",
    "BlockRange",
    "Commit",
    "Counter",
    "Crash",
    "Discard",
    "EveryOps",
    "Expectation",
    "Fault",
    "FaultAction",
    "Fill",
    "Flush",
    "Judge",
    "Mix",
    "Moment",
    "Relation",
    "Restart",
    "Scenario",
    "StartRedirect",
    "Step",
    "StrikeLink",
    "Workload",
]


class Counter(Enum):
    """What a run counts. Writes end acknowledged, failed or in doubt; the other commands are counted by kind."""

    ACKNOWLEDGED = "acknowledged"
    FAILED = "failed"
    IN_DOUBT = "in_doubt"
    READS = "reads"
    FLUSHES = "flushes"
    UNMAPS = "unmaps"
    MISMATCHES = "mismatches"


class Relation(Enum):
    """How a count compares with what is expected of it."""

    AT_LEAST = ">="
    AT_MOST = "<="
    MORE_THAN = ">"
    LESS_THAN = "<"
    EQUAL = "=="

    def holds(self, count: int, value: int) -> bool:
        """Whether `count` stands in this relation to `value`."""
        return _HOLDS[self](count, value)


_HOLDS: dict[Relation, Callable[[int, int], bool]] = {
    Relation.AT_LEAST: operator.ge,
    Relation.AT_MOST: operator.le,
    Relation.MORE_THAN: operator.gt,
    Relation.LESS_THAN: operator.lt,
    Relation.EQUAL: operator.eq,
}


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a count must be for the run to say anything."""

    counter: Counter
    relation: Relation
    value: int

    def holds(self, count: int) -> bool:
        """Whether `count` is as expected."""
        return self.relation.holds(count, self.value)

    @property
    def text(self) -> str:
        """For people: "acknowledged >= 10000"."""
        return f"{self.counter.value} {self.relation.value} {self.value}"


@dataclass(frozen=True, slots=True)
class Fill:
    """Writes every block of a logical unit once and flushes it."""

    controller: str
    lun: int


@dataclass(frozen=True, slots=True)
class StartRedirect:
    """From now on new data of a redirect LUN goes to the second disk."""

    controller: str
    lun: int


@dataclass(frozen=True, slots=True)
class Commit:
    """Writes the redirected blocks back to the first volume and ends redirection."""

    controller: str
    lun: int


@dataclass(frozen=True, slots=True)
class Discard:
    """Drops the redirected blocks and ends redirection."""

    controller: str
    lun: int


@dataclass(frozen=True, slots=True)
class Flush:
    """Makes everything durable that a logical unit acknowledged."""

    controller: str
    lun: int


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup client reads a frozen LUN from end to end; what it reads must be the original, byte for byte."""

    controller: str
    lun: int


@dataclass(frozen=True, slots=True)
class Restart:
    """Stops a controller cleanly and starts it again."""

    controller: str


@dataclass(frozen=True, slots=True)
class Crash:
    """Kills a controller without warning and starts it again."""

    controller: str


@dataclass(frozen=True, slots=True)
class StrikeLink:
    """Something is wrong with the second path: with what goes to controller `toward`, or (None) in any direction."""

    fault: LinkFault
    toward: str | None = None


FaultAction: TypeAlias = Crash | Restart | StrikeLink


@dataclass(frozen=True, slots=True)
class AtShare:
    """When so many percent of the workload's operations have been submitted."""

    percent: int


@dataclass(frozen=True, slots=True)
class AfterCount:
    """When the workload's own counter has reached `value`."""

    counter: Counter
    value: int


@dataclass(frozen=True, slots=True)
class EveryOps:
    """Each time when so many more of the workload's operations have been submitted."""

    ops: int


Moment: TypeAlias = AtShare | AfterCount | EveryOps


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong on purpose, and when."""

    when: Moment
    action: FaultAction


@dataclass(frozen=True, slots=True)
class BlockRange:
    """How many blocks one operation covers: between `least` and `most`, both included."""

    least: int
    most: int


@dataclass(frozen=True, slots=True)
class Mix:
    """Of which operations a workload consists, in percent; the sum is 100."""

    write: int = 0
    read: int = 0
    flush: int = 0
    unmap: int = 0


@dataclass(frozen=True, slots=True)
class Workload:
    """`ops` operations, `depth` of them in flight, while faults strike and a backup may run alongside."""

    controller: str
    lun: int
    ops: int
    depth: int
    blocks: BlockRange
    mix: Mix
    faults: tuple[Fault, ...] = ()
    alongside: Backup | None = None


@dataclass(frozen=True, slots=True)
class Judge:
    """Proves properties: the named ones, or (None, `judge: all`) each one that can be asked at this point."""

    properties: tuple[Property, ...] | None


Step: TypeAlias = (
    Fill | StartRedirect | Commit | Discard | Workload | Flush | Judge | Backup | Restart | Crash
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A story of steps, in order, and what its counts must be."""

    name: str
    steps: tuple[Step, ...]
    expect: tuple[Expectation, ...]
