"""What a workload will do, worked out before it starts: the same plan gives the same operations in the same order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hwvirt.rig.judge.history import Ints, Kind

__all__ = ["Mix", "Script", "WorkloadPlan", "fill_script", "flush_script", "read_script", "workload_script"]


@dataclass(frozen=True, slots=True)
class Mix:
    """The shares of the operations; only their ratio counts. `fua` are writes that are durable when acknowledged."""

    write: int = 0
    read: int = 0
    flush: int = 0
    unmap: int = 0
    zero: int = 0
    fua: int = 0


@dataclass(frozen=True, slots=True)
class WorkloadPlan:
    """`ops` operations of `least` to `most` blocks each, anywhere on the logical unit, `depth` of them in flight."""

    ops: int
    depth: int
    least: int
    most: int
    mix: Mix
    seed: int


class Script(NamedTuple):
    """Operations in the order of their submission, a row each."""

    kind: Ints
    lba: Ints
    blocks: Ints


def workload_script(plan: WorkloadPlan, capacity: int) -> Script:
    """The plan's operations on a logical unit of `capacity` blocks. Raises ValueError for a plan that does not fit there."""
    mix = plan.mix
    weights = {
        Kind.WRITE: mix.write,
        Kind.READ: mix.read,
        Kind.FLUSH: mix.flush,
        Kind.UNMAP: mix.unmap,
        Kind.ZERO: mix.zero,
        Kind.WRITE_FUA: mix.fua,
    }
    total = sum(weights.values())
    if total <= 0 or min(weights.values()) < 0:
        raise ValueError("the mix has no operations")
    if not 1 <= plan.least <= plan.most <= capacity:
        raise ValueError(f"operations of {plan.least} to {plan.most} blocks do not fit into {capacity} blocks")
    rng = np.random.default_rng(plan.seed)
    kind = rng.choice(np.array(list(weights)), plan.ops, p=np.array(list(weights.values())) / total)
    blocks = rng.integers(plan.least, plan.most, plan.ops, endpoint=True)
    lba = rng.integers(0, capacity - blocks, endpoint=True)
    flush = kind == Kind.FLUSH
    return Script(kind, np.where(flush, 0, lba), np.where(flush, 0, blocks))


def fill_script(capacity: int, chunk_blocks: int) -> Script:
    """Writes every block once, in order."""
    lba, blocks = _chunks(capacity, chunk_blocks)
    return Script(np.full(len(lba), int(Kind.WRITE), np.int64), lba, blocks)


def flush_script() -> Script:
    """One flush."""
    return Script(np.array([Kind.FLUSH], np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64))


def read_script(capacity: int, chunk_blocks: int) -> Script:
    """Reads every block once, in order."""
    lba, blocks = _chunks(capacity, chunk_blocks)
    return Script(np.full(len(lba), int(Kind.READ), np.int64), lba, blocks)


def _chunks(capacity: int, chunk_blocks: int) -> tuple[Ints, Ints]:
    lba = np.arange(0, capacity, chunk_blocks)
    return lba, np.minimum(chunk_blocks, capacity - lba)
