"""Runs of blocks that read as zeroes, in order of LBA: an unmap of a whole volume is some thousands of them. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple, TypeAlias

__all__ = ["Tombstone", "Tombstones"]

_SECTION_BLOCKS = 1 << 14
"""Runs of so many LBAs lie together: to change one moves those behind it in its section, and no others."""
_Run: TypeAlias = tuple[int, int, int]  # first LBA, the LBA behind the last one, sequence


class Tombstone(NamedTuple):
    """These blocks were unmapped by the change with this sequence number."""

    lba: int
    blocks: int
    sequence: int


class Tombstones:
    """The newest unmap of each block of one volume. Runs do not overlap; none reaches over the edge of a section."""

    def __init__(self) -> None:
        self._sections: dict[int, _Section] = {}

    def bury(self, lba: int, blocks: int, sequence: int) -> None:
        """The blocks were unmapped; those of them with a newer sequence number keep it."""
        for number, start, end in _by_section(lba, blocks):
            section = self._sections.get(number)
            if section is None:
                section = self._sections[number] = _Section()
            section.bury(start, end, sequence)

    def drop(self, lba: int, blocks: int) -> None:
        """Nothing is known of the blocks any more."""
        first, last = lba // _SECTION_BLOCKS, (lba + blocks - 1) // _SECTION_BLOCKS
        for number in [number for number in self._sections if first <= number <= last]:
            section = self._sections[number]
            section.drop(lba, lba + blocks)
            if not len(section):
                del self._sections[number]

    def since(self, lba: int) -> Iterator[Tombstone]:
        """The runs that begin at `lba` or behind it."""
        for number in sorted(number for number in self._sections if number >= lba // _SECTION_BLOCKS):
            for start, stop, sequence in self._sections[number].since(lba):
                yield Tombstone(start, stop - start, sequence)

    def __len__(self) -> int:
        return sum(map(len, self._sections.values()))


class _Section:
    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._sequences: list[int] = []

    def bury(self, lba: int, end: int, sequence: int) -> None:
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

    def drop(self, lba: int, end: int) -> None:
        first, behind = self._overlapping(lba, end)
        kept = [
            part
            for start, stop, sequence in self._runs(first, behind)
            for part in ((start, lba, sequence), (end, stop, sequence))
            if part[0] < part[1]
        ]
        self._replace(first, behind, kept)

    def since(self, lba: int) -> Iterator[_Run]:
        return self._runs(bisect_left(self._starts, lba), len(self._starts))

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


def _by_section(lba: int, blocks: int) -> Iterator[tuple[int, int, int]]:
    """The parts of a run by section: its number, first LBA, the LBA behind the last one."""
    end = lba + blocks
    while lba < end:
        number = lba // _SECTION_BLOCKS
        stop = min(end, (number + 1) * _SECTION_BLOCKS)
        yield number, lba, stop
        lba = stop
