"""One controller of a rig on a kernel of its own: its power, its disk, its daemon, and how others reach them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path, PurePath

import msgspec

from hwvirt.controller.config import SerialConfig, TlsConfig
from hwvirt.disk.loop import create_image
from hwvirt.lab.cables import CableEnd, EthernetEnd
from hwvirt.lab.disks import GuestDisk, Spec
from hwvirt.lab.jobs import Job
from hwvirt.lab.kernel import SHARE_IN_GUEST, Kernel
from hwvirt.lab.process import LabError
from hwvirt.lab.tcmu import Tcmu
from hwvirt.rig.certificates import Papers
from hwvirt.rig.configure import Places, configure
from hwvirt.rig.disks import guest_spec
from hwvirt.rig.far_bench import FarMachine
from hwvirt.rig.file.model import Backing, Rig, TcmLoopSpec
from hwvirt.units import Deadline

__all__ = ["MEMORY_BYTES", "Seat"]

MEMORY_BYTES = 384 << 20

_CONTROL_PORT, _DISK_PORT = 7002, 7003
_CONTROL = PurePath("/run/hwvirt.sock")
_UP_S = 60.0
_START_S = 30.0
_STOP_S = 30.0
_STATE_BYTES = 64 << 20
_STATE = "state"
_DAEMON, _CONFIG, _SECRET, _TLS = "controller", "controller.json", "secret", "tls"


class Seat:
    """A controller's kernel. Where the rig cuts its power, its journals lie on a file system of a disk of its own.

    Then what was not synced is lost, as everywhere; in the launcher's files nothing would be. Methods that change
    something may be called from any thread, one at a time goes on. They raise LabError.
    """

    def __init__(
        self, rig: Rig, name: str, place: Path, cables: Sequence[CableEnd], link: tuple[str, int] | SerialConfig
    ) -> None:
        """Everything lies in `place`. `cables[0]` leads to the host. Nothing is powered yet."""
        directory = place / name
        host_end = cables[0]
        assert isinstance(host_end, EthernetEnd)
        spec = rig.controllers[name]
        self.name = name
        self._rig = rig
        self._disk = spec.disk
        self._host_ip = host_end.ip
        self._link = link
        self._turn = threading.RLock()
        self._daemon: Job | None = None
        self._disks: Job | None = None
        images = _volatile_image(rig, spec.disk, directory)
        self._volatile = _ubd(0) if images else None
        self._state = _ubd(len(images)) if name in rig.crashing else None
        if self._state is not None:
            images.append(_file_system(directory))
        disk = rig.disks[spec.disk]
        memory_bytes = MEMORY_BYTES + disk.window.blocks * disk.block_bytes
        self.kernel = Kernel(
            name, directory, memory_bytes=memory_bytes, cables=cables, disks=images, boot_place=place
        )
        self._wanted = self._described()
        self._tls: TlsConfig | None = None

    @property
    def machine(self) -> FarMachine:
        """Where the host's kernel reaches the controller and its disk."""
        return FarMachine(f"{self._host_ip}:{_CONTROL_PORT}", f"{self._host_ip}:{_DISK_PORT}")

    def prepare(self, secret: str, papers: Papers | None) -> None:
        """What the daemon finds, whenever its kernel boots."""
        (self.kernel.share / _SECRET).write_text(secret)
        self._tls = papers.write(self.kernel.share / _TLS, SHARE_IN_GUEST / _TLS) if papers else None
        (self.kernel.share / _STATE).mkdir()

    def equip(self) -> None:
        """The kernel is up, with its disk and the programs through which the host reaches it. Idempotent."""
        with self._turn:
            if self._disks is None:
                if not self.kernel.is_on:
                    self.kernel.power_on()
                self.kernel.wait_up(Deadline.after(_UP_S))
                self._equip()

    def start(self) -> None:
        """The daemon runs, in a kernel that is booted and equipped where it was off."""
        with self._turn:
            self.equip()
            self._daemon = self.kernel.start([sys.executable, "-m", "hwvirt", _DAEMON, str(SHARE_IN_GUEST / _CONFIG)])

    def stop(self) -> None:
        """The daemon has ended cleanly; kernel and disk go on."""
        with self._turn:
            daemon, self._daemon = self._daemon, None
            self._end(daemon)

    def cut_power(self) -> None:
        """Nothing runs any more, and what was not durable is lost."""
        with self._turn:
            self._daemon = self._disks = None
            self.kernel.power_cut()

    def give_back(self) -> None:
        """Ends cleanly what has something to give back: the daemon, then the disk. Idempotent."""
        with self._turn:
            self.stop()
            disks, self._disks = self._disks, None
            self._end(disks)

    def ended(self) -> str:
        """Why the daemon runs no more though nobody has ended it; empty while it does, and while somebody is at it."""
        if not self._turn.acquire(blocking=False):
            return ""
        try:
            daemon = self._daemon
            if daemon is None or not (daemon.ended or daemon.lost):
                return ""
            if daemon.lost:
                return f"the kernel of controller {self.name} has gone."
            return f"controller {self.name} ended with status {daemon.wait(Deadline.after(_STOP_S))}."
        finally:
            self._turn.release()

    def _described(self) -> Spec | Tcmu:
        with ExitStack() as images:
            wanted = guest_spec(self._disk, self._rig.disks[self._disk], self.kernel.share, images, self._volatile)
            images.pop_all()
        return wanted

    def _equip(self) -> None:
        """After a boot: file system, disk, and the two programs through which the host reaches them."""
        if self._state is not None:
            mount = ["mount", "-t", "ext4", self._state, str(SHARE_IN_GUEST / _STATE)]
            self.kernel.run(mount, Deadline.after(_START_S))
        # What the guest sees is its share, not the launcher's folder.
        text = msgspec.json.encode(self._wanted).decode().replace(str(self.kernel.share), str(SHARE_IN_GUEST))
        disks = self._program("hwvirt.lab.tcmu" if isinstance(self._wanted, Tcmu) else "hwvirt.lab.disks", text)
        made = msgspec.json.decode(_line(disks), type=GuestDisk)
        self._disks = disks
        self._configure(made)
        relay = self._program("hwvirt.lab.guest.relay", f"{self._host_ip}:{_CONTROL_PORT}", str(_CONTROL))
        witness = str(SHARE_IN_GUEST / f"{self._disk}.witness")
        far_disk = self._program("hwvirt.lab.far_disk", f"{self._host_ip}:{_DISK_PORT}", made.sg, witness)
        for job in (relay, far_disk):
            _line(job)

    def _configure(self, made: GuestDisk) -> None:
        places = Places(
            folder=SHARE_IN_GUEST,
            control=_CONTROL,
            secret=SHARE_IN_GUEST / _SECRET,
            disk_kind="sg",
            disk_path=made.sg,
            block_bytes=made.block_bytes,
            link=self._link,
            nbd_host=self._host_ip,
            tls=self._tls,
        )
        config = configure(self._rig, self.name, places, redirect_at_start=False)
        (self.kernel.share / _CONFIG).write_bytes(msgspec.json.format(msgspec.json.encode(config)))

    def _program(self, module: str, *arguments: str) -> Job:
        return self.kernel.start([sys.executable, "-m", module, *arguments])

    def _end(self, job: Job | None) -> None:
        """Ends a job cleanly: it has something to give back."""
        if job is not None and not (job.ended or job.lost):
            self.kernel.signal(job, "TERM")
            job.wait(Deadline.after(_STOP_S))


def _ubd(number: int) -> str:
    return f"/dev/ubd{chr(ord('a') + number)}"


def _volatile_image(rig: Rig, disk: str, directory: Path) -> list[Path]:
    """What outlives the power of a disk with a volatile cache, if it is one."""
    spec = rig.disks[disk]
    if not (isinstance(spec, TcmLoopSpec) and spec.backing is Backing.FILE):
        return []
    directory.mkdir(parents=True, exist_ok=True)
    image = directory / f"{disk}.img"
    create_image(image, spec.size_bytes)
    return [image]


def _file_system(directory: Path) -> Path:
    """An empty ext4 in a file, for the journals of a controller."""
    directory.mkdir(parents=True, exist_ok=True)
    image = directory / f"{_STATE}.img"
    create_image(image, _STATE_BYTES)
    program = shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        raise LabError("a power cut needs a file system for the journals.", next_step="apt install e2fsprogs")
    made = subprocess.run([program, "-q", "-F", str(image)], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise LabError(f"mkfs.ext4 {image}: {made.stderr.strip()}")
    return image


def _line(job: Job) -> str:
    line = job.line(Deadline.after(_START_S))
    if line is None:
        raise LabError(f"{job.name} ended before it was ready.")
    return line
