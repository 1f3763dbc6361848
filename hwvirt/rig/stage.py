"""What a run knows of its logical units: how to reach each one, its history, and how it was when redirection began."""

from __future__ import annotations

from array import array
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from hwvirt.disk.disk import Disk
from hwvirt.disk.reader import digest_blocks
from hwvirt.disk.witness import Record
from hwvirt.errors import ControllerError, RigError
from hwvirt.host.initiator import Initiator
from hwvirt.host.nbd.client import NbdInitiator
from hwvirt.rig.bench import Bench
from hwvirt.rig.far_bench import FarBench
from hwvirt.rig.file.model import Frozen, Redirect
from hwvirt.rig.judge.evidence import StoreCount
from hwvirt.rig.judge.history import History, MarkKind
from hwvirt.rig.report.folder import writer_of
from hwvirt.scsi.volume import Extent

__all__ = ["Baseline", "PathLost", "Stage", "Unit"]


class PathLost(RigError):
    """A path to a LUN was lost, and no fault of the rig had done it. Its controller may be about to end."""


@dataclass(slots=True)
class Baseline:
    """A first volume at the moment redirection began: digests of its blocks, length of its disk's witness."""

    digests: array[int]
    witnessed: int


@dataclass(slots=True)
class Unit:
    """One logical unit where it ends: a forwarded LUN is the unit that it leads to."""

    controller: str
    lun: int
    history: History
    baseline: Baseline | None = None
    initiators: dict[tuple[str, int], Initiator] = field(default_factory=dict)


class Stage:
    """The units of a bench, for one asyncio loop. Judges read the disks through it, not through controllers."""

    def __init__(self, bench: Bench | FarBench, stack: AsyncExitStack) -> None:
        self.bench = bench
        self.rig = bench.rig
        self._stack = stack
        self._writer = writer_of(bench.folder)
        self._units: dict[tuple[str, int], Unit] = {}
        self._disks: dict[str, Disk] = {}
        self.store_counts: dict[str, list[StoreCount]] = {}

    @property
    def units(self) -> list[Unit]:
        """Every unit that a step has named so far."""
        return list(self._units.values())

    def unit(self, controller: str, lun: int) -> Unit:
        """The unit that a LUN ends at."""
        end, number = self.rig.resolve(controller, lun)
        found = self._units.get((end, number))
        if found is None:
            numbers = sorted((name, known) for name, spec in self.rig.controllers.items() for known in spec.luns)
            volume = numbers.index((end, number)) + 1
            history = History(volume, self.rig.seed, self.rig.block_bytes(end, number), self._writer)
            found = self._units[end, number] = Unit(end, number, history)
        return found

    def source_of(self, controller: str, lun: int) -> Unit:
        """The unit whose first volume a frozen LUN shows; any other LUN's own unit."""
        spec = self.rig.controllers[controller].luns[lun]
        return self.unit(controller, spec.of if isinstance(spec, Frozen) else lun)

    def judged_units(self) -> list[Unit]:
        """Units that a host has changed or read: those with a history."""
        return [unit for unit in self._units.values() if len(unit.history)]

    async def initiator(self, controller: str, lun: int) -> Initiator:
        """A path to a LUN, kept for later steps."""
        unit = self.unit(controller, lun)
        path = unit.initiators.get((controller, lun))
        if path is None:
            path = await NbdInitiator.connect(*self.bench.export(controller, lun))
            unit.initiators[controller, lun] = path
            self._stack.push_async_callback(path.close)
        return path

    async def drop_paths(self, controller: str) -> None:
        """A controller has stopped: paths through it are of no use any more."""
        for unit in self._units.values():
            for (through, lun), path in list(unit.initiators.items()):
                if through == controller:
                    await path.close()
                    del unit.initiators[through, lun]

    # Directly from the disks.

    def disk_of(self, controller: str) -> Disk:
        """The disk of a controller, opened for the judge: read-only, shared."""
        name = self.rig.controllers[controller].disk
        disk = self._disks.get(name)
        if disk is None:
            disk = self.bench.disks[name].open_for_judge()
            self._stack.callback(disk.close)
            self._disks[name] = disk
        return disk

    def window(self, unit: Unit) -> Extent:
        """Where the unit's first volume lies on its disk."""
        return self.rig.extent(unit.controller, unit.lun)

    def witnessed(self, unit: Unit) -> list[Record]:
        """Medium-changing CDBs that named a block of the unit's first volume, since the disk was opened first."""
        name = self.rig.controllers[unit.controller].disk
        window = self.window(unit)
        return [
            record._replace(lba=record.lba - window.lba)
            for record in self.bench.disks[name].witnessed()
            # A command that names no extent may have changed any block.
            if not record.blocks or (record.lba < window.lba + window.blocks and window.lba < record.lba + record.blocks)
        ]

    def redirection_began(self, unit: Unit) -> None:
        """Remembers the first volume as it is now."""
        digests = digest_blocks(self.disk_of(unit.controller), self.window(unit))
        unit.baseline = Baseline(digests, len(self.witnessed(unit)))
        unit.history.mark(MarkKind.REDIRECT)

    # What controllers say.

    def remember_stores(self) -> None:
        """Keeps every controller's account of its store: blocks must be conserved at every cut."""
        for name, status in self.bench.status().items():
            if store := status.get("store"):
                count = StoreCount(store["blocks"], store["free"], store["live"], store["freed"])
                known = self.store_counts.setdefault(name, [])
                if not known or known[-1] != count:
                    known.append(count)

    def redirect_target(self, unit: Unit) -> str | None:
        """The controller that stores the unit's redirected blocks, None when it does not redirect."""
        spec = self.rig.controllers[unit.controller].luns[unit.lun]
        return spec.to if isinstance(spec, Redirect) else None

    def volumes_in(self, store: str) -> frozenset[int]:
        """The volumes whose redirected blocks a controller stores: what its ledger calls them."""
        controllers = self.rig.controllers.values()
        units = [(number, lun) for spec in controllers for number, lun in spec.luns.items()]
        return frozenset(number for number, lun in units if isinstance(lun, Redirect) and lun.to == store)

    def frozen_lun(self, unit: Unit) -> int | None:
        """The LUN that shows the unit's first volume frozen."""
        for number, spec in self.rig.controllers[unit.controller].luns.items():
            if isinstance(spec, Frozen) and spec.of == unit.lun:
                return number
        return None

    def store_window(self, controller: str) -> Extent:
        """Where a controller's store lies on its disk."""
        store = self.rig.layout[controller].store
        if store is None:
            raise ControllerError(f"controller {controller} has no store.")
        return store
