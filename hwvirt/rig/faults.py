"""Faults of a workload: armed by its progress, so that the same seed breaks the same thing at the same operation."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Sequence
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


class _OnTheWay:
    """Faults that were fired and are not in force yet: power that somebody else has to cut, a cable that he holds.

    The workload goes on meanwhile, so that they meet requests under way, but no further than half of what was left of it.
    """

    def __init__(self, ops: int) -> None:
        self._ops = ops
        self._faults = 0
        self._most = ops
        self._in_force: Future[None] | None = None

    def begin(self, submitted: int) -> Callable[[], None]:
        """One more, fired at that operation; to be called when it is in force, or never will be. Idempotent."""
        self._most = min(self._most, (submitted + self._ops) // 2)
        self._faults += 1
        came = False

        def in_force() -> None:
            nonlocal came
            self._faults -= not came
            came = True
            if not self._faults:
                self._most = self._ops
                if self._in_force is not None:
                    self._in_force.set_result(None)
                    self._in_force = None

        return in_force

    def to_wait_for(self, submitted: int) -> Future[None] | None:
        """What a workload that has come this far waits for, if anything."""
        if not self._faults or submitted < self._most:
            return None
        if self._in_force is None:
            self._in_force = asyncio.get_running_loop().create_future()
        return self._in_force


class Faults:
    """The faults of one workload. `progress` fires what is due; `finish` waits until everything has healed.

    `broken` is set when a fault does not heal: the workload need not go on.
    """

    def __init__(self, stage: Stage, faults: Sequence[Fault], ops: int, trace: Trace) -> None:
        self._stage = stage
        self._armed = [_Armed(fault) for fault in faults]
        self._ops = ops
        self._on_the_way = _OnTheWay(ops)
        self._trace = trace
        self._striking: list[asyncio.Task[None]] = []
        self._waiting_for_frames: set[asyncio.Task[None]] = set()
        self.broken = asyncio.Event()
        for fault in faults:
            trace.emit("fault.armed", fault=describe(fault))

    def progress(self, submitted: int, counts: Counts) -> Future[None] | None:
        """The workload has come this far. Where a future is returned, it goes on when that is done."""
        for armed in self._armed:
            while armed.fired < _times_due(armed.fault, submitted, self._ops, counts):
                armed.fired += 1
                self._begin(armed, self._on_the_way.begin(submitted))
        return self._on_the_way.to_wait_for(submitted)

    def _begin(self, armed: _Armed, in_force: Callable[[], None]) -> None:
        action = armed.fault.action
        if isinstance(action, StrikeLink):
            work = self._strike_link(armed, action, in_force)
        else:
            work = self._restart(armed, action, in_force)
        task = asyncio.get_running_loop().create_task(work)
        if isinstance(action, StrikeLink) and action.fault.count is not None:
            self._waiting_for_frames.add(task)
            task.add_done_callback(self._waiting_for_frames.discard)
        else:
            self._striking.append(task)
        task.add_done_callback(self._struck)
        task.add_done_callback(lambda _: in_force())

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

    async def _strike_link(self, armed: _Armed, action: StrikeLink, in_force: Callable[[], None]) -> None:
        cable = self._stage.bench.cable
        assert cable is not None
        self._trace.emit("fault.fired", fault=describe(armed.fault))
        strike = await cable.strike(action.fault, action.toward)
        in_force()
        try:
            await strike.over()
        finally:
            await strike.end()
            armed.struck |= strike.struck > 0 or action.fault.count is None
            self._trace.emit("fault.healed", fault=describe(armed.fault), frames=strike.struck)

    async def _restart(self, armed: _Armed, action: Crash | Restart, in_force: Callable[[], None]) -> None:
        armed.struck = True
        self._trace.emit("fault.fired", fault=describe(armed.fault))
        await restart(self._stage, action, in_force)
        self._trace.emit("fault.healed", fault=describe(armed.fault))


async def restart(stage: Stage, action: Crash | Restart, is_down: Callable[[], None] = lambda: None) -> None:
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
        is_down()
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
