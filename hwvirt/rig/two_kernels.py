"""Two controllers on two kernels, and a third one as the host: power, disks, cables and daemons of such a rig.

    kernel host ──cable──▶ kernel of a ──cable──▶ kernel of b
         └───────────────────cable──────────────────┘            (for the judge, who reads the second disk himself)
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath

import msgspec

from hwvirt.lab.cables import DirectEthernet
from hwvirt.lab.disks import GuestDisk
from hwvirt.lab.jobs import Job
from hwvirt.lab.kernel import SHARE_IN_GUEST, Kernel
from hwvirt.lab.process import LabError
from hwvirt.lab.tcmu import Tcmu
from hwvirt.rig.certificates import Papers, papers_of
from hwvirt.rig.configure import Places, configure, dialler
from hwvirt.rig.disks import guest_spec
from hwvirt.rig.far_bench import FarMachine
from hwvirt.rig.file.model import Rig
from hwvirt.trace import Trace
from hwvirt.units import Deadline

__all__ = ["BENCH_FILE", "MEMORY_BYTES", "host_kernel"]

BENCH_FILE = "bench.json"
"""In the host kernel's share: where each controller and its disk are reached, as `FarMachine`s by name."""
MEMORY_BYTES = 384 << 20

_LINK_PORT, _CONTROL_PORT, _DISK_PORT = 7001, 7002, 7003
_CONTROL = PurePath("/run/hwvirt.sock")
_START_S = 30.0
_STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class _Seat:
    """One controller's kernel, and how the host and its peer reach it."""

    name: str
    kernel: Kernel
    host_ip: str
    link_ip: str


@contextmanager
def host_kernel(rig: Rig, directory: Path, trace: Trace) -> Iterator[Kernel]:
    """The kernel that plays the host, with both controllers up and reached as its BENCH_FILE says. Raises LabError."""
    with ExitStack() as stack:
        link = _cable(stack)
        link_ends = dict(zip(rig.controllers, link.ends, strict=True))
        host_cables = {name: _cable(stack) for name in rig.controllers}
        host = Kernel("host", directory / "host", cables=[cable.ends[0] for cable in host_cables.values()])
        seats = {}
        for name in rig.controllers:
            near, far = host_cables[name].ends[1], link_ends[name]
            kernel = Kernel(name, directory / name, memory_bytes=_memory_bytes(rig, name), cables=[near, far])
            seats[name] = _Seat(name, kernel, near.ip, far.ip)
        for kernel in (host, *(seat.kernel for seat in seats.values())):
            stack.enter_context(kernel)
        secret, papers = secrets.token_hex(32), papers_of(rig)
        # Undone in reverse: who needs the other one to flush is stopped first.
        for name in sorted(seats, key=lambda name: name == dialler(rig)):
            up_s = seats[name].kernel.wait_up(Deadline.after(_START_S))
            trace.emit("lab.up", kernel=name, up_s=up_s)
            _start_controller(rig, seats, name, secret, papers.get(name), stack)
        bench = {
            name: FarMachine(f"{seat.host_ip}:{_CONTROL_PORT}", f"{seat.host_ip}:{_DISK_PORT}")
            for name, seat in seats.items()
        }
        (host.share / BENCH_FILE).write_bytes(msgspec.json.encode(bench))
        yield host


def _cable(stack: ExitStack) -> DirectEthernet:
    cable = DirectEthernet()
    stack.callback(cable.close)
    return cable


def _memory_bytes(rig: Rig, name: str) -> int:
    disk = rig.disks[rig.controllers[name].disk]
    return MEMORY_BYTES + disk.window.blocks * disk.block_bytes


def _start_controller(
    rig: Rig, seats: dict[str, _Seat], name: str, secret: str, papers: Papers | None, stack: ExitStack
) -> None:
    """The disk, the daemon, and the two programs through which the host kernel reaches them."""
    seat, spec = seats[name], rig.controllers[name]
    kernel = seat.kernel
    with ExitStack() as images:
        wanted = guest_spec(spec.disk, rig.disks[spec.disk], kernel.share, images)
        images.pop_all()
    # What the guest sees is its share, not the launcher's folder.
    text = msgspec.json.encode(wanted).decode().replace(str(kernel.share), str(SHARE_IN_GUEST))
    disks = _program(kernel, "hwvirt.lab.tcmu" if isinstance(wanted, Tcmu) else "hwvirt.lab.disks", text)
    stack.callback(_end, kernel, disks)
    made = msgspec.json.decode(_line(disks), type=GuestDisk)
    listener = next(other for other in seats if other != dialler(rig))
    places = Places(
        folder=SHARE_IN_GUEST,
        control=_CONTROL,
        secret=SHARE_IN_GUEST / "secret",
        disk_kind="sg",
        disk_path=made.sg,
        block_bytes=made.block_bytes,
        link=(seats[listener].link_ip, _LINK_PORT),
        nbd_host=seat.host_ip,
        tls=papers.write(kernel.share / "tls", SHARE_IN_GUEST / "tls") if papers else None,
    )
    config = configure(rig, name, places, redirect_at_start=False)
    (kernel.share / "secret").write_text(secret)
    (kernel.share / "controller.json").write_bytes(msgspec.json.format(msgspec.json.encode(config)))
    daemon = kernel.start([sys.executable, "-m", "hwvirt", "controller", str(SHARE_IN_GUEST / "controller.json")])
    stack.callback(_end, kernel, daemon)
    relay = _program(kernel, "hwvirt.lab.guest.relay", f"{seat.host_ip}:{_CONTROL_PORT}", str(_CONTROL))
    witness = str(SHARE_IN_GUEST / f"{spec.disk}.witness")
    far_disk = _program(kernel, "hwvirt.lab.far_disk", f"{seat.host_ip}:{_DISK_PORT}", made.sg, witness)
    for job in (relay, far_disk):
        stack.callback(kernel.signal, job, "KILL")
        _line(job)


def _program(kernel: Kernel, module: str, *arguments: str) -> Job:
    return kernel.start([sys.executable, "-m", module, *arguments])


def _line(job: Job) -> str:
    line = job.line(Deadline.after(_START_S))
    if line is None:
        raise LabError(f"{job.name} ended before it was ready.")
    return line


def _end(kernel: Kernel, job: Job) -> None:
    """Ends a job cleanly: it has something to give back. Raises LabError when it does not end."""
    if not (job.ended or job.lost):
        kernel.signal(job, "TERM")
        job.wait(Deadline.after(_STOP_S))
