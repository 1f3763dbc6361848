"""How a defect is planted in a controller: one function takes the place of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

from hwvirt.buffers import Pieces, joined
from hwvirt.link.messages import Placement, Slice
from hwvirt.scsi.volume import Extent

LBA = 17
"""The block that most defects are about: a card can be right or wrong about it. Their rigs write single blocks.

With the seed of these rigs it is written, read and overwritten, and the last change of its neighbour is a write as well.
"""
UNMAPPED = 2
"""A block whose last change is an unmap."""
SPOILED = "spoiled"
"""The first word of a line on stdout that names blocks, where a defect chooses them itself."""

MUTANTS: dict[str, Callable[[], None]] = {}
_REPLACED: list[tuple[Any, str, Any]] = []
_Function = TypeVar("_Function", bound=Callable[..., Any])


def mutant(plant: Callable[[], None]) -> Callable[[], None]:
    """Puts a defect into the table, under its name."""
    MUTANTS[plant.__name__] = plant
    return plant


def instead_of(owner: Any, name: str) -> Callable[[_Function], _Function]:
    """The function takes the place of a method or function, and gets that as its first argument."""

    def take_place(function: _Function) -> _Function:
        original = getattr(owner, name)

        @wraps(original)
        def planted(*args: Any, **kwargs: Any) -> Any:
            return function(original, *args, **kwargs)

        _REPLACED.append((owner, name, original))
        setattr(owner, name, planted)
        return function

    return take_place


@contextmanager
def planted(plant: Callable[[], None]) -> Iterator[None]:
    """The defect is there inside, and nowhere else."""
    before = len(_REPLACED)
    try:
        plant()
        yield
    finally:
        while len(_REPLACED) > before:
            owner, name, original = _REPLACED.pop()
            setattr(owner, name, original)


def spoiled(*lbas: int) -> None:
    """Tells the test which blocks are wrong now."""
    print(SPOILED, *lbas, flush=True)


def names_lba(runs: Sequence[Any]) -> bool:
    """Whether one of the runs (of whatever kind) covers LBA."""
    return any(run.lba <= LBA < run.lba + run.blocks for run in runs)


def with_block(results: Sequence[Any], extents: Sequence[Extent], block: Pieces) -> list[Any]:
    """The results of reads, with other data for LBA."""
    changed = list(results)
    for index, extent in enumerate(extents):
        if names_lba([extent]):
            whole, size = bytearray(joined(results[index])), len(joined(block))
            at = (LBA - extent.lba) * size
            whole[at : at + size] = joined(block)
            changed[index] = [bytes(whole)]
    return changed


def one_by_one(slices: Sequence[Slice], placements: Sequence[Placement]) -> list[tuple[Slice, Placement]]:
    """The same slices and placements, block by block."""
    blocks = [Slice(lba + at, 1, sequence) for lba, blocks, sequence in slices for at in range(blocks)]
    places = [Placement(lba + at, generation, 1) for lba, generation, blocks in placements for at in range(blocks)]
    return list(zip(blocks, places, strict=True))


def with_half_a_block(data: Pieces, index: int, block_bytes: int) -> Pieces:
    """The second half of that block is zeroes."""
    whole = bytearray(joined(data))
    middle = index * block_bytes + block_bytes // 2
    whole[middle : middle + block_bytes // 2] = bytes(block_bytes // 2)
    return [bytes(whole)]
