"""What the judge is given: frozen inputs. An input that is None was not taken; what needs it is not checked."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias

from hwvirt.disk.witness import Record
from hwvirt.rig.judge.history import History

__all__ = ["BlockReader", "Evidence", "LedgerRow", "MapRow", "State", "StoreCount", "TombRow"]

BlockReader: TypeAlias = Callable[[int, int], bytes]
"""(lba, blocks) → the bytes of those blocks. May raise DiskError."""


class State(Enum):
    """What the first volume is doing."""

    OWN = "own"
    REDIRECTING = "redirecting"
    COMMITTING = "committing"
    DISCARDING = "discarding"


class MapRow(NamedTuple):
    """A run of A's map: the `blocks` blocks from `lba` lie from `position` on, or read as zeroes where it is None.

    Every block of the run has the same generation and sequence.
    """

    lba: int
    blocks: int
    position: int | None
    generation: int
    sequence: int


class LedgerRow(NamedTuple):
    """A live entry of B's ledger: whose block lies at a position. `crc` is the CRC-32C of its data."""

    position: int
    lba: int
    sequence: int
    generation: int
    crc: int
    volume: int


class TombRow(NamedTuple):
    """A tombstone of B's ledger: these blocks of a volume were unmapped by the change with this sequence."""

    lba: int
    blocks: int
    sequence: int
    volume: int


class StoreCount(NamedTuple):
    """B's account of its positions, in blocks, at one cut; `freed` are given back but not yet to be used again."""

    capacity: int
    free: int
    live: int
    freed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything about one logical unit, taken while no request was in flight and after a flush.

    `blocks` is the size of the first volume and `volume` its number in B's ledger, `volumes` all that may have rows there;
    `ledger` and `tombstones` are those of all of them, as B tells;
    `store_blocks` is the size that the rig has given B's store, whatever B says of it. `baseline` holds the CRC-32C of each
    block of the first volume when redirection began; `witnessed` are the medium-changing CDBs since then. `first` and
    `second` read the first volume and the store's area directly from their disks, `frozen` reads the frozen LU through the
    host path. `stores` holds B's account at each cut, the last one together with the ledger. `replay` is the command that
    repeats the run.
    """

    history: History
    blocks: int
    volume: int
    state: State
    map: Sequence[MapRow] | None = None
    ledger: Sequence[LedgerRow] | None = None
    tombstones: Sequence[TombRow] | None = None
    volumes: frozenset[int] | None = None
    store_blocks: int | None = None
    stores: Sequence[StoreCount] = ()
    baseline: array[int] | None = None
    witnessed: Sequence[Record] | None = None
    first: BlockReader | None = None
    second: BlockReader | None = None
    frozen: BlockReader | None = None
    replay: str = ""
