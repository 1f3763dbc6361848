"""The same on a serial line: packets of a former session of the line again, and packets made up by somebody who reads it.

What he can make up is right in all that needs no secret: numbers, CRC and its seed, which both hellos give away. The line
believes it. The session above does not: its frames are sealed.
"""

from __future__ import annotations

from collections import deque

from hwvirt.link.serial.frames import FrameReader, Hello, Packet, seed_of, write_packet

__all__ = ["RememberedLine"]

_REMEMBERED_PACKETS = 16
_NUMBERS = 1 << 16


class RememberedLine:
    """What has passed in one direction of a line; see `Remembered`."""

    def __init__(self) -> None:
        self.former: list[bytes] = []
        self._reader = FrameReader()
        self._sender = 0
        self._recent: deque[bytes] = deque(maxlen=_REMEMBERED_PACKETS)
        self._last: Packet | None = None

    def see(self, data: bytes) -> None:
        """`data` passes."""
        for raw in self._reader.closed(data):
            match self._reader.read(raw):
                case Hello(own=own, echo=echo):
                    self._hello(own, echo)
                case Packet() as packet:
                    self._recent.append(b"\0" + raw + b"\0")
                    if packet.segment is not None:
                        self._last = packet

    def _hello(self, own: int, echo: int) -> None:
        if own != self._sender:
            self._sender = own
            self.former = list(self._recent) or self.former
            self._recent.clear()
            self._last = None
        self._reader.seed = seed_of(own, echo) if echo else None

    def forged(self, data: bytes) -> bytes | None:
        """The packet that is due next, with the data of the last one. None where no data has passed in this session."""
        last, seed = self._last, self._reader.seed
        if last is None or last.segment is None or seed is None:
            return None
        following = last._replace(number=(last.number + 1) % _NUMBERS, segment=(last.segment + 1) % _NUMBERS)
        return write_packet(following, seed)
