"""Runs of blocks that read as zeroes, in order of LBA: an unmap of a whole volume is one of them. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple, TypeAlias

__all__ = ["Tombstone", "Tombstones"]

_Run: TypeAlias = tuple[int, int, int]  # first LBA, the LBA behind the last one, sequence


class Tombstone(NamedTuple):
    """These blocks were unmapped by the change with this sequence number."""

    lba: int
    blocks: int
    sequence: int


class Tombstones:
    """The newest unmap of each block of one volume. Runs do not overlap."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._sequences: list[int] = []

    def bury(self, lba: int, blocks: int, sequence: int) -> None:
        """The blocks were unmapped; those of them with a newer sequence number keep it."""
        end = lba + blocks
        first, behind = self._overlapping(lba, end)
        runs: list[_Run] = []
        tail: list[_Run] = []
        at = lba
        for start, stop, newest in self._runs(first, behind):
            if newest > sequence:
                runs += [(at, start, sequence)] if at < start else []
                runs.append((start, stop, newest))
                at = stop
            else:
                runs += [(start, lba, newest)] if start < lba else []
                tail = [(end, stop, newest)] if end < stop else []
        runs += [(at, end, sequence)] if at < end else []
        self._replace(first, behind, [*runs, *tail])

    def drop(self, lba: int, blocks: int) -> None:
        """Nothing is known of the blocks any more."""
        end = lba + blocks
        first, behind = self._overlapping(lba, end)
        kept = [
            part
            for start, stop, sequence in self._runs(first, behind)
            for part in ((start, lba, sequence), (end, stop, sequence))
            if part[0] < part[1]
        ]
        self._replace(first, behind, kept)

    def since(self, lba: int) -> Iterator[Tombstone]:
        """The runs that begin at `lba` or behind it."""
        for start, stop, sequence in self._runs(bisect_left(self._starts, lba), len(self._starts)):
            yield Tombstone(start, stop - start, sequence)

    def __len__(self) -> int:
        return len(self._starts)

    def _overlapping(self, lba: int, end: int) -> tuple[int, int]:
        return bisect_right(self._ends, lba), bisect_left(self._starts, end)

    def _runs(self, first: int, behind: int) -> Iterator[_Run]:
        columns = (islice(column, first, behind) for column in (self._starts, self._ends, self._sequences))
        return zip(*columns, strict=True)

    def _replace(self, first: int, behind: int, runs: Iterable[_Run]) -> None:
        columns = zip(*runs, strict=True)
        for column in (self._starts, self._ends, self._sequences):
            column[first:behind] = next(columns, ())
