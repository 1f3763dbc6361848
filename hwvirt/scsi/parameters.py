"""Parameter data of commands that are neither about identity nor about modes: capacity, LUNs, LBA status, UNMAP lists.

Ref: T10 SBC-4 5 (GET LBA STATUS, READ CAPACITY, UNMAP), SPC-4 6 (REPORT LUNS), SAM-5 4.7 (LUNs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain
from struct import Struct

from hwvirt.buffers import Buffer
from hwvirt.scsi.layout import Bits, Int, Layout
from hwvirt.scsi.volume import Extent

__all__ = [
    "Capacity",
    "LbaStatus",
    "decode_capacity",
    "decode_luns",
    "decode_unmap_list",
    "encode_capacity_10",
    "encode_capacity_16",
    "encode_lba_status",
    "encode_luns",
    "encode_unmap_list",
    "lun_field",
]


@dataclass(frozen=True, slots=True)
class Capacity:
    """How large a unit is; `provisioned` says that blocks can be given back (LBPME), `reads_zeroes` what they read then."""

    blocks: int
    block_bytes: int
    provisioned: bool
    reads_zeroes: bool


class LbaStatus(IntEnum):
    """Provisioning status of a run of blocks. SBC-4 5, GET LBA STATUS."""

    MAPPED = 0
    DEALLOCATED = 1


_MOST_LBA_10 = 0xFFFFFFFF
_CAPACITY_10 = Layout("READ CAPACITY(10) data", 8, Int("last_lba", 0, 4), Int("block_bytes", 4, 4))
_CAPACITY_16 = Layout(
    "READ CAPACITY(16) data",
    32,
    Int("last_lba", 0, 8),
    Int("block_bytes", 8, 4),
    Bits("lbpme", 14, 7),
    Bits("lbprz", 14, 6),
)
_LUNS = Layout("LUN list header", 8, Int("length", 0, 4))
_STATUS_HEADER = Layout("LBA status header", 8, Int("length", 0, 4))
_STATUS = Layout("LBA status descriptor", 16, Int("lba", 0, 8), Int("blocks", 8, 4), Bits("status", 12, 3, 0))
_FLAT_SPACE = 0x4000
_UNMAP_HEADER = Struct(">HH4x")  # bytes after this field, bytes of descriptors
_UNMAP_DESCRIPTOR = Struct(">QI4x")  # LBA, blocks
_MOST_UNMAP_EXTENTS = 4095


def encode_capacity_10(blocks: int, block_bytes: int) -> bytes:
    """A last LBA of FFFFFFFFh says: ask READ CAPACITY(16)."""
    return _CAPACITY_10.encode(last_lba=min(blocks - 1, _MOST_LBA_10), block_bytes=block_bytes)


def encode_capacity_16(blocks: int, block_bytes: int) -> bytes:
    """Capacity of a thin provisioned unit whose unmapped blocks read as zeroes."""
    return _CAPACITY_16.encode(last_lba=blocks - 1, block_bytes=block_bytes, lbpme=1, lbprz=1)


def decode_capacity(data: Buffer) -> Capacity:
    """From what READ CAPACITY(16) sent. Raises ValueError for less than LBA and block size."""
    if len(data) < 12:
        raise ValueError(f"READ CAPACITY(16) data takes at least 12 bytes, not {len(data)}")
    values = _CAPACITY_16.decode(bytes(data).ljust(_CAPACITY_16.size, b"\0"))
    return Capacity(values.last_lba + 1, values.block_bytes, bool(values.lbpme), bool(values.lbprz))


def lun_field(lun: int) -> bytes:
    """The eight bytes of a LUN: peripheral device addressing below 256, flat space above. Raises ValueError above 16383."""
    if not 0 <= lun < _FLAT_SPACE:
        raise ValueError(f"LUN {lun} is not within 0..{_FLAT_SPACE - 1}")
    return (lun if lun < 0x100 else _FLAT_SPACE | lun).to_bytes(2, "big") + bytes(6)


def encode_luns(luns: Sequence[int]) -> bytes:
    """REPORT LUNS data."""
    return _LUNS.encode(length=8 * len(luns)) + b"".join(map(lun_field, luns))


def decode_luns(data: Buffer) -> list[int]:
    """The LUNs of one level in REPORT LUNS data; others are left out. Raises ValueError for less than a header."""
    end = _LUNS.size + _LUNS.decode(data).length
    fields = [bytes(data[at : at + 8]) for at in range(_LUNS.size, min(end, len(data)) - 7, 8)]
    return [int.from_bytes(field[:2], "big") & (_FLAT_SPACE - 1) for field in fields if _is_one_level(field)]


def encode_lba_status(lba: int, runs: Sequence[tuple[int, LbaStatus]]) -> bytes:
    """GET LBA STATUS data: runs of (blocks, status) from `lba`."""
    descriptors = []
    for blocks, status in runs:
        descriptors.append(_STATUS.encode(lba=lba, blocks=blocks, status=status))
        lba += blocks
    return b"".join(chain((_STATUS_HEADER.encode(length=4 + _STATUS.size * len(descriptors)),), descriptors))


def encode_unmap_list(extents: Sequence[Extent]) -> bytes:
    """The parameter list of UNMAP. Raises ValueError for more than 4095 extents, whose size it could not say."""
    if len(extents) > _MOST_UNMAP_EXTENTS:
        raise ValueError(f"{len(extents)} extents are too many for one UNMAP")
    size = _UNMAP_DESCRIPTOR.size * len(extents)
    descriptors = [_UNMAP_DESCRIPTOR.pack(lba, blocks) for lba, blocks in extents]
    return b"".join((_UNMAP_HEADER.pack(size + _UNMAP_HEADER.size - 2, size), *descriptors))


def decode_unmap_list(data: Buffer) -> list[Extent]:
    """The extents; a descriptor that is cut short does not count. Raises ValueError for less than a header."""
    if len(data) < _UNMAP_HEADER.size:
        raise ValueError(f"the header of an UNMAP parameter list takes {_UNMAP_HEADER.size} bytes, not {len(data)}")
    _, size = _UNMAP_HEADER.unpack_from(data)
    end = min(_UNMAP_HEADER.size + size, len(data))
    whole = (end - _UNMAP_HEADER.size) // _UNMAP_DESCRIPTOR.size * _UNMAP_DESCRIPTOR.size
    descriptors = memoryview(data)[_UNMAP_HEADER.size : _UNMAP_HEADER.size + whole]
    return [Extent(lba, blocks) for lba, blocks in _UNMAP_DESCRIPTOR.iter_unpack(descriptors)]


def _is_one_level(field: bytes) -> bool:
    return not any(field[2:]) and field[0] >> 6 in (0, 1) and (field[0] >> 6 == 1 or field[0] == 0)
