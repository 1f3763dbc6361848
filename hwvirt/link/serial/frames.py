"""Frames on a serial line. All integers are little-endian.

    00 · COBS( kind u8 · fields · CRC-32C u32 ) · 00

    hello    version u8 · flags u8 · own u32 · echo u32 · buffer u32
    packet   number u16 · heard u16 · [missed u32] · [segment u16 · data]          the kind says which parts are there

A zero byte stands on both sides of a frame and nowhere else, so junk spoils only the frame that it lies in. The CRC of a
packet continues from a seed of both ends' numbers: a packet of another session of the line is a damaged frame, and costs no
byte to tell. Ref: S. Cheshire, M. Baker, "Consistent Overhead Byte Stuffing", 1999; RFC 3720 B.4 (CRC-32C).
"""

from __future__ import annotations

import struct
from enum import IntFlag
from typing import NamedTuple, TypeAlias

from cobs import cobs  # type: ignore[import-untyped]  # it has no stubs

from hwvirt.buffers import Buffer
from hwvirt.digest import crc32c

__all__ = [
    "FRAME_MOST_BYTES",
    "KNOCK",
    "PACKET_MOST_BYTES",
    "VERSION",
    "Frame",
    "FrameReader",
    "Hello",
    "HelloFlag",
    "Packet",
    "payload_bytes",
    "seed_of",
    "write_hello",
    "write_packet",
]

VERSION = 1
FRAME_MOST_BYTES = 4096
"""No frame is longer on the line, zeros included: a reader never keeps more than this."""
KNOCK = b"\0"
"""Says that somebody is there: no frame, and the smallest thing that a line can carry."""

_HELLO_KIND = 0x80
_HELLO = struct.Struct("<BBBIII")
_FRONT = struct.Struct("<BHH")
_MISSED = struct.Struct("<I")
_SEGMENT = struct.Struct("<H")
_CRC = struct.Struct("<I")
_COBS_RUN = 254  # COBS adds a byte, and one more for each such run without a zero
_LEAST_BYTES = _FRONT.size + _CRC.size


class _Part(IntFlag):
    """What a packet has besides its front."""

    SEGMENT = 0x01
    MISSED = 0x02
    PROBE = 0x04  # nothing follows for it; the receiver answers at once


class HelloFlag(IntFlag):
    """What the sender of a hello can say yes to."""

    UP = 0x01  # it has heard the receiver's echo: no answer needed
    ZSTD = 0x02  # it packs what it sends, if the other end can unpack it too
    ZEROES = 0x04  # it leaves zeroes out, if the other end can put them in; for ends that do not both say ZSTD


_HELLO_FLAGS = HelloFlag.UP | HelloFlag.ZSTD | HelloFlag.ZEROES


class Hello(NamedTuple):
    """Who speaks (`own`, a number that is new after each start), whom it has heard (`echo`; 0: nobody), and its buffer."""

    version: int
    flags: HelloFlag
    own: int
    echo: int
    buffer_bytes: int


class Packet(NamedTuple):
    """One transmission. `number` counts all transmissions of this end, modulo 2**16; a segment sent again gets a new one.

    `heard` is the highest number that came from the other end; bit n of `missed`: `heard` - 1 - n did not come.
    `segment`: the place of `data` in the stream, modulo 2**16; None where there is no data.
    """

    number: int
    heard: int
    missed: int
    segment: int | None
    data: Buffer
    probe: bool

    @property
    def wants_answer(self) -> bool:
        """Whether the sender waits to learn that it came."""
        return self.probe or self.segment is not None


Frame: TypeAlias = Hello | Packet


def seed_of(sender: int, receiver: int) -> int:
    """Where the CRC of packets of that direction begins; another number at either end gives another seed."""
    return crc32c(struct.pack("<II", sender, receiver))


PACKET_MOST_BYTES = 2 + 1 + _FRONT.size + _MISSED.size + _CRC.size
"""Bytes on the line of a packet without data."""


