"""Counts and times what passes through a logical unit, a batch at a time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from hwvirt.buffers import length
from hwvirt.scsi.command import Command, Completion, LogicalUnit

__all__ = ["Meter"]

_KINDS = {0x88: "read", 0x28: "read", 0xA8: "read", 0x08: "read", 0x8A: "write", 0x2A: "write", 0xAA: "write", 0x0A: "write"}
_KINDS |= {0x35: "flush", 0x91: "flush", 0x42: "unmap", 0x93: "unmap", 0x41: "unmap"}
_COUNTERS = {"read": "reads", "write": "writes", "flush": "flushes", "unmap": "unmaps"}
_BLOCK_COUNTERS = {"read": "read_blocks", "write": "written_blocks"}
_SAMPLES = 512


class Meter:
    """A `LogicalUnit` in front of another one. Latency is that of a batch; quantiles are of the last 512 batches."""

    def __init__(self, inner: LogicalUnit, block_bytes: int) -> None:
        self._inner = inner
        self._block_bytes = block_bytes
        self._latency = {kind: deque[float](maxlen=_SAMPLES) for kind in ("read", "write", "flush")}
        self.counters = dict.fromkeys(
            ("reads", "read_blocks", "writes", "written_blocks", "flushes", "unmaps", "errors"), 0
        )

    async def execute(self, batch: Sequence[Command]) -> list[Completion]:
        """See `LogicalUnit.execute`."""
        started = time.perf_counter()
        completions = await self._inner.execute(batch)
        kind = _KINDS.get(batch[0].cdb[0]) if batch else None
        if kind is not None:
            self._count(kind, batch, completions)
            if kind in self._latency:
                self._latency[kind].append(time.perf_counter() - started)
        return completions

    def _count(self, kind: str, batch: Sequence[Command], completions: Sequence[Completion]) -> None:
        size_bytes = errors = 0
        for command, completion in zip(batch, completions, strict=True):
            size_bytes += command.data_in_length or length(command.data_out)
            if completion.status:
                errors += 1
        counters = self.counters
        counters[_COUNTERS[kind]] += len(batch)
        counters["errors"] += errors
        if kind in _BLOCK_COUNTERS:
            counters[_BLOCK_COUNTERS[kind]] += size_bytes // self._block_bytes

    def latency_us(self) -> dict[str, dict[str, Any]]:
        """For each kind the median and the 99th percentile in microseconds, 0 before the first."""
        return {kind: _quantiles(sorted(samples)) for kind, samples in self._latency.items()}


def _quantiles(samples: Sequence[float]) -> dict[str, Any]:
    if not samples:
        return {"p50": 0, "p99": 0}
    return {
        "p50": round(samples[len(samples) // 2] * 1e6),
        "p99": round(samples[min(len(samples) - 1, len(samples) * 99 // 100)] * 1e6),
    }
