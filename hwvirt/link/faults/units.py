"""The units of a byte stream that faults strike: link frames, or the runs of bytes as they come."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from hwvirt.errors import PeerError
from hwvirt.link.baud import bytes_per_s
from hwvirt.link.wire import read_header

__all__ = ["ETHERNET_FRAME_BYTES", "KERNEL_RUN", "PTY_RUN", "Cutter", "Frames", "RunSize", "Runs"]

_ANY_BYTES = 1 << 40


ETHERNET_FRAME_BYTES = 1514
"""The longest unit on a cable between kernels: their network cards have an MTU of 1500, and a header before that."""


@dataclass(frozen=True, slots=True)
class RunSize:
    """What a relay reads from a serial line at once, which is the unit of its faults: what passes in `run_s`, in bounds."""

    run_s: float
    least_bytes: int
    most_bytes: int

    def at(self, baud: int) -> int:
        """The longest run, in bytes."""
        return max(self.least_bytes, min(self.most_bytes, int(bytes_per_s(baud) * self.run_s)))


PTY_RUN = RunSize(0.002, 8, 1 << 16)
"""Of the line that a run lays between two ptys."""
KERNEL_RUN = RunSize(0.01, 1, 256)
"""Of the line between two kernels of the lab."""


class Cutter(Protocol):
    """Cuts one connection's bytes in one direction into units; joined they are the same bytes."""

    def cut(self, data: bytes) -> Iterable[bytes]:
        """The units that `data` completes."""
        ...


class Runs:
    """What was read at once is a unit."""

    def cut(self, data: bytes) -> Iterable[bytes]:
        """See `Cutter`."""
        return (data,)


class Frames:
    """Each link frame is a unit. From where the bytes are no frames any more, of a stranger or encrypted, as `Runs`."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._framed = True

    def cut(self, data: bytes) -> Iterable[bytes]:
        """See `Cutter`."""
        if not self._framed:
            return (data,)
        self._rest += data
        units = []
        while size_bytes := self._next_unit():
            units.append(bytes(self._rest[:size_bytes]))
            del self._rest[:size_bytes]
        return units

    def _next_unit(self) -> int:
        """Bytes of the unit at the front, 0 while it is incomplete."""
        if not self._framed:
            return len(self._rest)
        with memoryview(self._rest) as received:
            try:
                header = read_header(received, _ANY_BYTES, "the cable")
            except PeerError:
                self._framed = False
                return len(received)
            return header.frame_bytes if header and len(received) >= header.frame_bytes else 0
