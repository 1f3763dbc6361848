"""The bench of a run: disks that the rig makes, one process for each controller, and the undoing of all of it."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from hwvirt.controller.config import SerialConfig, TlsConfig
from hwvirt.errors import ControllerError, InfrastructureError
from hwvirt.lab.tcmu import ServedDisk
from hwvirt.rig.cable import TcpCable, cable_of
from hwvirt.rig.certificates import papers_of
from hwvirt.rig.configure import Places, configure, dialler, slow_start_s
from hwvirt.rig.control_client import ControlClient
from hwvirt.rig.disks import BenchDisk, prepare_disk
from hwvirt.rig.file.model import ControllerSpec, Rig, Serial
from hwvirt.rig.pty_line import PtyLine, pty_line_of
from hwvirt.trace import Trace
from hwvirt.units import Deadline

__all__ = ["CONTROLLER_PROGRAM", "START_S", "Bench", "ControllersError", "Machine", "export_of", "last_complaint"]

CONTROLLER_PROGRAM = (sys.executable, "-m", "hwvirt", "controller")
"""What runs a controller; its configuration file and --until-eof follow. The judge's own tests run wrong ones."""

START_S = 20.0
STOP_S = 20.0
_KILL_S = 5.0
_COMPLAINT = "hwvirt: "
_PTY_BYTES = 3400
"""What may lie unread in a pty: N_TTY holds 4096 bytes."""


class ControllersError(ControllerError):
    """Several controllers did not do their part; `reasons` has a text for each."""

    def __init__(self, errors: Sequence[ControllerError]) -> None:
        self.reasons = tuple(map(str, errors))
        super().__init__(" ".join(self.reasons))


