"""The commands this house knows, one row each: what a CDB looks like, where its data goes, how long it may take.

The size of a CDB follows from its operation code; the operation code, the service action and the CONTROL byte are added to
each row's fields. Ref: T10 SPC-4 4.2.5 (CDB sizes), 6 (primary commands), SBC-4 5 (block commands).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from hwvirt.scsi.layout import Bits, Field, Int, Layout

__all__ = [
    "COMMANDS",
    "COMPARE_AND_WRITE",
    "GET_LBA_STATUS",
    "INQUIRY",
    "MODE_SENSE_6",
    "MODE_SENSE_10",
    "READ_6",
    "READ_10",
    "READ_12",
    "READ_16",
    "READ_CAPACITY_10",
    "READ_CAPACITY_16",
    "REPORT_LUNS",
    "REPORT_SUPPORTED_OPERATION_CODES",
    "REQUEST_SENSE",
    "START_STOP_UNIT",
    "SYNCHRONIZE_CACHE_10",
    "SYNCHRONIZE_CACHE_16",
    "TEST_UNIT_READY",
    "UNMAP",
    "VERIFY_10",
    "VERIFY_16",
    "WRITE_6",
    "WRITE_10",
    "WRITE_12",
    "WRITE_16",
    "WRITE_SAME_10",
    "WRITE_SAME_16",
    "Cdb",
    "Direction",
    "Effect",
    "cdb_size",
    "find",
]


class Direction(Enum):
    """Where a command's data goes."""

    NONE = "no data"
    IN = "to the initiator"
    OUT = "to the device"


class Effect(Enum):
    """What a command may do to the blocks."""

    KEEPS_MEDIUM = "keeps every block as it is"
    CHANGES_MEDIUM = "may change blocks"


@dataclass(frozen=True, eq=False)
class Cdb:
    """One command. `timeout_s` is how long an initiator waits by default."""

    name: str
    opcode: int
    service_action: int | None
    layout: Layout
    direction: Direction
    effect: Effect
    timeout_s: float

    def encode(self, **fields: int) -> bytes:
        """The CDB. Raises ValueError for a value out of range, TypeError for an unknown field."""
        if self.service_action is not None:
            fields["service_action"] = self.service_action
        return self.layout.encode(opcode=self.opcode, **fields)

    @property
    def usage(self) -> bytes:
        """CDB usage data: code and service action as they are, then ones where a field is. SPC-4 6, one command format."""
        usage = bytearray(self.layout.usage)
        usage[0] = self.opcode
        if self.service_action is not None:
            usage[1] = usage[1] & ~_SERVICE_ACTION_MASK | self.service_action
        return bytes(usage)


_SERVICE_ACTION_MASK: Final = 0x1F
_BY_OPCODE: Final[dict[int, Cdb]] = {}
_BY_SERVICE_ACTION: Final[dict[tuple[int, int], Cdb]] = {}


def cdb_size(opcode: int) -> int:
    """Bytes of a CDB with this operation code; 0 where the code does not say. SPC-4 4.2.5."""
    return (6, 10, 10, 0, 16, 12, 0, 0)[opcode >> 5]


def find(cdb: bytes) -> Cdb | None:
    """The row of a CDB; None when no row has its operation code and service action, or when it is too short."""
    if len(cdb) < 2:
        return None
    row = _BY_OPCODE.get(cdb[0]) or _BY_SERVICE_ACTION.get((cdb[0], cdb[1] & _SERVICE_ACTION_MASK))
    return row if row is not None and len(cdb) >= row.layout.size else None


def _row(
    name: str,
    opcode: int,
    *fields: Field,
    service_action: int | None = None,
    direction: Direction = Direction.NONE,
    effect: Effect = Effect.KEEPS_MEDIUM,
    timeout_s: float = 30.0,
) -> Cdb:
    size = cdb_size(opcode)
    action = () if service_action is None else (Bits("service_action", 1, 4, 0),)
    layout = Layout(name, size, Int("opcode", 0), *action, *fields, Int("control", size - 1))
    row = Cdb(name, opcode, service_action, layout, direction, effect, timeout_s)
    if service_action is None:
        _BY_OPCODE[opcode] = row
    else:
        _BY_SERVICE_ACTION[opcode, service_action] = row
    return row


_IN, _OUT, _CHANGES = Direction.IN, Direction.OUT, Effect.CHANGES_MEDIUM

_PROTECT = Bits("protect", 1, 7, 5)
_DPO = Bits("dpo", 1, 4)
_FUA = Bits("fua", 1, 3)
_RARC = Bits("rarc", 1, 2)
_IMMED = Bits("immed", 1, 1)
_BYTCHK = Bits("bytchk", 1, 2, 1)
_ANCHOR = Bits("anchor", 1, 4)
_UNMAP = Bits("unmap", 1, 3)

_EXTENT_6 = (Bits("lba_high", 1, 4, 0), Int("lba_low", 2, 2), Int("blocks", 4))
_EXTENT_10 = (Int("lba", 2, 4), Bits("group", 6, 5, 0), Int("blocks", 7, 2))
_EXTENT_12 = (Int("lba", 2, 4), Int("blocks", 6, 4), Bits("group", 10, 5, 0))
_EXTENT_16 = (Int("lba", 2, 8), Int("blocks", 10, 4), Bits("group", 14, 5, 0))
_READ_FLAGS = (_PROTECT, _DPO, _FUA, _RARC)
_WRITE_FLAGS = (_PROTECT, _DPO, _FUA)
_MODE_PAGE = (Bits("dbd", 1, 3), Bits("pc", 2, 7, 6), Bits("page", 2, 5, 0), Int("subpage", 3))

