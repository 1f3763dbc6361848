"""The frame: header, meta, digests, data. All integers are little-endian.

    header   48 bytes, the table below; ends with the CRC-32C of its other bytes
    meta     what the kind of message lays down (messages.py)
    digests  one CRC-32C (u32) for each `grain` bytes of data
    data     its length is a multiple of `grain`

The seal (keyed BLAKE2b, RFC 7693) covers header, meta and digests, the digests cover the data: every bit is covered, and the
digests of block data are those that were computed when the data entered the house. Who does not know the key of the session
cannot make up a reply, a position or a digest; data that fits the same CRC-32C needs TLS. Magic and version stay where they
are in every version.
"""

from __future__ import annotations

import struct
import sys
from array import array
from hashlib import blake2b
from typing import NamedTuple

from hwvirt.buffers import Buffer, Pieces
from hwvirt.digest import block_digests, crc32c
from hwvirt.errors import PeerError
from hwvirt.link.errors import CorruptFrame, WrongVersion

__all__ = [
    "DIGEST_BYTES",
    "HEADER_BYTES",
    "LEAST_GRAIN_BYTES",
    "MAGIC",
    "OPEN_SEAL",
    "VERSION",
    "Body",
    "Header",
    "Seal",
    "open_body",
    "read_header",
    "whole_body",
    "write_frame",
]

MAGIC = b"HWVL"
VERSION = 1
LEAST_GRAIN_BYTES = 512
"""Data in several grains are blocks, and no block is smaller: a peer cannot make us compute a digest for each byte."""

_FIELDS = (
    ("magic", "4s"),
    ("version", "B"),
    ("kind", "B"),
    ("reserved", "H"),  # sent as zero, not read
    ("epoch", "Q"),  # of the session; zero until both sides have proven the secret
    ("number", "I"),  # counts the frames of this direction from 0: a lost or doubled one shows
    ("tag", "I"),  # ties a reply to its request; zero where there is nothing to tie
    ("meta_bytes", "I"),
    ("data_bytes", "I"),
    ("grain_bytes", "I"),
)
_HEADER = struct.Struct("<" + "".join(code for _, code in _FIELDS))
_SEAL_BYTES = 8
_CRC = struct.Struct("<I")
_SEALED_BYTES = _HEADER.size + _SEAL_BYTES
HEADER_BYTES = _SEALED_BYTES + _CRC.size
DIGEST_BYTES = 4
_RECOGNISED = MAGIC + bytes([VERSION])
_TLS_RECORDS = (b"\x15\x03", b"\x16\x03")  # an alert, a handshake (RFC 8446, 5.1)
_CABLE = "Check the cable."
_BOTH_OR_NEITHER = "Give both controllers `tls`, or neither."


class Body(NamedTuple):
    """A message on its way: everything of a frame but the session's part. `data_bytes` is the length of `data`."""

    kind: int
    meta: bytes
    data: Pieces
    data_bytes: int
    digests: array[int]
    grain_bytes: int

    @property
    def frame_bytes(self) -> int:
        """What the frame will take on the wire."""
        return HEADER_BYTES + len(self.meta) + DIGEST_BYTES * len(self.digests) + self.data_bytes


class Header(NamedTuple):
    """A header that was found whole and consistent."""

    kind: int
    epoch: int
    number: int
    tag: int
    meta_bytes: int
    data_bytes: int
    grain_bytes: int
    frame_bytes: int


class Seal:
    """Seals and checks frames of one direction of a session. The empty key is everybody's: it shows damage only."""

    __slots__ = ("_fresh",)

    def __init__(self, key: bytes = b"") -> None:
        self._fresh = blake2b(key=key, digest_size=_SEAL_BYTES).copy

    def of(self, header: Buffer, covered: Buffer) -> bytes:
        """The seal of a header up to its seal, and of meta and digests."""
        fresh = self._fresh()
        fresh.update(header)
        fresh.update(covered)
        return fresh.digest()


OPEN_SEAL = Seal()
"""The seal of frames before both sides have proven the secret."""


