"""CDBs, made and read. The encoders here are those of the data path: one call of a precompiled struct each.

For the others take the row: `opcodes.REPORT_LUNS.encode(allocation=4096)`. Ref: T10 SBC-4 5, SPC-4 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

from hwvirt.scsi import opcodes
from hwvirt.scsi.command import Command
from hwvirt.scsi.opcodes import Effect
from hwvirt.scsi.parameters import encode_unmap_list
from hwvirt.scsi.volume import Extent

__all__ = [
    "describe",
    "inquiry",
    "medium_changing",
    "mode_sense_10",
    "read_16",
    "read_capacity_16",
    "synchronize_cache_16",
    "timeout_s",
    "unmap",
    "verify_16",
    "write_16",
    "write_same_16",
    "write_same_16_unmap",
]

_EXTENT_16: Final = Struct(">BBQIH").pack  # operation code, flags, LBA, blocks, group and control
_FUA: Final = 0x08
_UNMAP: Final = 0x08
_NDOB: Final = 0x01
_DEFAULT_TIMEOUT_S: Final = 30.0


def read_16(lba: int, blocks: int) -> bytes:
    """READ(16)."""
    return _EXTENT_16(0x88, 0, lba, blocks, 0)


def write_16(lba: int, blocks: int, fua: bool = False) -> bytes:
    """WRITE(16); with `fua` GOOD means durable."""
    return _EXTENT_16(0x8A, _FUA if fua else 0, lba, blocks, 0)


def verify_16(lba: int, blocks: int) -> bytes:
    """VERIFY(16) without data: whether the blocks can be read."""
    return _EXTENT_16(0x8F, 0, lba, blocks, 0)


def synchronize_cache_16() -> bytes:
    """SYNCHRONIZE CACHE(16) of the whole unit."""
    return _EXTENT_16(0x91, 0, 0, 0, 0)


def write_same_16(lba: int, blocks: int, unmap: bool = False) -> bytes:
    """WRITE SAME(16), which takes one block of data; with `unmap` and zeroes the device may deallocate instead."""
    return _EXTENT_16(0x93, _UNMAP if unmap else 0, lba, blocks, 0)


def write_same_16_unmap(lba: int, blocks: int) -> Command:
    """WRITE SAME(16) with UNMAP and NDOB: the blocks read as zeroes afterwards; no data."""
    return Command(_EXTENT_16(0x93, _UNMAP | _NDOB, lba, blocks, 0))


def unmap(extents: Sequence[Extent]) -> Command:
    """UNMAP with its parameter list. Raises ValueError for more than 4095 extents."""
    parameters = encode_unmap_list(extents)
    return Command(opcodes.UNMAP.encode(parameter_list=len(parameters)), (parameters,))


def inquiry(page: int | None, allocation: int) -> bytes:
    """INQUIRY: standard data for None, else the vital product data page. `allocation` is the most bytes to be sent."""
    if page is None:
        return opcodes.INQUIRY.encode(allocation=allocation)
    return opcodes.INQUIRY.encode(evpd=1, page=page, allocation=allocation)


def read_capacity_16() -> bytes:
    """READ CAPACITY(16) for all its 32 bytes."""
    return opcodes.READ_CAPACITY_16.encode(allocation=32)


def mode_sense_10(page: int, allocation: int) -> bytes:
    """MODE SENSE(10) for the current values of one page, without block descriptors."""
    return opcodes.MODE_SENSE_10.encode(dbd=1, page=page, allocation=allocation)


def timeout_s(cdb: bytes) -> float:
    """How long an initiator waits for this command by default."""
    row = opcodes.find(cdb)
    return _DEFAULT_TIMEOUT_S if row is None else row.timeout_s


def medium_changing(cdb: bytes) -> bool:
    """Whether the command may change blocks. One that is not known here counts as such: it may."""
    row = opcodes.find(cdb)
    return row is None or row.effect is Effect.CHANGES_MEDIUM


def describe(cdb: bytes) -> str:
    """For people: "WRITE(16) lba=0x1f400 blocks=8"; the fields that are not zero, the bytes of a command not known here."""
    row = opcodes.find(cdb)
    if row is None:
        return f"CDB {cdb.hex(' ')}" if cdb else "empty CDB"
    fields = row.layout.decode(cdb)
    words = [row.name]
    for name, value in fields.items():
        if name in ("lba", "lba_low"):
            words.append(f"lba={fields.get('lba_high', 0) << 16 | value:#x}")
        elif name == "blocks":
            words.append(f"blocks={value}")
        elif name in ("opcode", "service_action", "lba_high"):
            continue
        elif name in ("page", "subpage", "requested_opcode") and value:
            words.append(f"{name}={value:#04x}")
        elif value:
            words.append(f"{name}={value}" if value > 1 else name)
    return " ".join(words)