@dataclass(slots=True)
class Machine:
    """One controller: its configuration and process, where they are the bench's, and the way to talk to it."""

    name: str
    log: Path
    control: ControlClient
    process: asyncio.subprocess.Process | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while it is stopped and started again."""


class Bench:
    """Brings a rig up and takes it down. Enter it on an AsyncExitStack: whatever was made is registered there."""

    def __init__(
        self,
        rig: Rig,
        folder: Path,
        trace: Trace,
        *,
        redirect_at_start: bool,
        program: Sequence[str] = CONTROLLER_PROGRAM,
    ) -> None:
        self.rig = rig
        self.folder = folder
        self.trace = trace
        self.machines: dict[str, Machine] = {}
        self.disks: dict[str, BenchDisk] = {}
        self.cable: TcpCable | PtyLine | None = None
        self._redirect_at_start = redirect_at_start
        self._program = program

    async def bring_up(self, stack: AsyncExitStack) -> None:
        """Makes the disks, starts the controllers, returns when hosts can reach every LUN. Raises HwvirtError."""
        # Sockets have short names (108 bytes, unix(7)): they do not lie in the run folder.
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hwvirt-")))
        made = stack.enter_context(ExitStack())
        for name in self.rig.disks:
            disk = self.disks[name] = prepare_disk(self.rig, name, self.folder, made)
            if disk.admitted is not None:
                self.trace.emit("disk.admitted", disk=name, node=disk.path, identity=str(disk.admitted.identity))
            if disk.served is not None:
                made.callback(self._tell_faults, name, disk.served)
        _refuse_missing_devices(self.rig)
        port = _free_port()
        self.cable = pty_line_of(self.rig, dialler(self.rig)) or cable_of(self.rig, dialler(self.rig), port)
        if self.cable is not None:
            await self.cable.start()
            stack.push_async_callback(self.cable.close)
        secret = sockets / "secret"
        secret.touch(mode=0o600)
        secret.write_text(secrets.token_hex(32))
        papers = papers_of(self.rig)
        for name, spec in self.rig.controllers.items():
            tls = papers[name].write(sockets / f"{name}.tls") if papers else None
            places = self._places(spec, sockets, secret, port, tls)
            config = configure(self.rig, name, places, redirect_at_start=self._redirect_at_start)
            path = self.folder / f"{name}.json"
            path.write_bytes(msgspec.json.format(msgspec.json.encode(config)))
            log = self.folder / f"{name}.log"
            self.machines[name] = Machine(name, log, ControlClient(name, config.control, self.trace))
        complaints: list[ControllerError] = []
        stack.callback(_raise_all, complaints)
        # Undone in reverse: who needs the other to flush goes first.
        for name in sorted(self.machines, key=lambda name: name == dialler(self.rig)):
            stack.push_async_callback(self._stop_or_complain, name, complaints)
        await asyncio.gather(*(self.start(name) for name in self.machines))

    def _tell_faults(self, name: str, served: ServedDisk) -> None:
        """How many commands each of the disk's faults has met, in their order."""
        if served.struck:
            self.trace.emit("disk.faults", disk=name, struck=list(served.struck))

    def _places(self, spec: ControllerSpec, sockets: Path, secret: Path, port: int, tls: TlsConfig | None) -> Places:
        disk = self.disks[spec.disk]
        return Places(
            folder=self.folder,
            control=sockets / f"{spec.name}.sock",
            secret=secret,
            disk_kind=disk.kind,
            disk_path=disk.path,
            block_bytes=disk.block_bytes,
            link=self._link_place(spec.name, port),
            tls=tls,
        )

    def _link_place(self, name: str, port: int) -> tuple[str, int] | SerialConfig:
        if isinstance(self.rig.link, Serial):
            link = self.rig.link
            if link.devices is not None:
                return SerialConfig(link.devices[name], link.baud, link.flow, compression=link.compression)
            assert isinstance(self.cable, PtyLine)
            return SerialConfig(self.cable.devices[name], link.baud, link.flow, _PTY_BYTES, link.compression)
        relayed = isinstance(self.cable, TcpCable) and name == dialler(self.rig)
        return "127.0.0.1", self.cable.port if relayed and isinstance(self.cable, TcpCable) else port

    async def start(self, name: str) -> None:
        """Starts one controller and returns when it is ready. Raises ControllerError with what it said, WrongDisk."""
        machine = self.machines[name]
        self.disks[self.rig.controllers[name].disk].recheck()
        with machine.log.open("ab") as log:
            machine.process = await asyncio.create_subprocess_exec(
                *self._program,
                str(self.folder / f"{name}.json"),
                "--until-eof",  # nobody stops it when the runner is killed
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                # Ctrl-C goes to the runner alone: it stops the controllers in order.
                start_new_session=True,
            )
        await self._wait_ready(machine, Deadline.after(START_S + slow_start_s(self.rig)))

    async def _wait_ready(self, machine: Machine, deadline: Deadline) -> None:
        assert machine.process is not None
        ended = asyncio.ensure_future(machine.process.wait())
        ready = asyncio.ensure_future(machine.control.wait_ready(deadline))
        try:
            await asyncio.wait([ended, ready], return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                await ready
                return
            raise ControllerError(
                f"controller {machine.name} did not start: {last_complaint(machine.log)}",
                next_step=f"Its log: {machine.log}.",
            )
        finally:
            for waiting in (ended, ready):
                waiting.cancel()
            await asyncio.gather(ended, ready, return_exceptions=True)

    async def stop(self, name: str) -> None:
        """Stops one controller cleanly, by force when it does not stop in time: that is an error. Idempotent."""
        machine = self.machines[name]
        process, machine.process = machine.process, None
        if process is None:
            return
        try:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            if await _ends(process, STOP_S):
                return
        finally:
            await _kill(process)
            await machine.control.ended()
        raise ControllerError(
            f"controller {name} did not stop within {STOP_S:g} s and was killed.", next_step=f"Its log: {machine.log}."
        )

    async def _stop_or_complain(self, name: str, complaints: list[ControllerError]) -> None:
        try:
            await self.stop(name)
        except ControllerError as error:
            complaints.append(error)
        except OSError as error:
            complaints.append(ControllerError(f"controller {name} cannot be stopped: {error.strerror or error}."))

    async def crash(self, name: str) -> None:
        """Kills one controller without warning."""
        machine = self.machines[name]
        process, machine.process = machine.process, None
        if process is not None:
            await _kill(process)
        await machine.control.ended()

    async def check_alive(self, silence_s: float | None = None) -> None:
        """Asks every controller for its status.

        Raises ControllerError for one that has ended by itself, or has not answered for `silence_s`.
        """
        checks = [asyncio.ensure_future(self._check(machine, silence_s)) for machine in self.machines.values()]
        try:
            await asyncio.gather(*checks)
        finally:
            for check in checks:
                check.cancel()
            await asyncio.gather(*checks, return_exceptions=True)

    async def _check(self, machine: Machine, silence_s: float | None) -> None:
        process = machine.process
        if process is None or machine.turn.locked():
            return
        try:
            if process.returncode is None:
                await machine.control.status(silence_s)
                return
        except ControllerError as error:
            if machine.process is not process or machine.turn.locked():
                return  # it is being restarted
            if not await _ends(process, _KILL_S):  # it closes its socket before it is gone
                raise ControllerError(error.reason, next_step=error.next_step or f"Its log: {machine.log}.") from error
        how = _end_of(process, machine)
        raise ControllerError(f"controller {machine.name} {how}", next_step=f"Its log: {machine.log}.")

    def status(self) -> Mapping[str, dict[str, Any]]:
        """The newest status of each controller."""
        return {name: machine.control.last_status for name, machine in self.machines.items()}

    def export(self, controller: str, lun: int) -> tuple[str, int, str]:
        """Host, port and export name of a LUN."""
        return export_of(controller, self.machines[controller].control.last_status, lun)


def export_of(controller: str, status: Mapping[str, Any], lun: int) -> tuple[str, int, str]:
    """Host, port and export name of a LUN, as its controller tells them. Raises ControllerError."""
    for found in status.get("luns", ()):
        if found["lun"] == lun and found["export"]:
            host, _, rest = str(found["export"]).removeprefix("nbd://").partition(":")
            port, _, name = rest.partition("/")
            return host, int(port), name
    raise ControllerError(f"controller {controller} does not export LUN {lun}.")


async def _ends(process: asyncio.subprocess.Process, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            await process.wait()
    except TimeoutError:
        return False
    return True


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await _ends(process, _KILL_S)


def _refuse_missing_devices(rig: Rig) -> None:
    """A controller that waits for its peer cannot know that it is the peer whose device is not there."""
    devices = rig.link.devices if isinstance(rig.link, Serial) else None
    for name, device in (devices or {}).items():
        if "://" not in device and not Path(device).exists():
            raise InfrastructureError(
                f"link: there is no {device} for controller {name}.",
                next_step="Correct `devices` of the link, or connect the adapter.",
            )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _raise_all(complaints: Sequence[ControllerError]) -> None:
    if complaints:
        raise complaints[0] if len(complaints) == 1 else ControllersError(complaints)


def _end_of(process: asyncio.subprocess.Process, machine: Machine) -> str:
    code = process.returncode or 0
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}."
    if code == 0:
        return "ended by itself with code 0: somebody has stopped it."
    return f"ended with code {code}: {last_complaint(machine.log)}"


def last_complaint(log: Path) -> str:
    """The last thing that a program of ours said for people; else the last line there is."""
    lines = log.read_text(errors="replace").splitlines()
    complaints = [line.removeprefix(_COMPLAINT) for line in lines if line.startswith(_COMPLAINT)]
    return (complaints or lines or ["it said nothing."])[-1]
