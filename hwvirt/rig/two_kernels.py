"""Two controllers on two kernels, and a third one as the host: what is between them, and their common beginning and end.

    kernel host ──cable──▶ kernel of a ──cable or serial line──▶ kernel of b
         └───────────────────────────cable───────────────────────────┘     (for the judge, who reads the second disk himself)
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hwvirt.controller.config import SerialConfig
from hwvirt.lab.cables import CableEnd, DirectEthernet, EthernetCable, EthernetEnd, SerialCable
from hwvirt.lab.kernel import Kernel
from hwvirt.rig.cable import strikes_of
from hwvirt.rig.certificates import papers_of
from hwvirt.rig.configure import dialler
from hwvirt.rig.file.model import Rig, Serial
from hwvirt.rig.seat import Seat
from hwvirt.trace import Trace
from hwvirt.units import Deadline

__all__ = ["BENCH_FILE", "Kernels", "kernels"]

BENCH_FILE = "bench.json"
"""In the host kernel's share: where each controller and its disk are reached, as `FarMachine`s by name."""

_LINK_PORT = 7001
_LINE = "/dev/ttyS0"
_UP_S = 60.0


@dataclass(frozen=True, slots=True)
class Kernels:
    """All of it, up. `cable` is the one between the controllers, where faults of the rig's link can strike it."""

    host: Kernel
    seats: Mapping[str, Seat]
    cable: EthernetCable | SerialCable | None


@contextmanager
def kernels(rig: Rig, directory: Path, trace: Trace) -> Iterator[Kernels]:
    """The kernel that plays the host, with both controllers up and reached as its BENCH_FILE says. Raises LabError."""
    with ExitStack() as stack:
        cable = _link(rig)
        stack.callback(cable.close)
        link_ends: dict[str, CableEnd] = dict(zip(rig.controllers, cable.ends, strict=True))
        host_ends: list[CableEnd] = []
        seats: dict[str, Seat] = {}
        for name, end in link_ends.items():
            leads_to_host = DirectEthernet()
            stack.callback(leads_to_host.close)
            host_ends.append(leads_to_host.ends[0])
            seats[name] = Seat(rig, name, directory, [leads_to_host.ends[1], end], _link_place(rig, link_ends))
        host = Kernel("host", directory / "host", cables=host_ends, boot_place=directory)
        for kernel in (host, *(seat.kernel for seat in seats.values())):
            stack.enter_context(kernel)
        secret, papers = secrets.token_hex(32), papers_of(rig)
        for name, seat in seats.items():
            seat.prepare(secret, papers.get(name))
            stack.callback(seat.give_back)
        with ThreadPoolExecutor() as pool:
            list(pool.map(Seat.equip, seats.values()))
        # Undone in reverse: who needs the other one to flush is stopped first.
        for name in sorted(seats, key=lambda name: name == dialler(rig)):
            trace.emit("lab.up", kernel=name, up_s=seats[name].kernel.wait_up(Deadline.after(_UP_S)))
            stack.callback(seats[name].stop)
            seats[name].start()
        bench = {name: seat.machine for name, seat in seats.items()}
        (host.share / BENCH_FILE).write_bytes(msgspec.json.encode(bench))
        yield Kernels(host, seats, None if isinstance(cable, DirectEthernet) else cable)


def _link(rig: Rig) -> DirectEthernet | EthernetCable | SerialCable:
    """The second path: without a relay where nothing is ever wrong with it."""
    first, second = rig.controllers
    kinds = strikes_of(rig)
    if isinstance(rig.link, Serial):
        return SerialCable(rig.link.baud, (first, second), kinds, rig.seed)
    if kinds or rig.link.standing:
        return EthernetCable((first, second), kinds, rig.seed, rig.link.standing)
    return DirectEthernet()


def _link_place(rig: Rig, ends: Mapping[str, CableEnd]) -> tuple[str, int] | SerialConfig:
    """Where the controllers find their link: one listens there, the other one connects to it."""
    if isinstance(rig.link, Serial):
        # Its default buffer is what a guest's line stands.
        return SerialConfig(_LINE, rig.link.baud, rig.link.flow, compression=rig.link.compression)
    (listener,) = (end for name, end in ends.items() if name != dialler(rig))
    assert isinstance(listener, EthernetEnd)
    return listener.ip, _LINK_PORT