def payload_bytes(frame_bytes: int) -> int:
    """Data of a segment whose frame has at most `frame_bytes` on the line, whatever the data and with all parts."""
    return frame_bytes - PACKET_MOST_BYTES - _SEGMENT.size - frame_bytes // _COBS_RUN


def write_hello(hello: Hello) -> bytes:
    """The frame."""
    return _frame(_HELLO.pack(_HELLO_KIND, *hello), 0)


def write_packet(packet: Packet, seed: int) -> bytes:
    """The frame of a packet of the session with that seed."""
    kind = _Part.PROBE if packet.probe else 0
    parts: list[Buffer] = []
    if packet.missed:
        kind |= _Part.MISSED
        parts.append(_MISSED.pack(packet.missed))
    if packet.segment is not None:
        kind |= _Part.SEGMENT
        parts += (_SEGMENT.pack(packet.segment), packet.data)
    return _frame(b"".join((_FRONT.pack(kind, packet.number, packet.heard), *parts)), seed)


def _frame(body: bytes, seed: int) -> bytes:
    return b"".join((b"\0", cobs.encode(body + _CRC.pack(crc32c(body, seed))), b"\0"))


class FrameReader:
    """Bytes of the line in, frames out. Keeps at most one unfinished frame.

    `seed` is that of the packets to accept; None: none are.
    """

    def __init__(self) -> None:
        self._damaged = 0
        self.seed: int | None = None
        self._rest = b""
        self._lost = False  # more than a frame came without a zero

    def take_damaged(self) -> int:
        """How much came since the last call that was no frame."""
        damaged, self._damaged = self._damaged, 0
        return damaged

    def closed(self, data: bytes) -> list[bytes]:
        """What lies between zeros now that `data` has come: frames, each to be given to `read`, or junk."""
        *closed, self._rest = (self._rest + data).split(b"\0") if self._rest else data.split(b"\0")
        if closed and self._lost:
            closed[0] = b""
            self._lost = False
        if self._lost or len(self._rest) > FRAME_MOST_BYTES:
            self._damaged += not self._lost
            self._rest, self._lost = b"", True
        return [frame for frame in closed if frame]

    def read(self, frame: bytes) -> Frame | None:
        """The frame; None when it is damaged, or a packet of another session."""
        found = self._read(frame) if len(frame) <= FRAME_MOST_BYTES else None
        self._damaged += found is None
        return found

    def _read(self, frame: bytes) -> Frame | None:
        try:
            body = cobs.decode(frame)
        except cobs.DecodeError:
            return None
        if len(body) < _LEAST_BYTES:
            return None
        view = memoryview(body)[: -_CRC.size]
        (crc,) = _CRC.unpack_from(body, len(view))
        if view[0] == _HELLO_KIND:
            return _read_hello(view) if crc == crc32c(view) else None
        if self.seed is None or crc != crc32c(view, self.seed):
            return None
        return _read_packet(view)


def _read_hello(view: memoryview) -> Hello | None:
    if view[1] != VERSION:
        return Hello(view[1], HelloFlag(0), 0, 0, 0)  # where the version stands is all that versions share
    if len(view) != _HELLO.size:
        return None
    _, version, flags, own, echo, buffer_bytes = _HELLO.unpack(view)
    return Hello(version, HelloFlag(flags & _HELLO_FLAGS), own, echo, buffer_bytes)


def _read_packet(view: memoryview) -> Packet | None:
    kind, number, heard = _FRONT.unpack_from(view)
    rest = view[_FRONT.size :]
    missed, segment = 0, None
    try:
        if kind & _Part.MISSED:
            (missed,) = _MISSED.unpack_from(rest)
            rest = rest[_MISSED.size :]
        if kind & _Part.SEGMENT:
            (segment,) = _SEGMENT.unpack_from(rest)
            rest = rest[_SEGMENT.size :]
    except struct.error:
        return None
    if kind & ~0x07 or bool(rest) != (segment is not None):
        return None
    return Packet(number, heard, missed, segment, rest, bool(kind & _Part.PROBE))
