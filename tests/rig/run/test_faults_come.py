"""A fault that is slow to come into force still meets the workload: half of what was left of it, at least."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from hwvirt.errors import ControllerError
from hwvirt.link.faults import FaultKind, LinkFault
from hwvirt.rig.faults import Faults
from hwvirt.rig.file.scenario import AtShare, Crash, EveryOps, Fault, Restart, StrikeLink
from hwvirt.rig.stage import Stage
from hwvirt.rig.workload import Counts
from hwvirt.trace import Trace

CUT = StrikeLink(LinkFault(FaultKind.CUT, for_s=600.0), None)


@dataclass
class SlowStage:
    """Stage, bench, machine and cable in one: whatever is asked of it happens when the test says `now`."""

    units: tuple[()] = ()
    now: asyncio.Event = field(default_factory=asyncio.Event)
    over_at: asyncio.Event = field(default_factory=asyncio.Event)
    done: list[str] = field(default_factory=list)
    error: Exception | None = None

    @property
    def bench(self) -> SlowStage:
        return self

    cable = bench

    @property
    def machines(self) -> dict[str, SlowStage]:
        return {"b": self}

    @property
    def turn(self) -> asyncio.Lock:
        return asyncio.Lock()

    async def _do(self, what: str) -> None:
        await self.now.wait()
        if self.error is not None:
            raise self.error
        self.done.append(what)

    async def crash(self, name: str) -> None:
        await self._do("crash")

    async def stop(self, name: str) -> None:
        await self._do("stop")

    async def start(self, name: str) -> None:
        await self.over_at.wait()

    async def drop_paths(self, name: str) -> None:
        pass

    async def strike(self, fault: LinkFault, toward: str | None) -> SlowStage:
        await self._do("strike")
        return self

    struck = 1

    async def over(self) -> None:
        await self.over_at.wait()

    async def end(self) -> None:
        pass


def _play(script: Callable[[SlowStage, Callable[..., Faults]], Coroutine[Any, Any, None]]) -> None:
    async def played() -> None:
        stage = SlowStage()

        def faults(*wanted: Fault) -> Faults:
            return Faults(cast(Stage, stage), wanted, 100, Trace("rig"))

        async with asyncio.timeout(20):
            await script(stage, faults)

    asyncio.run(played())


@pytest.mark.parametrize("action", [CUT, Crash("b"), Restart("b")], ids=["cut", "crash", "restart"])
def test_the_workload_waits_at_half_of_what_was_left_until_the_fault_is_in_force(action: Any) -> None:
    async def script(stage: SlowStage, faults: Callable[..., Faults]) -> None:
        at_work = faults(Fault(AtShare(60), action))
        assert [at_work.progress(done, Counts()) for done in (59, 60, 79)] == [None] * 3
        hold = at_work.progress(80, Counts())
        assert hold is not None
        await asyncio.sleep(0)
        assert not hold.done()
        stage.now.set()
        await hold
        assert stage.done
        assert at_work.progress(80, Counts()) is None  # it is in force, and has not healed
        assert not stage.over_at.is_set()
        await at_work.abandon()

    _play(script)


def test_a_fault_that_cannot_come_holds_nobody() -> None:
    async def script(stage: SlowStage, faults: Callable[..., Faults]) -> None:
        stage.error = ControllerError("b does not end.")
        at_work = faults(Fault(AtShare(0), Crash("b")))
        hold = at_work.progress(50, Counts())
        assert hold is None
        hold = at_work.progress(75, Counts())
        assert hold is not None
        stage.now.set()
        await hold
        with pytest.raises(ControllerError):
            await at_work.finish()
        assert at_work.broken.is_set()

    _play(script)


def test_the_workload_waits_for_each_of_several() -> None:
    async def script(stage: SlowStage, faults: Callable[..., Faults]) -> None:
        at_work = faults(Fault(EveryOps(40), CUT))
        assert at_work.progress(40, Counts()) is None
        hold = at_work.progress(80, Counts())
        assert hold is not None
        assert at_work.progress(80, Counts()) is hold
        stage.now.set()
        await hold
        assert stage.done == ["strike", "strike"]
        await at_work.abandon()

    _play(script)
