"""The bench of a run whose controllers have a kernel each: somebody else has started them, this one only reaches them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from hwvirt.disk.disk import Disk
from hwvirt.disk.witness import Record, parse_witness
from hwvirt.errors import RigError
from hwvirt.lab.far_disk import FarDisk
from hwvirt.rig.bench import START_S, Machine, export_of
from hwvirt.rig.cable import Cable
from hwvirt.rig.control_client import ControlClient
from hwvirt.rig.file.model import Rig
from hwvirt.trace import Trace
from hwvirt.units import Deadline

__all__ = ["FarBench", "FarBenchDisk", "FarMachine"]


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
    """A `Bench` that starts and stops nothing."""

    def __init__(self, rig: Rig, folder: Path, trace: Trace, machines: Mapping[str, FarMachine]) -> None:
        self.rig = rig
        self.folder = folder
        self.trace = trace
        self.cable: Cable | None = None
        self.disks = {spec.disk: FarBenchDisk(machines[name].disk) for name, spec in rig.controllers.items()}
        self.machines = {
            name: Machine(name, folder / f"{name}.log", ControlClient(name, far.control, trace))
            for name, far in machines.items()
        }

    async def bring_up(self, stack: AsyncExitStack) -> None:
        """Returns when every controller is ready. Raises ControllerError."""
        for machine in self.machines.values():
            stack.push_async_callback(machine.control.close)
            await machine.control.wait_ready(Deadline.after(START_S))

    async def check_alive(self) -> None:
        """See `Bench`."""
        for machine in self.machines.values():
            await machine.control.status()

    def status(self) -> Mapping[str, dict[str, Any]]:
        """See `Bench`."""
        return {name: machine.control.last_status for name, machine in self.machines.items()}

    def export(self, controller: str, lun: int) -> tuple[str, int, str]:
        """See `Bench`."""
        return export_of(controller, self.machines[controller].control.last_status, lun)

    async def start(self, name: str) -> NoReturn:
        """Not possible from here."""
        raise RigError(f"controller {name} runs in a kernel of its own and cannot be restarted by a step of the rig.")

    async def stop(self, name: str) -> NoReturn:
        """Not possible from here."""
        await self.start(name)

    async def crash(self, name: str) -> NoReturn:
        """Not possible from here."""
        await self.start(name)
