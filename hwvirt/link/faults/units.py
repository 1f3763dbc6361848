"""The units of a byte stream that faults strike: link frames, or the runs of bytes as they come."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from hwvirt.errors import PeerError
from hwvirt.link.wire import read_header

__all__ = ["Cutter", "Frames", "Runs"]

_ANY_BYTES = 1 << 40


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
