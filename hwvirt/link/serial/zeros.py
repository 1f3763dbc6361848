"""Blocks of zeroes as a few bytes, also on a line whose ends do not both have zstd. One stream for each direction.

    bit 15 of a u16, little-endian: 0, so many bytes follow as they are; 1, so many zeroes are meant and nothing follows

A number is never zero. Short runs of zeroes go as they are.
"""

from __future__ import annotations

import struct

from hwvirt.buffers import Buffer
from hwvirt.errors import PeerError
from hwvirt.link.serial.packing import UNPACKED_MOST_BYTES

__all__ = ["ZeroPacker", "ZeroUnpacker"]

_HEAD = struct.Struct("<H")
_ZEROES = 0x8000
_MOST = 0x7FFF
_RUN = bytes(64)
"""The shortest run that is left out."""


class ZeroPacker:
    """One direction of a session, sending."""

    def pack(self, data: Buffer) -> bytes:
        """The next bytes, packed so that the other end can unpack all of them."""
        rest, out = bytes(data), bytearray()
        at = 0
        while (found := rest.find(_RUN, at)) >= 0:
            self._plain(rest[at:found], out)
            at = len(rest) - len(rest[found:].lstrip(b"\0"))
            self._zeroes(at - found, out)
        self._plain(rest[at:], out)
        return bytes(out)

    def _plain(self, data: bytes, out: bytearray) -> None:
        for start in range(0, len(data), _MOST):
            piece = data[start : start + _MOST]
            out += _HEAD.pack(len(piece))
            out += piece

    def _zeroes(self, count: int, out: bytearray) -> None:
        for start in range(0, count, _MOST):
            out += _HEAD.pack(_ZEROES | min(_MOST, count - start))


class ZeroUnpacker:
    """One direction of a session, receiving. Keeps no data, and one half of a number at most."""

    def __init__(self) -> None:
        self._head = b""
        self._plain_bytes = 0  # of what comes next

    def unpack(self, data: Buffer, place: str) -> list[Buffer]:
        """The bytes that were packed. Raises PeerError for what no ZeroPacker makes."""
        out: list[Buffer] = []
        rest, room_bytes = memoryview(data), UNPACKED_MOST_BYTES
        while rest:
            if self._plain_bytes:
                piece = rest[: self._plain_bytes]
                self._plain_bytes -= len(piece)
                rest = rest[len(piece) :]
            else:
                wanted = _HEAD.size - len(self._head)
                self._head += rest[:wanted]
                rest = rest[wanted:]
                if len(self._head) < _HEAD.size:
                    break
                piece = memoryview(self._zeroes(place))
            room_bytes -= len(piece)
            if room_bytes < 0:
                raise PeerError(f"link: a segment of {place} unpacks to more than {UNPACKED_MOST_BYTES} bytes.")
            if piece:
                out.append(piece)
        return out

    def _zeroes(self, place: str) -> bytes:
        """Those that the number means; none where it tells of plain bytes, which follow."""
        (number,) = _HEAD.unpack(self._head)
        self._head = b""
        count = number & _MOST
        if not count:
            raise PeerError(f"link: what {place} sent cannot be unpacked: a run of nothing.")
        if number & _ZEROES:
            return bytes(count)
        self._plain_bytes = count
        return b""
