"""Blocks that describe themselves: whose they are stands in front, filler made from that fills the rest.

Layout, little endian: magic "HWVBLOCK" 8, block bytes u32, volume u32, LBA u64, version u64, seed u64, writer u32, CRC-32C
of the 44 bytes before it u32; then filler. The filler is a slice of one pool of random bytes, chosen by mixing all fields:
making and comparing a whole block runs at the speed of memory, and two versions of a block differ in every sector.
"""

from __future__ import annotations

import random
import struct
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from hwvirt.buffers import Buffer, Pieces, split
from hwvirt.digest import crc32c

__all__ = [
    "FOREIGN",
    "HEADER_BYTES",
    "MISDIRECTED",
    "TORN",
    "ZERO",
    "ZEROED",
    "BlockId",
    "Garbage",
    "Identity",
    "Torn",
    "Zero",
    "describe",
    "identify",
    "make_extent",
    "version_of",
    "versions_in",
]

ZEROED: Final = 0
"""The version of a block that reads as zeroes."""
FOREIGN: Final = -1
"""The version of a block that this history's writer never made: garbage, another volume's, another seed's."""
MISDIRECTED: Final = -2
"""The version of a block that names another LBA of this volume."""
TORN: Final = -3
"""The version of a block whose filler does not belong to its header."""

_MAGIC = b"HWVBLOCK"
_HEADER = struct.Struct("<8sIIQQQI")
_CRC = struct.Struct("<I")
HEADER_BYTES = _HEADER.size + _CRC.size
_LARGEST_BLOCK = 4096
_POOL_BITS = 20
_POOL = random.Random("hwvirt filler").randbytes((1 << _POOL_BITS) + _LARGEST_BLOCK)
_POOL_VIEW = memoryview(_POOL)
_ZEROES = bytes(_LARGEST_BLOCK)
_MASK = (1 << 64) - 1
# Odd multipliers with well spread bits: each field reaches the upper bits of the 64-bit product that choose the slice.
_LBA_FACTOR, _VERSION_FACTOR, _LAST_FACTOR = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93
_FIELD_FACTOR = 0xFF51AFD7ED558CCD


class BlockId(NamedTuple):
    """Whose a block is: `version` is the number of the operation that wrote it."""

    volume: int
    lba: int
    version: int
    writer: int
    seed: int


class Torn(NamedTuple):
    """A good header with filler of something else; `first` and `last` are the first and last byte that differ."""

    id: BlockId
    first: int
    last: int


class Garbage(NamedTuple):
    """Not one of our blocks."""

    reason: str


class Zero(Enum):
    """A block of zeroes."""

    ZERO = "zeroes"


ZERO: Final = Zero.ZERO
Identity: TypeAlias = BlockId | Torn | Garbage | Zero


@lru_cache(maxsize=256)
def _mixed(volume: int, writer: int, seed: int) -> int:
    mixed = 0
    for field in (volume, writer, seed):
        mixed = ((mixed ^ field) * _FIELD_FACTOR & _MASK) ^ mixed >> 29
    return mixed


def _slice_start(mixed: int, lba: int, version: int) -> int:
    product = (mixed ^ (lba * _LBA_FACTOR + version * _VERSION_FACTOR)) & _MASK
    return ((product ^ product >> 31) * _LAST_FACTOR & _MASK) >> 64 - _POOL_BITS


def make_extent(volume: int, lba: int, blocks: int, version: int, writer: int, seed: int, block_bytes: int) -> bytes:
    """The blocks `lba` to `lba + blocks` of one write operation, of `block_bytes` (512 or 4096) each."""
    mixed = _mixed(volume, writer, seed)
    filler_bytes = block_bytes - HEADER_BYTES
    pieces: list[Buffer] = []
    for at in range(lba, lba + blocks):
        header = _HEADER.pack(_MAGIC, block_bytes, volume, at, version, seed, writer)
        start = _slice_start(mixed, at, version)
        pieces += (header, _CRC.pack(crc32c(header)), _POOL_VIEW[start : start + filler_bytes])
    return b"".join(pieces)


def identify(block: Buffer) -> Identity:
    """Whose this block is; every byte has been compared."""
    view = memoryview(block)
    header = view[: _HEADER.size]
    magic, block_bytes, volume, lba, version, seed, writer = _HEADER.unpack(header)
    if magic != _MAGIC:
        if _ZEROES.startswith(view):
            return ZERO
        return Garbage("no header")
    if _CRC.unpack_from(view, _HEADER.size)[0] != crc32c(header):
        return Garbage("header with a wrong CRC")
    if block_bytes != len(view):
        return Garbage(f"header of a block of {block_bytes} bytes")
    who = BlockId(volume, lba, version, writer, seed)
    start = _slice_start(_mixed(volume, writer, seed), lba, version)
    filler = view[HEADER_BYTES:]
    if _POOL.startswith(filler, start):
        return who
    wanted = np.frombuffer(_POOL, np.uint8, len(filler), start)
    wrong = np.flatnonzero(np.frombuffer(filler, np.uint8) != wanted) + HEADER_BYTES
    return Torn(who, int(wrong[0]), int(wrong[-1]))


def version_of(identity: Identity, volume: int, seed: int, lba: int, writer: int = 1) -> int:
    """The version that was seen where block `lba` should lie: a write's number, ZEROED, or what is wrong with it."""
    if isinstance(identity, BlockId):
        if (identity.volume, identity.seed, identity.writer) != (volume, seed, writer):
            return FOREIGN
        return identity.version if identity.lba == lba else MISDIRECTED
    if identity is ZERO:
        return ZEROED
    return TORN if isinstance(identity, Torn) and identity.id.seed == seed and identity.id.writer == writer else FOREIGN


def versions_in(data: Pieces, volume: int, seed: int, lba: int, block_bytes: int, writer: int = 1) -> list[int]:
    """The version (see `version_of`) of each block in data that was read from `lba` on."""
    blocks = enumerate(split(data, block_bytes), lba)
    return [version_of(identify(block), volume, seed, at, writer) for at, block in blocks]


def describe(identity: Identity, writer: int) -> str:
    """For people; `writer` is who writes now."""
    match identity:
        case BlockId(volume, lba, version, whose, seed):
            stranger = "" if whose == writer else f" (another run's: this one's writer is {writer})"
            return f"volume {volume} lba {lba} version {version} of writer {whose}, seed {seed}{stranger}"
        case Torn(who, first, last):
            return f"torn: header of {describe(who, writer)}, but bytes {first} to {last} differ"
        case Garbage(reason):
            return f"garbage: {reason}"
        case Zero():
            return "zeroes"
