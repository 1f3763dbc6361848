"""Faults of a workload: armed by its progress, so that the same seed breaks the same thing at the same operation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from hwvirt.rig.file.scenario import AfterCount, AtShare, Crash, EveryOps, Fault, FaultAction, Moment, Restart, StrikeLink
from hwvirt.rig.judge.history import MarkKind
from hwvirt.rig.stage import Stage
from hwvirt.rig.workload import Counts
from hwvirt.trace import Trace

__all__ = ["Faults", "describe"]


_SETTLE_S = 3.0
"""When a workload is over, frames still pass, at least one a second: time for faults that wait for some."""


@dataclass(slots=True)
class _Armed:
    """A fault, how often its moment came, and whether it ever did anything."""

    fault: Fault
    fired: int = 0
    struck: bool = False


class Faults:
    """The faults of one workload. `progress` fires what is due; `finish` waits until everything has healed.

    `broken` is set when a fault does not heal: the workload need not go on.
    """

    def __init__(self, stage: Stage, faults: Sequence[Fault], ops: int, trace: Trace) -> None:
        self._stage = stage
        self._armed = [_Armed(fault) for fault in faults]
        self._ops = ops
        self._trace = trace
        self._striking: list[asyncio.Task[None]] = []
        self._waiting_for_frames: set[asyncio.Task[None]] = set()
        self.broken = asyncio.Event()
        for fault in faults:
            trace.emit("fault.armed", fault=describe(fault))

    def progress(self, submitted: int, counts: Counts) -> None:
        """The workload has come this far."""
        for armed in self._armed:
            while armed.fired < _times_due(armed.fault, submitted, self._ops, counts):
                armed.fired += 1
                self._begin(armed)

    def _begin(self, armed: _Armed) -> None:
        action = armed.fault.action
        work = self._strike_link(armed, action) if isinstance(action, StrikeLink) else self._restart(armed, action)
        task = asyncio.get_running_loop().create_task(work)
        if isinstance(action, StrikeLink) and action.fault.count is not None:
            self._waiting_for_frames.add(task)
            task.add_done_callback(self._waiting_for_frames.discard)
        else:
            self._striking.append(task)
        task.add_done_callback(self._struck)

    def _struck(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.broken.set()

    async def finish(self) -> None:
        """Waits until every fault with an end of its own has healed. Raises what went wrong on the way."""
        await asyncio.gather(*self._striking)

    async def settle(self) -> None:
        """The workload is over: waits for the rest, and takes back what no frame came for."""
        await self.finish()
        if self._waiting_for_frames:
            await asyncio.wait(self._waiting_for_frames, timeout=_SETTLE_S)
        await self.abandon()

    async def abandon(self) -> None:
        """Stops what is under way: nothing is broken or started any more when it returns. Idempotent."""
        under_way = [*self._striking, *self._waiting_for_frames]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    @property
    def unfired(self) -> list[str]:
        """Faults whose moment never came, or that met no frame: a run that was not broken proves nothing."""
        return [describe(armed.fault) for armed in self._armed if not armed.struck]

    async def _strike_link(self, armed: _Armed, action: StrikeLink) -> None:
        cable = self._stage.bench.cable
        assert cable is not None
        self._trace.emit("fault.fired", fault=describe(armed.fault))
        strike = await cable.strike(action.fault, action.toward)
        try:
            await strike.over()
        finally:
            await strike.end()
            armed.struck |= strike.struck > 0 or action.fault.count is None
            self._trace.emit("fault.healed", fault=describe(armed.fault), frames=strike.struck)

    async def _restart(self, armed: _Armed, action: Crash | Restart) -> None:
        armed.struck = True
        self._trace.emit("fault.fired", fault=describe(armed.fault))
        await restart(self._stage, action)
        self._trace.emit("fault.healed", fault=describe(armed.fault))


async def restart(stage: Stage, action: Crash | Restart) -> None:
    """Stops or kills a controller and starts it again. Requests on paths through it are in doubt."""
    bench, name = stage.bench, action.controller
    async with bench.machines[name].turn:
        if isinstance(action, Crash):
            await bench.crash(name)
            for unit in stage.units:
                if unit.controller == name:
                    unit.history.mark(MarkKind.POWER_CUT)
        else:
            await bench.stop(name)
        await stage.drop_paths(name)
        await bench.start(name)


def _times_due(fault: Fault, submitted: int, ops: int, counts: Counts) -> int:
    """How often the moment of the fault has come."""
    match fault.when:
        case AtShare(percent):
            return int(submitted * 100 >= ops * percent)
        case AfterCount(counter, value):
            return int(getattr(counts, counter.value) >= value)
        case EveryOps(every):
            return submitted // every


def describe(fault: Fault) -> str:
    """For people: "crash b after 5000 acknowledged"."""
    return f"{_action(fault.action)} {_moment(fault.when)}"


def _moment(when: Moment) -> str:
    match when:
        case AtShare(percent):
            return f"at {percent}%"
        case AfterCount(counter, value):
            return f"after {value} {counter.value}"
        case EveryOps(every):
            return f"every {every} operations"


def _action(action: FaultAction) -> str:
    if isinstance(action, StrikeLink):
        return action.fault.text if action.toward is None else f"{action.fault.text} toward {action.toward}"
    return f"{type(action).__name__.lower()} {action.controller}"
