"""The history: what a host asked of one logical unit, in which order, how it ended, and what it saw.

Time is one counter that every begin, end and mark advances, so order is exact and no two moments are equal. Operations are
numbered from 1; the blocks that a write makes carry its number as their version.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["CHANGES", "WRITES", "Columns", "Fate", "History", "Ints", "Kind", "Mark", "MarkKind", "Operation"]

Ints: TypeAlias = npt.NDArray[np.int64]

_STRANGE_KEPT = 1000


class Kind(IntEnum):
    """What was asked. A WRITE_FUA is durable when acknowledged; UNMAP and ZERO make the blocks read as zeroes."""

    READ = 0
    WRITE = 1
    WRITE_FUA = 2
    UNMAP = 3
    ZERO = 4
    FLUSH = 5


WRITES = (Kind.WRITE, Kind.WRITE_FUA)
CHANGES = (Kind.WRITE, Kind.WRITE_FUA, Kind.UNMAP, Kind.ZERO)


class Fate(IntEnum):
    """How an operation ended. Who FAILED or is IN_DOUBT may have happened all the same; without an answer it is IN_DOUBT."""

    ACKNOWLEDGED = 0
    DURABLE = 1  # acknowledged, and a completed flush (or its own FUA) covers it
    IN_DOUBT = 2
    FAILED = 3


class MarkKind(IntEnum):
    """What the rig did to the whole logical unit between operations."""

    REDIRECT = 0  # from now on new data belongs on the second disk
    COMMIT = 1  # the redirected blocks are on the first disk, redirection has ended
    DISCARD = 2  # every block is back at its version of the last REDIRECT
    POWER_CUT = 3  # the first controller lost what no flush covered


class Mark(NamedTuple):
    """A mark and its moment."""

    moment: int
    kind: MarkKind


class Operation(NamedTuple):
    """One operation. `ended` is 0 while there is no answer; `seen` is the version of each block that a READ returned."""

    number: int
    kind: Kind
    lba: int
    blocks: int
    began: int
    ended: int
    fate: Fate
    seen: tuple[int, ...] = ()

    def text(self) -> str:
        """One line for people."""
        where = "" if self.kind == Kind.FLUSH else f" lba {self.lba} blocks {self.blocks}"
        return f"#{self.number} {self.kind.name}{where} at {self.began}..{self.ended or ''} {self.fate.name}"


class Columns(NamedTuple):
    """The operations as arrays, row = number - 1; `seen_at` is where a READ's versions start in `seen`, or -1."""

    kind: Ints
    lba: Ints
    blocks: Ints
    began: Ints
    ended: Ints
    fate: Ints
    seen_at: Ints
    seen: Ints


