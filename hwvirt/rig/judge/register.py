"""Every block of a history is held against an atomic register; what it may hold in the end comes out too.

A POWER_CUT or DISCARD ends a stretch. The next one begins with what each block may have come back with, and with the writes
that nobody knows the end of. Reads across such a mark say nothing and are left out. Work goes by ranges of blocks, so that
memory is bounded whatever the history's length.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from hwvirt.digest import crc32c
from hwvirt.rig.judge.block import FOREIGN, TORN, ZEROED
from hwvirt.rig.judge.history import CHANGES, WRITES, Fate, History, Ints, Kind, MarkKind
from hwvirt.rig.judge.tables import Accusations, Bools, Pairs, Reads, Rule, Writes, distinct, select, spread
from hwvirt.rig.judge.zones import Zones

__all__ = ["Register"]

_ROWS_AT_ONCE = 1 << 20


class _Stretch(NamedTuple):
    """The moments between two marks, and what the first of them was."""

    start: int
    stop: int
    after: MarkKind | None


class Register:
    """What became of every block that the history touches.

    `reads` counts the block reads that were judged, `after_cut` those among them that returned what a power cut had left,
    and `doubted` the block writes without success that a newer acknowledged write followed: the ones that could land late.
    `finals` is what a read that begins after everything else may return.
    """

    def __init__(self, history: History, baseline: array[int] | None = None) -> None:
        """`baseline`: the CRC-32C of each block when redirection began the last time."""
        self._zero_at_first = None if baseline is None else np.asarray(baseline) == crc32c(bytes(history.block_bytes))
        self._history, self._columns = history, history.columns()
        self._durable = history.durable()
        self._end = int(max(self._columns.began.max(initial=0), self._columns.ended.max(initial=0))) + 1
        self._end = max([self._end, *(mark.moment + 1 for mark in history.marks)])
        self.reads = self.after_cut = self.doubted = 0
        found, finals = [], []
        for first, stop in self._ranges():
            accusations, pairs = self._examine(first, stop)
            found.append(accusations)
            finals.append(pairs)
        columns = [np.concatenate(column) for column in zip(*found, strict=True)]
        accusations = Accusations(*columns)
        self.accusations = select(accusations, np.argsort(accusations.number, kind="stable"))
        self.finals = Pairs(*(np.concatenate(column) for column in zip(*finals, strict=True)))

    def allowed(self, lba: int) -> tuple[int, ...]:
        """The versions that block `lba` may hold now; FOREIGN stands for what lay there before the history began."""
        first, last = np.searchsorted(self.finals.lba, [lba, lba + 1])
        versions = self.finals.version[first:last].tolist()
        return tuple(versions) if versions else (FOREIGN, ZEROED)

    def permits(self, lba: Ints, version: Ints) -> Bools:
        """For each block and version whether the block may hold it. False for blocks that the history never touched."""
        blocks = np.unique(self.finals.lba)
        codes = int(max(self.finals.version.max(initial=0), version.max(initial=0))) - TORN + 1
        known = np.searchsorted(blocks, self.finals.lba) * codes + self.finals.version - TORN
        asked = np.searchsorted(blocks, lba) * codes + version - TORN
        return np.isin(lba, blocks) & np.isin(asked, known)

    def _ranges(self) -> Iterator[tuple[int, int]]:
        """Ranges of LBAs that cover everything, each with about as many rows as are held at once."""
        lba, blocks = self._columns.lba, self._columns.blocks
        order = np.argsort(lba)
        rows = np.cumsum(blocks[order])
        total = int(rows[-1]) if len(rows) else 0
        cuts = np.searchsorted(rows, np.arange(_ROWS_AT_ONCE, total, _ROWS_AT_ONCE))
        edges = np.unique(lba[order][cuts])
        yield from pairwise([0, *edges[edges > 0].tolist(), int((lba + blocks).max(initial=0)) + 1])

    def _examine(self, first: int, stop: int) -> tuple[Accusations, Pairs]:
        columns, end = self._columns, self._end
        row, lba, _ = spread(columns, np.isin(columns.kind, CHANGES), first, stop)
        sure = columns.fate[row] <= Fate.DURABLE
        ended = np.where(columns.ended[row] > 0, columns.ended[row], end)
        version = np.where(np.isin(columns.kind[row], WRITES), row + 1, ZEROED)
        finish, told = np.where(sure, ended, end), np.where(sure, end, ended)
        writes = Writes(lba, version, columns.began[row], finish, told, sure, self._durable[row])
        row, lba, offset = spread(columns, (columns.kind == Kind.READ) & (columns.seen_at >= 0), first, stop)
        seen = columns.seen[columns.seen_at[row] + offset]
        reads = Reads(lba, seen, columns.began[row], columns.ended[row], row + 1)

        initial = original = self._at_first(writes, reads)
        pending = select(writes, np.zeros(0, np.int64))
        found, zones = [], None
        for stretch in self._stretches():
            if zones is not None:
                initial = zones.survivors() if stretch.after == MarkKind.POWER_CUT else original
                pending = select(zones.writes, ~zones.writes.sure & ~zones.fenced)
            before = _joined(_at_start(initial, stretch.start, end), _carried(pending, stretch.start))
            for mark in self._history.marks:
                if mark.kind == MarkKind.REDIRECT and stretch.start < mark.moment < stretch.stop:
                    until = _Stretch(stretch.start, mark.moment, None)
                    original = self._zones(before, writes, reads, until).allowed()
            zones = self._zones(before, writes, reads, stretch)
            self._count(zones, stretch)
            found.append(self._blame(zones.accusations(), stretch))
        assert zones is not None
        return Accusations(*(np.concatenate(column) for column in zip(*found, strict=True))), zones.allowed()

    def _at_first(self, writes: Writes, reads: Reads) -> Pairs:
        """What blocks may hold before anything: anything, or what the baseline says where it still shows that."""
        touched = np.unique(np.concatenate((writes.lba, reads.lba)))
        zero = other = np.ones(len(touched), np.bool_)
        redirects = [mark.moment for mark in self._history.marks if mark.kind == MarkKind.REDIRECT]
        if self._zero_at_first is not None and redirects:
            shown = ~np.isin(touched, writes.lba[writes.start < redirects[-1]])
            zero = self._zero_at_first[touched] | ~shown
            other = ~self._zero_at_first[touched] | ~shown
        lba = np.concatenate((touched[other], touched[zero]))
        return distinct(lba, np.repeat([FOREIGN, ZEROED], [np.count_nonzero(other), np.count_nonzero(zero)]))

    def _stretches(self) -> Iterator[_Stretch]:
        start, after = 0, None
        for moment, kind in self._history.marks:
            if kind in (MarkKind.POWER_CUT, MarkKind.DISCARD):
                yield _Stretch(start, moment, after)
                start, after = moment, kind
        yield _Stretch(start, self._end, after)

    def _zones(self, before: Writes, writes: Writes, reads: Reads, stretch: _Stretch) -> Zones:
        """The clusters of one stretch: what was there before, its writes (open where they outlast it), its whole reads."""
        start, stop, _ = stretch
        inside = select(writes, (writes.start > start) & (writes.start < stop))
        over = np.where(inside.sure, inside.end, inside.told) >= stop
        inside = inside._replace(
            end=np.where(over, self._end, inside.end), told=np.where(over, self._end, inside.told), sure=inside.sure & ~over
        )
        whole = select(reads, (reads.start > start) & (reads.end < stop))
        return Zones(_joined(before, inside), whole, self._end + 1)

    def _count(self, zones: Zones, stretch: _Stretch) -> None:
        self.reads += len(zones.reads.lba)
        self.doubted += int(np.count_nonzero(zones.fenced))
        if stretch.after == MarkKind.POWER_CUT:
            self.after_cut += int(np.count_nonzero(self._older(zones.reads.version, stretch)))

    def _blame(self, found: Accusations, stretch: _Stretch) -> Accusations:
        """A version of before the power cut that may not have come back, or zeroes that nobody wrote, were lost data."""
        if stretch.after != MarkKind.POWER_CUT:
            return found
        lost = (found.rule == Rule.UNWRITTEN) & (self._older(found.found, stretch) | (found.found == ZEROED))
        return found._replace(rule=np.where(lost, Rule.LOST, found.rule))

    def _older(self, version: Ints, stretch: _Stretch) -> Bools:
        began = self._columns.began
        named = (version > 0) & (version <= len(began))
        older: Bools = named & (began[np.where(named, version - 1, 0)] < stretch.start)
        return older


def _at_start(pairs: Pairs, start: int, end: int) -> Writes:
    """What blocks may hold when a stretch begins, as writes of that moment."""
    moment, yes = np.full(len(pairs.lba), start), np.ones(len(pairs.lba), np.bool_)
    return Writes(pairs.lba, pairs.version, moment, moment, np.full(len(moment), end), yes, ~yes)


def _carried(pending: Writes, start: int) -> Writes:
    """Writes of before `start` that nobody knows the end of."""
    begin = np.full(len(pending.lba), start)
    return pending._replace(start=begin, told=np.maximum(pending.told, start))


def _joined(one: Writes, other: Writes) -> Writes:
    return Writes(*(np.concatenate(pair) for pair in zip(one, other, strict=True)))
