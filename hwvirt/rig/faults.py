"""Faults of a workload: armed by its progress, so that the same seed breaks the same thing at the same operation."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hwvirt.rig.file.scenario import AtShare, Crash, CutLink, Fault, Restart
from hwvirt.rig.judge.history import MarkKind
from hwvirt.rig.stage import Stage
from hwvirt.rig.workload import Counts
from hwvirt.trace import Trace

__all__ = ["Faults", "describe"]


@dataclass(slots=True)
class _Armed:
    fault: Fault
    fired: bool = False


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
        self.broken = asyncio.Event()
        for fault in faults:
            trace.emit("fault.armed", fault=describe(fault))

    def progress(self, submitted: int, counts: Counts) -> None:
        """The workload has come this far."""
        for armed in self._armed:
            if not armed.fired and _is_due(armed.fault, submitted, self._ops, counts):
                armed.fired = True
                task = asyncio.get_running_loop().create_task(self._strike(armed.fault))
                task.add_done_callback(self._struck)
                self._striking.append(task)

    def _struck(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is not None:
            self.broken.set()

    async def finish(self) -> None:
        """Waits until every fault that fired has healed. Raises what went wrong on the way."""
        await asyncio.gather(*self._striking)

    async def abandon(self) -> None:
        """Stops what is under way: nothing is broken or started any more when it returns. Idempotent."""
        for task in self._striking:
            task.cancel()
        await asyncio.gather(*self._striking, return_exceptions=True)

    @property
    def unfired(self) -> list[str]:
        """Faults whose moment never came: a run that was not broken proves nothing."""
        return [describe(armed.fault) for armed in self._armed if not armed.fired]

    async def _strike(self, fault: Fault) -> None:
        action = fault.action
        if isinstance(action, CutLink):
            cable = self._stage.bench.cable
            assert cable is not None
            await cable.cut(action.for_s, describe(fault))
            return
        self._trace.emit("fault.fired", fault=describe(fault))
        await restart(self._stage, action)
        self._trace.emit("fault.healed", fault=describe(fault))


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


def _is_due(fault: Fault, submitted: int, ops: int, counts: Counts) -> bool:
    if isinstance(fault.when, AtShare):
        return submitted * 100 >= ops * fault.when.percent
    return int(getattr(counts, fault.when.counter.value)) >= fault.when.value


def describe(fault: Fault) -> str:
    """For people: "crash b after 5000 acknowledged"."""
    when = fault.when
    moment = f"at {when.percent}%" if isinstance(when, AtShare) else f"after {when.value} {when.counter.value}"
    return f"{_action(fault.action)} {moment}"


def _action(action: Any) -> str:
    if isinstance(action, CutLink):
        return f"cut link for {action.for_s:g}s"
    return f"{type(action).__name__.lower()} {action.controller}"
