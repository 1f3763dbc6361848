"""What the controllers say of map and ledger, before anything is worked out from it: what cannot be is set aside.

The judge never trips over a claim, however absurd. Numbers beyond 2^62 and negative ones are impossible: no disk and no
counter gets there, and below that no sum of two of them leaves 64 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

import numpy as np

from hwvirt.rig.judge.evidence import LedgerRow, MapRow, TombRow
from hwvirt.rig.judge.history import Ints
from hwvirt.rig.judge.tables import Bools

__all__ = ["Ledger", "Mapped", "Stray", "ledger_of", "map_of", "numbers", "tombs_of"]

_MOST: Final = 1 << 62
_ENTRIES_OF_A_BLOCK: Final = 2
"""A map with more, on the average, is not even unrolled: two are a defect that can be shown, millions are not."""


class Mapped(NamedTuple):
    """A's map, a row per block in order of LBA; `position` is -1 for a block that reads as zeroes."""

    lba: Ints
    position: Ints
    generation: Ints
    sequence: Ints


class Ledger(NamedTuple):
    """B's live entries in order of position."""

    position: Ints
    lba: Ints
    sequence: Ints
    generation: Ints
    crc: Ints
    volume: Ints


class Stray(NamedTuple):
    """A row, or a part of one, that was set aside. `volume` is that of a row of the ledger, None for the map's.

    impossible: a number that nothing has. beyond: blocks that the volume has not. orphan: of a volume that no unit is.
    """

    kind: str
    lba: int | None
    detail: str
    volume: int | None = None


def map_of(rows: Sequence[MapRow], blocks: int) -> tuple[Mapped, list[Stray]]:
    """The map of a volume of so many blocks, from its runs."""
    placed = [row if row.position is not None else row._replace(position=0) for row in rows]
    table, good = numbers(placed, len(MapRow._fields))
    table[np.array([row.position is None for row in rows], np.bool_), 2] = -1
    inside, strays = _runs("map", rows, table, good, blocks)
    runs = table[inside]
    first, position, generation, sequence = runs[:, 0], runs[:, 2], runs[:, 3], runs[:, 4]
    count = np.minimum(runs[:, 1], blocks - first)
    unrolled = np.cumsum(count) <= _ENTRIES_OF_A_BLOCK * blocks
    for at in np.flatnonzero(inside)[~unrolled].tolist():
        detail = f"the map has more entries than the volume has blocks, among them {_words(rows[at])}"
        strays.append(Stray("impossible", rows[at].lba, detail))
    first, count = first[unrolled], count[unrolled]
    step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    lba, place = np.repeat(first, count) + step, np.repeat(position[unrolled], count)
    rest = (np.repeat(column[unrolled], count) for column in (generation, sequence))
    order = np.argsort(lba, kind="stable")
    return Mapped(*(column[order] for column in (lba, np.where(place < 0, -1, place + step), *rest))), strays


def ledger_of(rows: Sequence[LedgerRow]) -> tuple[Ledger, list[Stray]]:
    """B's live entries, of whatever volume."""
    table, good = numbers(rows, len(LedgerRow._fields))
    strays = [_impossible("ledger", rows[at], rows[at].volume) for at in np.flatnonzero(~good).tolist()]
    table = table[good]
    return Ledger(*table[np.argsort(table[:, 0], kind="stable")].T), strays


def tombs_of(
    rows: Sequence[TombRow], volume: int, volumes: frozenset[int] | None, blocks: int
) -> tuple[list[TombRow], list[Stray]]:
    """The tombstones of a volume that begin in its so many blocks; those of other units are theirs."""
    mine = [row for row in rows if row.volume == volume]
    table, good = numbers(mine, len(TombRow._fields))
    inside, strays = _runs("ledger", mine, table, good, blocks)
    for row in rows:
        if volumes is not None and row.volume not in volumes:
            detail = f"a tombstone ({_words(row)}) is of a volume that no logical unit is"
            strays.append(Stray("orphan", None, detail, row.volume))
    return [mine[at] for at in np.flatnonzero(inside).tolist()], strays


def numbers(rows: Sequence[Sequence[int | None]], width: int) -> tuple[Ints, Bools]:
    """Rows of so many numbers as a table, and which of them are possible; what no 64 bits hold comes out as impossible."""
    try:
        table = np.array(rows, np.int64)
    except OverflowError:
        table = np.array([[min(max(number or 0, -1), _MOST) for number in row] for row in rows], np.int64)
    table = table.reshape(-1, width)
    impossible = (table < 0) | (table >= _MOST)
    return table, np.count_nonzero(impossible, axis=1) == 0


_Run = TypeVar("_Run", MapRow, TombRow)


def _runs(whose: str, rows: Sequence[_Run], table: Ints, good: Bools, blocks: int) -> tuple[Bools, list[Stray]]:
    """Which rows begin in the volume, and what is wrong with any of them; lba and number of blocks stand in front."""
    lba, count = table[:, 0], table[:, 1]
    possible = good & (count > 0)
    strays = []
    for at in np.flatnonzero(~possible | (lba + count > blocks)).tolist():
        row = rows[at]
        volume = None if isinstance(row, MapRow) else row.volume
        if possible[at]:
            first, last = max(row.lba, blocks), row.lba + row.blocks - 1
            detail = f"the {whose} names blocks {first} to {last} of a volume of {blocks}"
            strays.append(Stray("beyond", first, detail, volume))
        else:
            strays.append(_impossible(whose, row, volume))
    inside: Bools = possible & (lba < blocks)
    return inside, strays


def _impossible(whose: str, row: MapRow | TombRow | LedgerRow, volume: int | None) -> Stray:
    lba = row.lba if 0 <= row.lba < _MOST else None
    return Stray("impossible", lba, f"the {whose} has a row that cannot be: {_words(row)}", volume)


def _words(row: MapRow | TombRow | LedgerRow) -> str:
    return " ".join(f"{name} {value}" for name, value in row._asdict().items() if value is not None)
