"""REPORT SUPPORTED OPERATION CODES: the command table, told to the initiator. Ref: T10 SPC-4 6."""

from __future__ import annotations

from enum import IntEnum

from hwvirt.scsi.layout import Bits, Int, Layout, Values
from hwvirt.scsi.opcodes import COMMANDS, Cdb
from hwvirt.scsi.server.unit import Request, Unit, refuse_if

__all__ = ["report_supported_operation_codes"]


class _Report(IntEnum):
    """Reporting options. SPC-4 6, REPORT SUPPORTED OPERATION CODES."""

    ALL = 0
    OPCODE = 1  # one without service actions
    SERVICE_ACTION = 2  # one with them
    EITHER = 3  # as above; without service actions it has service action 0


_NOT_SUPPORTED, _AS_STANDARD = 1, 3
_LIST = Layout("all commands parameter data header", 4, Int("length", 0, 4))
_LISTED = Layout(
    "command descriptor",
    8,
    Int("opcode", 0),
    Int("service_action", 2, 2),
    Bits("ctdp", 5, 1),
    Bits("servactv", 5, 0),
    Int("size", 6, 2),
)
_ONE = Layout("one command parameter data header", 4, Bits("ctdp", 1, 7), Bits("support", 1, 2, 0), Int("size", 2, 2))
_TIMEOUTS = Layout("command timeouts", 12, Int("length", 0, 2), Int("nominal_s", 4, 4), Int("recommended_s", 8, 4))


async def report_supported_operation_codes(unit: Unit, request: Request) -> bytes:
    """All commands, or whether and how one is supported: every row of the table is."""
    del unit
    fields = request.fields
    if fields.reporting_options == _Report.ALL:
        commands = b"".join(_listed(row, fields.rctd) for row in COMMANDS)
        return _LIST.encode(length=len(commands)) + commands
    return _one(_requested(fields), fields.rctd)


def _requested(fields: Values) -> Cdb | None:
    rows = {row.service_action: row for row in COMMANDS if row.opcode == fields.requested_opcode}
    plain = rows.get(None)
    match fields.reporting_options:
        case _Report.OPCODE:
            refuse_if(rows and plain is None)
            return plain
        case _Report.SERVICE_ACTION:
            refuse_if(plain is not None)
        case _Report.EITHER if plain is not None:
            return plain if fields.requested_service_action == 0 else None
        case _Report.EITHER:
            pass
        case _:
            refuse_if("reserved")
    return rows.get(fields.requested_service_action)


def _listed(row: Cdb, with_timeouts: int) -> bytes:
    descriptor = _LISTED.encode(
        opcode=row.opcode,
        service_action=row.service_action or 0,
        ctdp=with_timeouts,
        servactv=int(row.service_action is not None),
        size=row.layout.size,
    )
    return descriptor + _timeouts(row) if with_timeouts else descriptor


def _one(row: Cdb | None, with_timeouts: int) -> bytes:
    if row is None:
        return _ONE.encode(support=_NOT_SUPPORTED)
    front = _ONE.encode(ctdp=with_timeouts, support=_AS_STANDARD, size=row.layout.size) + row.usage
    return front + _timeouts(row) if with_timeouts else front


def _timeouts(row: Cdb) -> bytes:
    return _TIMEOUTS.encode(length=_TIMEOUTS.size - 2, recommended_s=int(row.timeout_s))
