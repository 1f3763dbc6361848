"""One controller: opens its disk, meets its peer, recovers, serves hosts, and stops without losing anything."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path

import msgspec
import uvloop

from hwvirt.controller.config import Config
from hwvirt.controller.config_file import load_config, refuse_misfits
from hwvirt.controller.control import ControlServer
from hwvirt.controller.guarded import guarded
from hwvirt.controller.journal import StateDirectory
from hwvirt.controller.lifecycle import Lifecycle
from hwvirt.controller.link_side import LinkSide
from hwvirt.controller.memory import keep_large_buffers
from hwvirt.controller.service import Service
from hwvirt.controller.states import State
from hwvirt.controller.store import LocalStore
from hwvirt.controller.units import Unit, build_units
from hwvirt.controller.verbs import verbs_of
from hwvirt.disk.discovery.removable import RemovableDisk
from hwvirt.disk.disk import Disk
from hwvirt.disk.facts import describe_disk
from hwvirt.disk.open import open_disk
from hwvirt.disk.volume import DiskVolume
from hwvirt.errors import ControllerError, DiskError, ExitCode, StateError
from hwvirt.host.nbd.export import Export
from hwvirt.host.nbd.server import NbdServer
from hwvirt.scsi.cdb import read_capacity_16
from hwvirt.scsi.command import Command
from hwvirt.scsi.sense import CheckCondition
from hwvirt.scsi.volume import Access, Extent, Residency
from hwvirt.stopping import on_end_of_input, on_stop
from hwvirt.trace import Event, Trace
from hwvirt.units import Deadline

__all__ = ["Controller", "main"]

_DISK_S = 30.0


def main(config_path: Path, *, until_eof: bool = False) -> ExitCode:
    """Runs the controller of a configuration file until it is told to stop. Raises HwvirtError when it cannot start.

    `until_eof`: the end of standard input tells it to stop, too.
    """
    keep_large_buffers()
    return uvloop.run(_run(load_config(config_path), until_eof))


async def _run(config: Config, until_eof: bool) -> ExitCode:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    on_stop(stop.set)
    if until_eof:
        on_end_of_input(stop.set)
    trace = Trace(config.name)
    trace.subscribe(_tell)
    async with AsyncExitStack() as stack:
        controller = Controller(config, trace)
        starting = loop.create_task(controller.start(stack))
        stopped = loop.create_task(stop.wait())
        await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
        await asyncio.gather(starting, return_exceptions=stop.is_set())
        await stopped
    return ExitCode.PASSED


def _tell(event: Event) -> None:
    with suppress(OSError, ValueError):  # nobody reads our log: hosts are served all the same
        print(event.line(), file=sys.stderr, flush=True)


class Controller:
    """The parts of one controller, and what the control socket tells of them."""

    def __init__(self, config: Config, trace: Trace) -> None:
        self.config = config
        self.trace = trace
        self.units: dict[int, Unit] = {}
        self.store: LocalStore | None = None
        self.link: LinkSide | None = None
        self.disk: Disk | None = None
        self.boot_epoch = int.from_bytes(os.urandom(7), "little") | 1
        self.disk_blocks = 0
        self.nbd_port = 0
        self.ready = False
        self._started = time.monotonic()

    async def start(self, stack: AsyncExitStack) -> None:
        """Brings every part up, each with its undoing on the stack. Hosts are let in last, when all is recovered."""
        config, trace = self.config, self.trace
        control = ControlServer(Path(config.control), verbs_of(self), trace)
        state = _state_directory(config)
        stack.callback(state.close)
        self.disk = _disk(config, trace, stack)
        if isinstance(self.disk, RemovableDisk):
            _watch(self.disk, trace, stack)
        self.disk_blocks = describe_disk(self.disk, Deadline.after(_DISK_S)).blocks
        refuse_misfits(config, self.disk_blocks)
        if config.store is not None:
            volume = DiskVolume(self.disk, Extent(config.store.lba, config.store.blocks), config.disk.block_bytes)
            journal = state.journal("ledger")
            stack.callback(journal.close)
            self.store = LocalStore(volume, journal, trace)
        if config.link is not None:
            self.link = LinkSide(config.name, config.link, self.boot_epoch, trace)
        self.units = dict(build_units(config, self.disk, state, self.link.patient if self.link else None, trace))
        for unit in self.units.values():
            if unit.lifecycle is not None:
                unit.lifecycle.load()
        await control.start()
        stack.push_async_callback(control.close)
        stack.callback(lambda: trace.emit("controller.stopped", pid=os.getpid()))
        if self.link is not None:
            await self._meet_peer(stack, self.link)
        stack.push_async_callback(self._flush_everything)
        for number, unit in self.units.items():
            if unit.lifecycle is not None:
                stack.push_async_callback(unit.lifecycle.close)
                await self._go_on(number, unit.lifecycle, State(unit.config.start))
        await self._let_hosts_in(stack)
        self.ready = True
        listening = {"nbd_port": self.nbd_port} if self.nbd_port else {}  # without LUNs nothing listens
        trace.emit("controller.started", pid=os.getpid(), **listening)

    async def _meet_peer(self, stack: AsyncExitStack, link: LinkSide) -> None:
        volumes = {number: unit.redirect for number, unit in self.units.items() if unit.redirect is not None}
        served = {number: unit.meter for number, unit in self.units.items() if unit.config.mode != "forward"}
        await link.start(volumes, Service(self.store, served, self.trace))
        stack.push_async_callback(link.close)
        if any(unit.config.mode in ("redirect", "forward") for unit in self.units.values()):
            await link.wait_up()

    async def _go_on(self, number: int, lifecycle: Lifecycle, initial: State) -> None:
        try:
            await lifecycle.start(initial)
        except CheckCondition as error:
            raise ControllerError(
                f"controller {self.config.name}: LUN {number} cannot go on where it was: {error}.",
                next_step="See the log of the other controller.",
            ) from error

    async def _flush_everything(self) -> None:
        """A clean stop loses nothing: what hosts were told is durable, or the log says what is not."""
        for number, unit in self.units.items():
            if unit.redirect is not None and self.link is not None and not self.link.patient.ready:
                self.trace.emit("controller.flush-failed", what=f"LUN {number}", reason="the other controller is not there")
            elif unit.volume is not None and (failed := await unit.volume.flush()):
                self.trace.emit("controller.flush-failed", what=f"LUN {number}", reason=str(failed))
        try:
            if self.store is not None:
                await self.store.flush(0)
        except CheckCondition as error:  # its disk was pulled, or does not do what it is told
            self.trace.emit("controller.flush-failed", what="the store", reason=str(error))

    async def _let_hosts_in(self, stack: AsyncExitStack) -> None:
        exports = [await self._export(number, unit) for number, unit in self.units.items()]
        if not exports:
            return
        server = NbdServer(exports, self.trace)
        self.nbd_port = await server.listen(self.config.nbd.host, self.config.nbd.port)
        stack.push_async_callback(server.close)

    async def _export(self, number: int, unit: Unit) -> Export:
        residency: Callable[[Extent], list[tuple[int, Residency]]] = _all_first
        if unit.volume is None:
            blocks, size = await self._measure(number, unit)
            unit.config, unit.block_bytes = msgspec.structs.replace(unit.config, blocks=blocks), size
        else:
            residency = unit.volume.residency
        read_only = unit.volume is not None and unit.volume.access is Access.READ_ONLY
        description = f"hwvirt controller {self.config.name}, LUN {number}, {unit.config.mode}"
        name, blocks, cut_off = f"lun{number}", unit.config.blocks, partial(self._is_cut_off, unit)
        return Export(name, unit.meter, blocks, unit.block_bytes, description, read_only, residency, cut_off)

    def _is_cut_off(self, unit: Unit) -> bool:
        return unit.redirect is not None and self.link is not None and not self.link.patient.ready

    async def _measure(self, number: int, unit: Unit) -> tuple[int, int]:
        """The size of a forwarded unit, as the unit itself tells it."""
        (answer,) = await unit.meter.execute([Command(read_capacity_16(), (), 32)])
        data = b"".join(answer.data)
        if not answer.good or len(data) < 12:
            raise ControllerError(
                f"controller {self.config.name}: LUN {number} is forwarded to LUN {unit.config.remote_lun} of the other "
                "controller, which does not answer READ CAPACITY.",
                next_step="Give the other controller that LUN.",
            )
        blocks, size = int.from_bytes(data[:8], "big") + 1, int.from_bytes(data[8:12], "big")
        return blocks, size

    @property
    def pid(self) -> int:
        """The process."""
        return os.getpid()

    def uptime_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started


def _state_directory(config: Config) -> StateDirectory:
    try:
        return StateDirectory(Path(config.state_dir))
    except OSError as error:
        raise StateError(
            f"state directory {config.state_dir}: {error.strerror or error}.",
            next_step="Name a directory that the controller may make and write.",
        ) from error


def _disk(config: Config, trace: Trace, stack: AsyncExitStack) -> Disk:
    """The disk, closed before what guards it lets it go."""
    disk = config.disk
    try:
        path = stack.enter_context(guarded(disk, trace))
        opened = open_disk(disk.kind, path, disk.block_bytes, disk.witness)
    except DiskError as error:
        next_step = error.next_step or "Correct `disk` in its configuration."
        raise DiskError(f"controller {config.name}: disk {disk.name}: {error.reason}", next_step=next_step) from error
    stack.callback(opened.close)
    return opened


def _watch(disk: RemovableDisk, trace: Trace, stack: AsyncExitStack) -> None:
    """Tells when the disk is pulled, also while nobody asks it for anything."""
    from hwvirt.disk.discovery.watch import DiskWatch  # noqa: PLC0415  only for real disks

    watch, loop = DiskWatch([disk], trace), asyncio.get_running_loop()
    loop.add_reader(watch.fileno(), watch.dispatch)
    stack.callback(loop.remove_reader, watch.fileno())


def _all_first(extent: Extent) -> list[tuple[int, Residency]]:
    return [(extent.blocks, Residency.FIRST)]
