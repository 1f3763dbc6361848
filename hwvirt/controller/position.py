"""Positions on the second volume as columns of 64-bit numbers, and runs of blocks unrolled into such columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hwvirt.link.messages import Placement, Slice

__all__ = [
    "GENERATION_BITS",
    "GENERATION_MASK",
    "MAPPED",
    "NEXT_BLOCK",
    "UNMAPPED",
    "ZERO",
    "Columns",
    "Stretch",
    "distinct",
    "joined_runs",
    "lbas_of",
    "pack",
    "portions",
    "runs_of",
    "stretches",
    "unpack",
]

Columns: TypeAlias = npt.NDArray[np.uint64]
Stretch: TypeAlias = tuple[int, int, int, int, int]
"""First LBA, blocks, sequence, LBA on the second volume, generation: one run on both volumes."""

GENERATION_BITS = 24
GENERATION_MASK = (1 << GENERATION_BITS) - 1
NEXT_BLOCK = 1 << GENERATION_BITS
"""The difference between the packed positions of two neighbours on the second volume."""
MAPPED = 1 << 63
ZERO = 1 << 62
UNMAPPED = 0
_NOWHERE = (0, 0, 0)


def pack(place: Placement) -> int:
    """The placement's first position in 64 bits: a mapped mark, 39 bits of LBA, 24 bits of generation."""
    return MAPPED | place.lba << GENERATION_BITS | place.generation


def lbas_of(runs: Sequence[tuple[int, int]] | Sequence[Slice]) -> Columns:
    """Every block address of runs (lba, blocks, ...) in order."""
    first = np.array([run[0] for run in runs], np.uint64)
    counts = [run[1] for run in runs]
    if max(counts, default=1) == 1:
        return first
    blocks = np.array(counts, np.uint64)
    ends = np.cumsum(blocks)
    within = np.arange(int(ends[-1]), dtype=np.uint64) - np.repeat(ends - blocks, counts)
    return np.repeat(first, counts) + within


def distinct(numbers: Columns) -> Columns:
    """The numbers in order, each once."""
    # np.unique makes a hash table of them: at ten million blocks that takes ten seconds, and this a tenth of one.
    in_order = np.sort(numbers)
    new = np.ones(len(in_order), np.bool_)
    np.not_equal(in_order[1:], in_order[:-1], out=new[1:])
    return in_order[new]


def portions(
    first: Columns, blocks: Columns, most: int
) -> Iterator[tuple[Columns, Columns, npt.NDArray[np.intp]]]:
    """The blocks of runs in order, at most `most` at a time.

    Of each block: its address, how many blocks of its run come before it, and the number of its run.
    """
    ends = np.cumsum(blocks, dtype=np.uint64)
    begins = ends - blocks
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, most):
        stop = min(start + most, total)
        low, high = np.searchsorted(ends, np.array([start, stop - 1], np.uint64), "right").tolist()
        counts = np.diff(np.minimum(ends[low : high + 1], np.uint64(stop)), prepend=np.uint64(start))
        run = np.repeat(np.arange(low, high + 1), counts.astype(np.int64))
        within = np.arange(start, stop, dtype=np.uint64) - begins[run]
        yield first[run] + within, within, run


def stretches(slices: Sequence[Slice], placements: Sequence[Placement]) -> list[Stretch]:
    """The blocks of both, in order, cut where either begins a new run. Raises ValueError when one covers more blocks."""
    found: list[Stretch] = []
    following = iter(placements)
    place = generation = room = 0
    for lba, blocks, sequence in slices:
        done = 0
        while done < blocks:
            if not room:
                place, generation, room = next(following, _NOWHERE)
                if not room:
                    raise ValueError(f"{len(placements)} placements do not cover {len(slices)} slices")
            part = min(blocks - done, room)
            found.append((lba + done, part, sequence, place, generation))
            done += part
            place += part
            room -= part
    if room or next(following, None):
        raise ValueError(f"{len(placements)} placements cover more than {len(slices)} slices")
    return found


def runs_of(packed: Columns) -> list[Placement]:
    """The shortest list of placements that names these mapped positions in this order."""
    if not len(packed):
        return []
    starts = np.concatenate(([0], np.flatnonzero(np.diff(packed) != NEXT_BLOCK) + 1))
    counts = np.diff(np.append(starts, len(packed)))
    return [unpack(position, blocks) for position, blocks in zip(packed[starts].tolist(), counts.tolist(), strict=True)]


def joined_runs(packed: Sequence[int]) -> list[Placement]:
    """As `runs_of`, for a few positions: without the cost of columns."""
    found: list[Placement] = []
    first = blocks = 0
    for position in packed:
        if blocks and position == first + blocks * NEXT_BLOCK:
            blocks += 1
            continue
        if blocks:
            found.append(unpack(first, blocks))
        first, blocks = position, 1
    if blocks:
        found.append(unpack(first, blocks))
    return found


def unpack(packed: int, blocks: int = 1) -> Placement:
    """The placement that starts at a packed position."""
    return Placement((packed & ~MAPPED) >> GENERATION_BITS, packed & GENERATION_MASK, blocks)