TEST_UNIT_READY = _row("TEST UNIT READY", 0x00)
REQUEST_SENSE = _row("REQUEST SENSE", 0x03, Bits("desc", 1, 0), Int("allocation", 4), direction=_IN)
READ_6 = _row("READ(6)", 0x08, *_EXTENT_6, direction=_IN)
WRITE_6 = _row("WRITE(6)", 0x0A, *_EXTENT_6, direction=_OUT, effect=_CHANGES)
INQUIRY = _row("INQUIRY", 0x12, Bits("evpd", 1, 0), Int("page", 2), Int("allocation", 3, 2), direction=_IN)
MODE_SENSE_6 = _row("MODE SENSE(6)", 0x1A, *_MODE_PAGE, Int("allocation", 4), direction=_IN)
START_STOP_UNIT = _row(
    "START STOP UNIT",
    0x1B,
    Bits("immed", 1, 0),
    Bits("power_condition_modifier", 3, 3, 0),
    Bits("power_condition", 4, 7, 4),
    Bits("no_flush", 4, 2),
    Bits("loej", 4, 1),
    Bits("start", 4, 0),
    timeout_s=60.0,
)
READ_CAPACITY_10 = _row("READ CAPACITY(10)", 0x25, Int("lba", 2, 4), Bits("pmi", 8, 0), direction=_IN)
READ_10 = _row("READ(10)", 0x28, *_READ_FLAGS, *_EXTENT_10, direction=_IN)
WRITE_10 = _row("WRITE(10)", 0x2A, *_WRITE_FLAGS, *_EXTENT_10, direction=_OUT, effect=_CHANGES)
VERIFY_10 = _row("VERIFY(10)", 0x2F, _PROTECT, _DPO, _BYTCHK, *_EXTENT_10, direction=_OUT)
SYNCHRONIZE_CACHE_10 = _row("SYNCHRONIZE CACHE(10)", 0x35, _IMMED, *_EXTENT_10, timeout_s=60.0)
WRITE_SAME_10 = _row(
    "WRITE SAME(10)", 0x41, _PROTECT, _ANCHOR, _UNMAP, *_EXTENT_10, direction=_OUT, effect=_CHANGES, timeout_s=120.0
)
UNMAP = _row(
    "UNMAP",
    0x42,
    Bits("anchor", 1, 0),
    Bits("group", 6, 5, 0),
    Int("parameter_list", 7, 2),
    direction=_OUT,
    effect=_CHANGES,
    timeout_s=60.0,
)
MODE_SENSE_10 = _row("MODE SENSE(10)", 0x5A, Bits("llbaa", 1, 4), *_MODE_PAGE, Int("allocation", 7, 2), direction=_IN)
READ_16 = _row("READ(16)", 0x88, *_READ_FLAGS, *_EXTENT_16, direction=_IN)
COMPARE_AND_WRITE = _row(
    "COMPARE AND WRITE",
    0x89,
    *_WRITE_FLAGS,
    Int("lba", 2, 8),
    Int("blocks", 13),
    Bits("group", 14, 5, 0),
    direction=_OUT,
    effect=_CHANGES,
)
WRITE_16 = _row("WRITE(16)", 0x8A, *_WRITE_FLAGS, *_EXTENT_16, direction=_OUT, effect=_CHANGES)
VERIFY_16 = _row("VERIFY(16)", 0x8F, _PROTECT, _DPO, _BYTCHK, *_EXTENT_16, direction=_OUT)
SYNCHRONIZE_CACHE_16 = _row("SYNCHRONIZE CACHE(16)", 0x91, _IMMED, *_EXTENT_16, timeout_s=60.0)
WRITE_SAME_16 = _row(
    "WRITE SAME(16)",
    0x93,
    _PROTECT,
    _ANCHOR,
    _UNMAP,
    Bits("ndob", 1, 0),
    *_EXTENT_16,
    direction=_OUT,
    effect=_CHANGES,
    timeout_s=120.0,
)
READ_CAPACITY_16 = _row(
    "READ CAPACITY(16)",
    0x9E,
    Int("lba", 2, 8),
    Int("allocation", 10, 4),
    Bits("pmi", 14, 0),
    service_action=0x10,
    direction=_IN,
)
GET_LBA_STATUS = _row(
    "GET LBA STATUS",
    0x9E,
    Int("lba", 2, 8),
    Int("allocation", 10, 4),
    Int("report_type", 14),
    service_action=0x12,
    direction=_IN,
)
REPORT_LUNS = _row("REPORT LUNS", 0xA0, Int("select_report", 2), Int("allocation", 6, 4), direction=_IN)
REPORT_SUPPORTED_OPERATION_CODES = _row(
    "REPORT SUPPORTED OPERATION CODES",
    0xA3,
    Bits("rctd", 2, 7),
    Bits("reporting_options", 2, 2, 0),
    Int("requested_opcode", 3),
    Int("requested_service_action", 4, 2),
    Int("allocation", 6, 4),
    service_action=0x0C,
    direction=_IN,
)
READ_12 = _row("READ(12)", 0xA8, *_READ_FLAGS, *_EXTENT_12, direction=_IN)
WRITE_12 = _row("WRITE(12)", 0xAA, *_WRITE_FLAGS, *_EXTENT_12, direction=_OUT, effect=_CHANGES)

COMMANDS: Final = (*_BY_OPCODE.values(), *_BY_SERVICE_ACTION.values())
"""All rows."""
