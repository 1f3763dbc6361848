"""READ and WRITE in all their sizes: the data path, so a CDB is taken apart by one call of a precompiled struct.

FUA on a READ asks for nothing that a volume does not do anyway: it returns the newest version of a block.
Ref: T10 SBC-4 5 (READ, WRITE); SBC-2 for those of six bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from struct import Struct
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from hwvirt.buffers import Pieces, length
from hwvirt.scsi import opcodes
from hwvirt.scsi.opcodes import Cdb, Direction
from hwvirt.scsi.sense import INVALID_FIELD_IN_CDB, LBA_OUT_OF_RANGE, CheckCondition
from hwvirt.scsi.server.unit import Unit

__all__ = ["FORMS", "Form", "Kind", "admit", "front"]


class Kind(Enum):
    """Transfers of one kind go to the volume in one call."""

    READ = "read"
    WRITE = "write"
    WRITE_DURABLE = "write with FUA"


_Parts: TypeAlias = tuple[int, int, int, int]
"""Flags of byte 1, LBA, blocks, CONTROL."""


class Form(NamedTuple):
    """How a READ or WRITE is taken apart; `refused` are the bits of byte 1 that must be zero."""

    size: int
    unpack: Callable[[bytes], _Parts]
    refused: int
    kind: Kind
    kind_with_fua: Kind


_READ: Final = Kind.READ  # to look up a member of an enum is a call; the data path does without
_FUA: Final = 0x08
_PROTECT: Final = 0xE0  # no protection information is kept


def admit(unit: Unit, form: Form, cdb: bytes) -> tuple[Kind, int, int]:
    """How the command transfers which blocks: kind, LBA, blocks. Raises CheckCondition when the unit does not do that."""
    if len(cdb) < form.size:
        raise CheckCondition(INVALID_FIELD_IN_CDB)
    flags, lba, blocks, control = form.unpack(cdb)
    if flags & form.refused or control or blocks > unit.limits.max_transfer:
        raise CheckCondition(INVALID_FIELD_IN_CDB)
    if lba + blocks > unit.volume.blocks:
        raise CheckCondition(LBA_OUT_OF_RANGE)
    kind = form.kind_with_fua if flags & _FUA else form.kind
    if kind is not _READ:
        unit.refuse_if_protected()
    return kind, lba, blocks


def front(pieces: Pieces, size_bytes: int) -> Pieces:
    """The first bytes of the pieces. Raises CheckCondition when there are fewer."""
    if length(pieces) < size_bytes:
        raise CheckCondition(INVALID_FIELD_IN_CDB)
    kept = []
    for piece in pieces:
        kept.append(memoryview(piece)[:size_bytes])
        size_bytes -= len(kept[-1])
    return [piece for piece in kept if piece]


def _unpack_6(cdb: bytes) -> _Parts:
    return cdb[1] & _PROTECT, int.from_bytes(cdb[1:4], "big") & 0x1FFFFF, cdb[4] or 256, cdb[5]


_UNPACK: Final[Mapping[int, Callable[[bytes], _Parts]]] = MappingProxyType(
    {
        6: _unpack_6,
        10: Struct(">xBIxHB").unpack_from,
        12: Struct(">xBIIxB").unpack_from,
        16: Struct(">xBQIxB").unpack_from,
    }
)


def _form(row: Cdb) -> Form:
    size = row.layout.size
    kinds = (Kind.READ, Kind.READ) if row.direction is Direction.IN else (Kind.WRITE, Kind.WRITE_DURABLE)
    return Form(size, _UNPACK[size], _PROTECT | 0xFF & ~row.layout.usage[1], *kinds)


FORMS: Final[Mapping[bytes, Form]] = MappingProxyType(
    {
        bytes([row.opcode]): _form(row)
        for row in (
            opcodes.READ_6,
            opcodes.READ_10,
            opcodes.READ_12,
            opcodes.READ_16,
            opcodes.WRITE_6,
            opcodes.WRITE_10,
            opcodes.WRITE_12,
            opcodes.WRITE_16,
        )
    }
)
"""By operation code."""