def write_frame(epoch: int, number: int, tag: int, body: Body, seal: Seal = OPEN_SEAL) -> list[Buffer]:
    """The frame as buffers to be sent in this order; the data is passed on, not copied."""
    kind, meta, data, data_bytes, digests, grain_bytes = body
    covered = meta + _little_endian(digests).tobytes()
    header = _HEADER.pack(MAGIC, VERSION, kind, 0, epoch, number, tag, len(meta), data_bytes, grain_bytes)
    header += seal.of(header, covered)
    return [b"".join((header, _CRC.pack(crc32c(header)), covered)), *data]


def read_header(received: memoryview, most_bytes: int, place: str) -> Header | None:
    """The header at the front of `received`; None while it is incomplete.

    Raises CorruptFrame as soon as the bytes cannot be a header, WrongVersion, or PeerError for a frame of more than
    `most_bytes`: before anything is allocated for it.
    """
    front = bytes(received[: len(_RECOGNISED)])
    if not _RECOGNISED.startswith(front):
        raise _unrecognised(front, place)
    if len(received) < HEADER_BYTES:
        return None
    if crc32c(received[:_SEALED_BYTES]) != _CRC.unpack_from(received, _SEALED_BYTES)[0]:
        raise CorruptFrame(f"link: {place} sent a damaged frame header.", next_step=_CABLE)
    _, _, kind, _, epoch, number, tag, meta_bytes, data_bytes, grain_bytes = _HEADER.unpack_from(received)
    grains, rest = divmod(data_bytes, grain_bytes) if grain_bytes else (0, data_bytes)
    if rest or (grain_bytes and not grains) or (grains > 1 and grain_bytes < LEAST_GRAIN_BYTES):
        raise PeerError(f"link: {place} sent {data_bytes} bytes of data in grains of {grain_bytes}.")
    frame_bytes = HEADER_BYTES + meta_bytes + DIGEST_BYTES * grains + data_bytes
    if frame_bytes > most_bytes:
        raise PeerError(f"link: {place} announced a frame of {frame_bytes} bytes where {most_bytes} are allowed.")
    return Header(kind, epoch, number, tag, meta_bytes, data_bytes, grain_bytes, frame_bytes)


def open_body(
    header: Header, frame: memoryview, place: str, seal: Seal = OPEN_SEAL
) -> tuple[memoryview, array[int], memoryview]:
    """Meta, digests and data of a whole frame, after seal and digests were found right. Raises CorruptFrame."""
    meta_end = HEADER_BYTES + header.meta_bytes
    data_start = header.frame_bytes - header.data_bytes
    if seal.of(frame[: _HEADER.size], frame[HEADER_BYTES:data_start]) != frame[_HEADER.size : _SEALED_BYTES]:
        raise CorruptFrame(f"link: {place} sent a damaged or forged frame.", next_step=_CABLE)
    digests = array("I")
    digests.frombytes(frame[meta_end:data_start])
    digests = _little_endian(digests)
    data = frame[data_start : header.frame_bytes]
    if digests and block_digests((data,), header.grain_bytes) != digests:
        raise CorruptFrame(f"link: {place} sent damaged data.", next_step=_CABLE)
    return frame[HEADER_BYTES:meta_end], digests, data


def whole_body(kind: int, meta: bytes, data: Pieces = ()) -> Body:
    """A body whose data, if any, has one digest."""
    crc = data_bytes = 0
    for piece in data:
        crc = crc32c(piece, crc)
        data_bytes += len(piece)
    return Body(kind, meta, data, data_bytes, array("I", [crc] if data_bytes else []), data_bytes)


def _unrecognised(front: bytes, place: str) -> PeerError:
    if front.startswith(MAGIC):
        return WrongVersion(
            f"link: {place} speaks version {front[-1]} of the link, this controller version {VERSION}.",
            next_step="Run the same hwvirt on both sides.",
        )
    if front[:2] in _TLS_RECORDS:
        return PeerError(f"link: {place} speaks TLS, and this controller does not.", next_step=_BOTH_OR_NEITHER)
    return CorruptFrame(f"link: {place} does not speak hwvirt's link.", next_step="Check the address and the cable.")


def _little_endian(digests: array[int]) -> array[int]:
    if sys.byteorder == "little":
        return digests
    swapped = array("I", digests)
    swapped.byteswap()
    return swapped