class History:
    """Records one logical unit's operations. `volume`, `writer` and `seed` are what its written blocks carry.

    A disk may still hold what an earlier run with the same seed wrote: `writer` tells one run from the other.
    """

    def __init__(self, volume: int, seed: int, block_bytes: int, writer: int = 1) -> None:
        self.volume, self.seed, self.block_bytes, self.writer = volume, seed, block_bytes, writer
        self.marks: list[Mark] = []
        self.strange: dict[tuple[int, int], str] = {}
        """(operation, LBA) → what a block was that no write of this history can have made; the first thousand."""
        self._now = 0
        self._kind, self._fate = array("b"), array("b")
        self._lba, self._blocks = array("q"), array("q")
        self._began, self._ended = array("q"), array("q")
        self._seen_at, self._seen = array("q"), array("q")

    def __len__(self) -> int:
        return len(self._kind)

    def begin(self, kind: Kind, lba: int, blocks: int) -> int:
        """An operation is about to be submitted. Returns its number: the version of the blocks that it writes."""
        self._now += 1
        self._kind.append(kind)
        self._lba.append(lba)
        self._blocks.append(blocks)
        self._began.append(self._now)
        self._ended.append(0)
        self._fate.append(Fate.IN_DOUBT)
        self._seen_at.append(-1)
        return len(self._kind)

    def end(self, number: int, fate: Fate, seen: Sequence[int] = ()) -> None:
        """The answer has come. `seen` holds the version of each block where a READ was acknowledged."""
        self._now += 1
        self._ended[number - 1] = self._now
        self._fate[number - 1] = fate
        if seen:
            self._seen_at[number - 1] = len(self._seen)
            self._seen.extend(seen)

    def mark(self, kind: MarkKind) -> None:
        """The rig has done something to the whole logical unit."""
        self._now += 1
        self.marks.append(Mark(self._now, kind))

    def note(self, number: int, lba: int, what: str) -> None:
        """Keeps the description of a strange block for the failure card."""
        if len(self.strange) < _STRANGE_KEPT:
            self.strange[number, lba] = what

    @property
    def redirected_at(self) -> int | None:
        """The moment of the REDIRECT that is still in force, or None."""
        for moment, kind in reversed(self.marks):
            if kind == MarkKind.REDIRECT:
                return moment
            if kind in (MarkKind.COMMIT, MarkKind.DISCARD):
                return None
        return None

    def columns(self) -> Columns:
        """Everything so far as arrays of int64; copies."""
        names = (self._kind, self._lba, self._blocks, self._began, self._ended, self._fate, self._seen_at, self._seen)
        return Columns(*(np.array(column, np.int64) for column in names))

    def operation(self, number: int) -> Operation:
        """One operation as a value."""
        row, blocks = number - 1, self._blocks[number - 1]
        seen_at = self._seen_at[row]
        seen = tuple(self._seen[seen_at : seen_at + blocks]) if seen_at >= 0 else ()
        kind, fate = Kind(self._kind[row]), Fate(self._fate[row])
        return Operation(number, kind, self._lba[row], blocks, self._began[row], self._ended[row], fate, seen)

    def replay(self, operation: Operation) -> None:
        """Appends a recorded operation as it was, with its own moments. Numbers must come in order."""
        if operation.number != len(self) + 1:
            raise ValueError(f"operation {operation.number} does not follow {len(self)}")
        if operation.seen and len(operation.seen) != operation.blocks:
            raise ValueError(f"operation {operation.number} saw {len(operation.seen)} of {operation.blocks} blocks")
        self.begin(operation.kind, operation.lba, operation.blocks)
        self._began[-1], self._ended[-1], self._fate[-1] = operation.began, operation.ended, operation.fate
        if operation.seen:
            self._seen_at[-1] = len(self._seen)
            self._seen.extend(operation.seen)
        self._now = max(self._now, operation.began, operation.ended)

    def replay_mark(self, mark: Mark) -> None:
        """Appends a recorded mark as it was."""
        self.marks.append(mark)
        self._now = max(self._now, mark.moment)

    def durable(self) -> npt.NDArray[np.bool_]:
        """Per operation: an acknowledged change that a FUA or a later acknowledged flush covers.

        A flush covers what had completed before it was submitted, if no power cut lies between.
        """
        columns = self.columns()
        acknowledged = columns.fate <= Fate.DURABLE
        flushes = np.flatnonzero(acknowledged & (columns.kind == Kind.FLUSH))
        covered = columns.fate == Fate.DURABLE
        cuts = [mark.moment for mark in self.marks if mark.kind == MarkKind.POWER_CUT]
        for start, stop in zip([0, *cuts], [*cuts, self._now + 1], strict=True):
            inside = flushes[(columns.began[flushes] > start) & (columns.ended[flushes] < stop)]
            last_flush = int(columns.began[inside].max(initial=0))
            covered |= acknowledged & (columns.began > start) & (columns.ended < last_flush)
        changes: npt.NDArray[np.bool_] = covered & np.isin(columns.kind, CHANGES)
        return changes

    def touching(self, lba: int, limit: int) -> list[Operation]:
        """The last `limit` operations on a block, oldest first; reads only where they were answered."""
        columns = self.columns()
        mine = (columns.lba <= lba) & (lba < columns.lba + columns.blocks) & (columns.kind != Kind.FLUSH)
        mine &= (columns.kind != Kind.READ) | (columns.seen_at >= 0)
        return [self.operation(int(row) + 1) for row in np.flatnonzero(mine)[-limit:]]

