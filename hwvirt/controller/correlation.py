"""The correlation map: first LBA → position on the second volume, sixteen bytes a block.

Rules of this file:
1. An entry changes only by a newer sequence number; an older one is handed back as superseded.
2. Nothing here reads a disk, a socket or a clock.
3. What changed since `take_changes()` is remembered until it is taken: the journal sees every change once.

The two columns lie in anonymous memory that the kernel provides page by page on first write: an unmapped region costs
nothing, a lookup is an index, and to forget the whole map takes the same time whatever it holds.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from hwvirt.controller.position import (
    GENERATION_BITS,
    MAPPED,
    NEXT_BLOCK,
    UNMAPPED,
    ZERO,
    Columns,
    distinct,
    joined_runs,
    lbas_of,
    pack,
    portions,
    runs_of,
    stretches,
    unpack,
)
from hwvirt.link.messages import Placement, Slice
from hwvirt.scsi.volume import Extent, Residency

__all__ = ["CHANGE", "CorrelationMap", "Rows", "Run"]

Rows: TypeAlias = np.ndarray[tuple[int], np.dtype[np.void]]
CHANGE = np.dtype([("lba", "<u8"), ("blocks", "<u8"), ("position", "<u8"), ("sequence", "<u8")])
"""One journal row: blocks that lie behind each other on both volumes and share a sequence number."""

_FIRST, _REDIRECTED = Residency.FIRST, Residency.REDIRECTED  # to look up a member of an enum is a call
_SAMPLE_BLOCKS = 4096
_WINDOW_BLOCKS = 1 << 18
_FEW = 8
"""Up to so many blocks are set one by one, which takes less time than to set them as columns."""


class Run(NamedTuple):
    """Part of a looked-up extent; `placement` is None unless the blocks are redirected."""

    lba: int
    blocks: int
    residency: Residency
    placement: Placement | None


class CorrelationMap:
    """The map of one first volume of `blocks` blocks."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self._changes: list[tuple[int, int]] = []  # runs: lba, blocks
        self._changed_blocks: list[int] = []
        self._changed_columns: list[Columns] = []
        self._allocate()

    def _allocate(self) -> None:
        memory = mmap.mmap(-1, max(1, self.blocks) * 16)
        self._positions: Columns = np.frombuffer(memory, np.uint64, self.blocks)
        self._sequences: Columns = np.frombuffer(memory, np.uint64, self.blocks, self.blocks * 8)
        self._cells = memoryview(memory).cast("Q")  # both columns again, block by block
        self.mapped_blocks = 0
        self.zero_blocks = 0

    def bind(self, slices: Sequence[Slice], placements: Sequence[Placement]) -> list[Placement]:
        """Correlates the slices' blocks, in order, with the placements' blocks; no block may occur twice.

        Returns the placements that no entry names any more: replaced ones, and new ones that came too late. Raises
        ValueError, changing nothing, when the placements do not cover the slices exactly.
        """
        if len(slices) == 1 == len(placements) and slices[0].blocks == 1 == placements[0].blocks:
            lba, _, sequence = slices[0]  # what a host with one request in flight waits for
            lost = self._set_block(lba, sequence, pack(placements[0]))
            return [unpack(lost)] if lost else []
        return self._set(
            [
                (lba, blocks, sequence, MAPPED | place << GENERATION_BITS | generation)
                for lba, blocks, sequence, place, generation in stretches(slices, placements)
            ]
        )

    def unmap(self, slices: Sequence[Slice]) -> list[Placement]:
        """The blocks read as zeroes from now on. Returns the placements that no entry names any more."""
        return self._set([(lba, blocks, sequence, ZERO) for lba, blocks, sequence in slices])

    def release(self, slices: Sequence[Slice]) -> list[Placement]:
        """The blocks lie on the first volume again, as of the slices' sequence numbers (commit)."""
        return self._set([(lba, blocks, sequence, UNMAPPED) for lba, blocks, sequence in slices])

    def _set(self, runs: Sequence[tuple[int, int, int, int]]) -> list[Placement]:
        """Sets runs of (lba, blocks, sequence, position of the first block); returns what no entry names any more."""
        gone: list[Placement] = []
        gone_blocks: list[int] = []
        for lba, blocks, sequence, first in runs:
            step = NEXT_BLOCK if first >= MAPPED else 0
            if blocks > _FEW:
                for start, end, late in self._parts(lba, blocks, sequence):
                    if not late:
                        gone += self._set_run(lba + start, end - start, sequence, first + start * step)
                    elif step:
                        gone.append(unpack(first + start * step, end - start))
                continue
            for index in range(blocks):
                if lost := self._set_block(lba + index, sequence, first + index * step):
                    gone_blocks.append(lost)
        return gone + joined_runs(gone_blocks)

    def _parts(self, lba: int, blocks: int, sequence: int) -> list[tuple[int, int, bool]]:
        """The blocks from start to end, and whether they have newer entries."""
        late = self._sequences[lba : lba + blocks] > sequence
        if not late.any():
            return [(0, blocks, False)]
        edges = [0, *(np.flatnonzero(late[1:] != late[:-1]) + 1).tolist(), blocks]
        return [(start, end, bool(late[start])) for start, end in pairwise(edges)]

    def _set_block(self, lba: int, sequence: int, new: int) -> int:
        """Returns the position that no entry names any more, 0 where there is none."""
        cells = self._cells
        if cells[self.blocks + lba] > sequence:
            return new if new >= MAPPED else 0
        old = cells[lba]
        if old < MAPPED or new < MAPPED:
            self.mapped_blocks += (new >= MAPPED) - (old >= MAPPED)
            self.zero_blocks += (new == ZERO) - (old == ZERO)
        cells[lba] = new
        cells[self.blocks + lba] = sequence
        self._changed_blocks.append(lba)
        return old if old >= MAPPED and old != new else 0

    def _set_run(self, lba: int, blocks: int, sequence: int, first: int) -> list[Placement]:
        """`_set_block` for many blocks, none of which has a newer entry."""
        window = slice(lba, lba + blocks)
        new = _column(first, blocks)
        old = self._positions[window]
        gone = runs_of(old[(old >= MAPPED) & (old != new)])
        self._count(old, -1)
        self._count(new, +1)
        self._positions[window] = new
        self._sequences[window] = sequence
        self._changes.append((lba, blocks))
        return gone

    def _count(self, positions: Columns, sign: int) -> None:
        self.mapped_blocks += sign * int(np.count_nonzero(positions >= MAPPED))
        self.zero_blocks += sign * int(np.count_nonzero(positions == ZERO))

    def lookup(self, extent: Extent) -> list[Run]:
        """Where the blocks of the extent lie, in runs that one read can serve each."""
        lba, blocks = extent
        if blocks == 1:
            return [_run(lba, 1, self._cells[lba])]
        window = self._positions[lba : lba + blocks]
        step = window[1:] - window[:-1]
        breaks = np.flatnonzero((step != NEXT_BLOCK) & (step != 0)) + 1
        if not len(breaks):
            return [_run(lba, blocks, int(window[0]))]
        edges = [0, *breaks.tolist(), blocks]
        return [
            _run(lba + start, end - start, int(window[start])) for start, end in pairwise(edges)
        ]

    def take_changes(self) -> Rows:
        """Every entry that changed since the last call, as rows of `CHANGE` with their present values."""
        if not self._changes and not self._changed_blocks and not self._changed_columns:
            return np.empty(0, CHANGE)
        short = [run for run in self._changes if run[1] < _WINDOW_BLOCKS]
        long = [run for run in self._changes if run[1] >= _WINDOW_BLOCKS]
        lbas = np.array(self._changed_blocks, np.uint64)
        if short or self._changed_columns:
            lbas = np.concatenate((lbas, lbas_of(short), *self._changed_columns))
        self._forget_changes()
        rows = self._rows(distinct(lbas))
        return np.concatenate((rows, *self._windows(long))) if long else rows

    def put_back(self, rows: Rows) -> None:
        """Taken changes that did not become durable are changes again."""
        long = rows["blocks"] >= _WINDOW_BLOCKS
        self._changes += zip(rows["lba"][long].tolist(), rows["blocks"][long].tolist(), strict=True)
        short = rows[~long]
        self._changed_columns += (lbas for lbas, _, _ in portions(short["lba"], short["blocks"], _WINDOW_BLOCKS))

    def apply(self, rows: Rows) -> None:
        """Sets entries as journal rows say, one after the other: recovery. They do not count as changes."""
        for lbas, positions, sequences in _unrolled(rows):
            self._set_columns(lbas, positions, sequences)

    def adopt(self, rows: Rows) -> None:
        """Sets entries as rows of `CHANGE` say, where the map's are not newer; of one block the newest row comes last.

        Who knows all positions finds out which no entry names any more.
        """
        for lbas, positions, sequences in _unrolled(rows):
            known = self._sequences[lbas]
            newer = (known < sequences) | ((known == sequences) & (self._positions[lbas] != positions))
            if newer.any():
                self._set_columns(lbas[newer], positions[newer], sequences[newer])
                self._changed_columns.append(lbas[newer])

    def _set_columns(self, lbas: Columns, positions: Columns, sequences: Columns) -> None:
        """No block may occur twice."""
        self._count(self._positions[lbas], -1)
        self._count(positions, +1)
        self._positions[lbas] = positions
        self._sequences[lbas] = sequences

    def rows(self) -> Rows:
        """Every entry that says something, as rows of `CHANGE` in order of LBA."""
        return np.concatenate((np.empty(0, CHANGE), *self._windows([(0, self.blocks)])))

    def page(self, lba: int, limit: int) -> tuple[Rows, int | None]:
        """At most `limit` rows of blocks from `lba` on that are off the first volume, and where to go on; None: all told."""
        found, count = [np.empty(0, CHANGE)], 0
        for rows in self._windows([(lba, self.blocks - lba)]):
            found.append(rows[rows["position"] != UNMAPPED])
            count += len(found[-1])
            if count > limit:
                break
        rows = np.concatenate(found)
        return rows[:limit], int(rows["lba"][limit]) if count > limit else None

    def _windows(self, runs: Sequence[tuple[int, int]]) -> Iterator[Rows]:
        """The rows of all entries there, window by window, each once: columns of a whole volume would be a burden."""
        done = 0
        for lba, blocks in sorted(runs):
            start = max(lba, done)
            while start < lba + blocks:
                done = min((start // _WINDOW_BLOCKS + 1) * _WINDOW_BLOCKS, lba + blocks)
                known = np.flatnonzero(self._sequences[start:done])
                if len(known):
                    yield self._rows(known.astype(np.uint64) + np.uint64(start))
                start = done

    def _rows(self, lbas: Columns) -> Rows:
        positions, sequences = self._positions[lbas], self._sequences[lbas]
        step = np.diff(positions)
        same = (step == NEXT_BLOCK) | ((step == 0) & (positions[1:] < MAPPED))
        together = (np.diff(lbas) == 1) & same & (np.diff(sequences) == 0)
        starts = np.concatenate(([0], np.flatnonzero(~together) + 1)) if len(lbas) else np.empty(0, np.int64)
        rows = np.empty(len(starts), CHANGE)
        rows["lba"], rows["position"], rows["sequence"] = lbas[starts], positions[starts], sequences[starts]
        rows["blocks"] = np.diff(np.append(starts, len(lbas)))
        return rows

    def prefix(self, extent: Extent, step: int, most: int) -> Extent:
        """The first steps of the extent that together have at most `most` blocks off the first volume; at least one step."""
        window = self._positions[extent.lba : extent.lba + extent.blocks] != UNMAPPED
        sums = np.cumsum(np.add.reduceat(window, np.arange(0, extent.blocks, step), dtype=np.int64))
        steps = max(1, int(np.searchsorted(sums, most, side="right")))
        return Extent(extent.lba, min(extent.blocks, steps * step))

    def is_empty(self, extent: Extent) -> bool:
        """Whether every block of the extent lies on the first volume."""
        return not self._positions[extent.lba : extent.lba + extent.blocks].any()

    def sequences_at(self, lbas: Columns) -> Columns:
        """The sequence number of the newest change of each block, 0 where there was none."""
        return self._sequences[lbas]

    def positions_at(self, lbas: Columns) -> Columns:
        """The packed position of each block."""
        return self._positions[lbas]

    def redirected(self) -> npt.NDArray[np.bool_]:
        """Of each block of the volume: whether it lies in the store."""
        return self._positions >= MAPPED

    def last_stored_sequence(self) -> int:
        """The newest sequence number of a block that is not on the first volume, 0 where all are."""
        return int(np.max(self._sequences, where=self._positions != UNMAPPED, initial=0))

    def last_sequence(self) -> int:
        """The newest sequence number in the map, 0 when it is empty."""
        return int(self._sequences.max(initial=0))

    def clear(self) -> None:
        """Forgets every entry and every pending change, in constant time."""
        self._forget_changes()
        self._allocate()

    def _forget_changes(self) -> None:
        self._changes.clear()
        self._changed_blocks.clear()
        self._changed_columns.clear()

    def strip(self, cells: int) -> list[float]:
        """The fraction of blocks that are not on the first volume, for each of `cells` equal parts.

        Of a large part, evenly spaced blocks stand for all: somebody who watches must not slow the volume down.
        """
        edges = np.linspace(0, self.blocks, cells + 1).astype(np.int64).tolist()
        parts = (
            self._positions[start : max(start + 1, end) : -(-max(1, end - start) // _SAMPLE_BLOCKS)]
            for start, end in pairwise(edges)
        )
        return [round(float(np.count_nonzero(part)) / max(1, len(part)), 3) for part in parts]


def _column(first: int, blocks: int) -> Columns:
    """Neighbours on the second volume from a packed position, or blocks that all lie in the same nowhere."""
    if first < MAPPED:
        return np.full(blocks, first, np.uint64)
    return np.uint64(first) + np.arange(blocks, dtype=np.uint64) * np.uint64(NEXT_BLOCK)


def _unrolled(rows: Rows) -> Iterator[tuple[Columns, Columns, Columns]]:
    """The blocks of rows of `CHANGE`, in portions: LBA, position, sequence number of each; of one block the last row's."""
    first, sequences = rows["position"], rows["sequence"]
    for lbas, within, row in portions(rows["lba"], rows["blocks"], _WINDOW_BLOCKS):
        step = np.where(first[row] >= MAPPED, np.uint64(NEXT_BLOCK), np.uint64(0))
        columns = lbas, first[row] + within * step, sequences[row]
        if (lbas[1:] > lbas[:-1]).all():
            yield columns
            continue
        order = np.argsort(lbas, kind="stable")
        last = order[np.append(lbas[order][1:] != lbas[order][:-1], True)]
        yield columns[0][last], columns[1][last], columns[2][last]


def _run(lba: int, blocks: int, position: int) -> Run:
    if position >= MAPPED:
        return Run(lba, blocks, _REDIRECTED, unpack(position, blocks))
    return Run(lba, blocks, Residency.ZERO if position == ZERO else _FIRST, None)
