"""Positions on the second volume as columns of 64-bit numbers, and runs of blocks unrolled into such columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hwvirt.link.messages import Placement, Slice

__all__ = [
    "MAPPED",
    "NEXT_BLOCK",
    "UNMAPPED",
    "ZERO",
    "Columns",
    "lbas_of",
    "pack",
    "positions_of",
    "runs_of",
    "unpack",
]

Columns: TypeAlias = npt.NDArray[np.uint64]

GENERATION_BITS = 24
GENERATION_MASK = (1 << GENERATION_BITS) - 1
NEXT_BLOCK = 1 << GENERATION_BITS
"""The difference between the packed positions of two neighbours on the second volume."""
MAPPED = 1 << 63
ZERO = 1 << 62
UNMAPPED = 0


def pack(place: Placement) -> int:
    """The placement's first position in 64 bits: a mapped mark, 39 bits of LBA, 24 bits of generation."""
    return MAPPED | place.lba << GENERATION_BITS | place.generation


def lbas_of(runs: Sequence[tuple[int, int]] | Sequence[Slice]) -> Columns:
    """Every block address of runs (lba, blocks, ...) in order."""
    return _expand([run[0] for run in runs], [run[1] for run in runs], 1)


def positions_of(placements: Sequence[Placement]) -> Columns:
    """Every packed position of the placements in order."""
    return _expand([pack(place) for place in placements], [place.blocks for place in placements], NEXT_BLOCK)


def _expand(starts: list[int], counts: list[int], step: int) -> Columns:
    first = np.array(starts, np.uint64)
    if max(counts, default=1) == 1:
        return first
    blocks = np.array(counts, np.uint64)
    ends = np.cumsum(blocks)
    within = np.arange(int(ends[-1]), dtype=np.uint64) - np.repeat(ends - blocks, counts)
    return np.repeat(first, counts) + within * np.uint64(step)


def runs_of(packed: Columns) -> list[Placement]:
    """The shortest list of placements that names these mapped positions in this order."""
    if not len(packed):
        return []
    starts = np.concatenate(([0], np.flatnonzero(np.diff(packed) != NEXT_BLOCK) + 1))
    counts = np.diff(np.append(starts, len(packed)))
    return [unpack(position, blocks) for position, blocks in zip(packed[starts].tolist(), counts.tolist(), strict=True)]


def unpack(packed: int, blocks: int = 1) -> Placement:
    """The placement that starts at a packed position."""
    return Placement((packed & ~MAPPED) >> GENERATION_BITS, packed & GENERATION_MASK, blocks)
