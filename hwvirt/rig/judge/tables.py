"""The tables that the register works on: a row for each block of an operation."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from hwvirt.rig.judge.history import Columns, Ints

__all__ = ["Accusations", "Bools", "Pairs", "Reads", "Rule", "Writes", "distinct", "select", "spread"]

Bools: TypeAlias = npt.NDArray[np.bool_]


class Rule(IntEnum):
    """What is wrong with a read."""

    ORDER = 0  # no order of the overlapping requests explains it: it is stale, or a later read is
    EARLY = 1  # it returned a version before that write had begun
    LATE = 2  # it returned a write that failed or was in doubt, after a newer write had completed
    LOST = 3  # after a power cut it returned something older than what a flush had covered
    UNWRITTEN = 4  # no write gave this version to this block
    TORN = 5
    MISDIRECTED = 6
    FOREIGN = 7


class Writes(NamedTuple):
    """What gives blocks a version. `sure`: acknowledged, and `end` is when; else `told` is when its failure was reported.

    Moments that are not known are the last moment of all.
    """

    lba: Ints
    version: Ints
    start: Ints
    end: Ints
    told: Ints
    sure: Bools
    durable: Bools


class Reads(NamedTuple):
    """Answered reads, a row per block; `number` is the operation."""

    lba: Ints
    version: Ints
    start: Ints
    end: Ints
    number: Ints


class Accusations(NamedTuple):
    """Wrong reads: what `number` returned for a block and what it should have, a row each."""

    rule: Ints
    lba: Ints
    found: Ints
    expected: Ints
    number: Ints


class Pairs(NamedTuple):
    """Versions that blocks may hold, sorted by LBA."""

    lba: Ints
    version: Ints


_Table = TypeVar("_Table", Writes, Reads, Accusations, Pairs)


def select(table: _Table, rows: Bools | Ints) -> _Table:
    """The same columns, these rows only."""
    return type(table)._make(column[rows] for column in table)


def distinct(lba: Ints, version: Ints) -> Pairs:
    """The pairs in order of LBA, then version, each once."""
    order = np.lexsort((version, lba))
    lba, version = lba[order], version[order]
    fresh = np.ones(len(order), np.bool_)
    fresh[1:] = (np.diff(lba) != 0) | (np.diff(version) != 0)
    return Pairs(lba[fresh], version[fresh])


def spread(columns: Columns, wanted: Bools, first: int, stop: int) -> tuple[Ints, Ints, Ints]:
    """A row per block of the wanted operations in `first ≤ lba < stop`: operation row, LBA, offset in the operation."""
    rows = np.flatnonzero(wanted & (columns.lba < stop) & (columns.lba + columns.blocks > first))
    low = np.maximum(columns.lba[rows], first)
    counts = np.minimum(columns.lba[rows] + columns.blocks[rows], stop) - low
    row = np.repeat(rows, counts)
    ends = np.cumsum(counts)
    lba = np.repeat(low, counts) + np.arange(len(row)) - np.repeat(ends - counts, counts)
    return row, lba, lba - columns.lba[row]
