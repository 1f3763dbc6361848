"""The three things that a host does in a rig."""

from __future__ import annotations

import asyncio
from asyncio import Future

from hwvirt.host.initiator import Initiator
from hwvirt.rig.judge.history import History
from hwvirt.rig.workload.drive import Counts, Drive, Progress, Reconnect
from hwvirt.rig.workload.plan import Script, WorkloadPlan, fill_script, flush_script, read_script, workload_script

__all__ = ["fill", "read_all", "run_workload"]

_CHUNK_BYTES = 1 << 20
_DEPTH = 8


async def run_workload(
    initiator: Initiator,
    plan: WorkloadPlan,
    history: History,
    *,
    on_progress: Progress | None = None,
    stop: asyncio.Event | None = None,
    reconnect: Reconnect | None = None,
) -> Counts:
    """Does the plan's operations. Raises ValueError for a plan that does not fit the logical unit.

    After `stop`, or when the path is lost and there is no `reconnect`, it submits nothing more and returns with the last
    answer.
    """
    script = workload_script(plan, initiator.blocks)
    drive = Drive(initiator, script, history, plan.depth, on_progress=on_progress, stop=stop, reconnect=reconnect)
    return await drive.run()


async def fill(
    initiator: Initiator, history: History, *, on_progress: Progress | None = None, stop: asyncio.Event | None = None
) -> Counts:
    """Writes every block once in writes of 1 MiB, 8 in flight, then flushes. Progress is that of the writes."""
    reached = 0

    def told(submitted: int, counts: Counts) -> Future[None] | None:
        nonlocal reached
        reached = submitted
        counts.fills = counts.acknowledged
        return on_progress(reached, counts) if on_progress is not None else None

    chunks = fill_script(initiator.blocks, _CHUNK_BYTES // initiator.block_bytes)
    counts = await _drive(initiator, chunks, history, told, stop)
    failed, in_doubt = counts.failed, counts.in_doubt

    def flushed(_: int, of_flush: Counts) -> Future[None] | None:
        counts.flushes = of_flush.flushes
        counts.failed, counts.in_doubt = failed + of_flush.failed, in_doubt + of_flush.in_doubt
        return told(reached, counts)

    await _drive(initiator, flush_script(), history, flushed, stop)
    return counts


async def read_all(
    initiator: Initiator, history: History, *, on_progress: Progress | None = None, stop: asyncio.Event | None = None
) -> Counts:
    """Reads every block once in reads of 1 MiB, 8 in flight: the last word of the host path for the judge."""
    chunks = read_script(initiator.blocks, _CHUNK_BYTES // initiator.block_bytes)
    return await _drive(initiator, chunks, history, on_progress, stop)


async def _drive(
    initiator: Initiator, script: Script, history: History, on_progress: Progress | None, stop: asyncio.Event | None
) -> Counts:
    return await Drive(initiator, script, history, _DEPTH, on_progress=on_progress, stop=stop).run()
