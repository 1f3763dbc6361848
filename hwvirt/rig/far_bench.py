"""The bench of a run whose controllers have a kernel each: somebody else has started them, this one only reaches them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from hwvirt.disk.disk import Disk
from hwvirt.disk.witness import Record, parse_witness
from hwvirt.errors import ControllerError
from hwvirt.lab.far_disk import FarDisk
from hwvirt.rig.bench import Machine, export_of
from hwvirt.rig.configure import slow_start_s
from hwvirt.rig.control_client import ControlClient
from hwvirt.rig.errands import Outside, What
from hwvirt.rig.far_cable import FarCable
from hwvirt.rig.file.model import Rig
from hwvirt.trace import Trace
from hwvirt.units import Deadline

__all__ = ["FarBench", "FarBenchDisk", "FarMachine"]

_READY_S = 60.0
_REASON_S = 5.0
_RETRY_S = 0.25  # an attempt costs the controller's kernel what it needs to start the controller


class FarMachine(msgspec.Struct, frozen=True):
    """Where a controller's control socket (a path, or HOST:PORT) and its disk (HOST:PORT) are reached."""

    control: str
    disk: str


@dataclass(frozen=True, slots=True)
class FarBenchDisk:
    """A disk of another kernel."""

    address: str

    def open_for_judge(self) -> Disk:
        """See `BenchDisk`."""
        return FarDisk(self.address)

    def witnessed(self) -> list[Record]:
        """See `BenchDisk`."""
        disk = FarDisk(self.address)
        try:
            return parse_witness(disk.witness(), f"of {self.address}")
        finally:
            disk.close()


class FarBench:
    """A `Bench` whose controllers somebody outside starts and stops, and whose cable is in his hands."""

    def __init__(self, rig: Rig, folder: Path, trace: Trace, machines: Mapping[str, FarMachine]) -> None:
        self.rig = rig
        self.folder = folder
        self.trace = trace
        self._outside = Outside(self._lost)
        self._why_lost: dict[str, str] = {}
        self._told = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        self.cable = FarCable(self._outside)
        self.disks = {spec.disk: FarBenchDisk(machines[name].disk) for name, spec in rig.controllers.items()}
        self.machines = {
            name: Machine(name, folder / f"{name}.log", ControlClient(name, far.control, trace, retry_s=_RETRY_S))
            for name, far in machines.items()
        }

    async def bring_up(self, stack: AsyncExitStack) -> None:
        """Returns when every controller is ready. Raises ControllerError."""
        stack.callback(self._outside.listen())
        for machine in self.machines.values():
            stack.push_async_callback(machine.control.close)
            await self._wait_ready(machine)

    async def _wait_ready(self, machine: Machine) -> None:
        try:
            await machine.control.wait_ready(Deadline.after(_READY_S + slow_start_s(self.rig)))
        except ControllerError as error:
            raise self._blamed(machine.name) or error from None

    def _lost(self, name: str, why: str) -> None:
        """A controller has ended by itself: who waits for its answer need not wait any more."""
        self._why_lost[name] = why
        self._told.set()
        closing = asyncio.get_running_loop().create_task(self.machines[name].control.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    def _blamed(self, name: str) -> ControllerError | None:
        why = self._why_lost.get(name)
        return ControllerError(why, next_step=f"What it said is in kernel-{name}.log.") if why else None

    async def check_alive(self, silence_s: float | None = None) -> None:
        """See `Bench`."""
        for machine in self.machines.values():
            if machine.turn.locked():
                continue
            try:
                await machine.control.status(silence_s)
            except ControllerError as error:
                if not machine.turn.locked():  # else it is being restarted
                    await self._wait_for_the_reason(machine.name)
                    raise self._blamed(machine.name) or error from None

    async def _wait_for_the_reason(self, name: str) -> None:
        """Its socket closes before whoever is outside can tell how it ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_REASON_S):
                while name not in self._why_lost:
                    self._told.clear()
                    await self._told.wait()

    def status(self) -> Mapping[str, dict[str, Any]]:
        """See `Bench`."""
        return {name: machine.control.last_status for name, machine in self.machines.items()}

    def export(self, controller: str, lun: int) -> tuple[str, int, str]:
        """See `Bench`."""
        return export_of(controller, self.machines[controller].control.last_status, lun)

    async def start(self, name: str) -> None:
        """See `Bench`; boots the controller's kernel where it is off."""
        await self._outside.do(What.START, name)
        await self._wait_ready(self.machines[name])

    async def stop(self, name: str) -> None:
        """See `Bench`."""
        try:
            await self._outside.do(What.STOP, name)
        finally:
            await self.machines[name].control.ended()

    async def crash(self, name: str) -> None:
        """The controller's kernel has no power any more."""
        await self._outside.do(What.CUT, name)
        await self.machines[name].control.close()
