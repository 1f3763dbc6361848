"""Commands about the unit's condition: whether it is ready, starting and stopping it, what it has to say.

Ref: T10 SPC-4 6 (REQUEST SENSE, TEST UNIT READY), SBC-4 5 (START STOP UNIT).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from hwvirt.scsi import opcodes
from hwvirt.scsi.sense import INITIALIZING_COMMAND_REQUIRED, NO_SENSE, SenseFormat, encode_sense
from hwvirt.scsi.server.unit import Handler, Request, Unit, refuse_if

__all__ = ["CONDITION"]


async def _test_unit_ready(unit: Unit, request: Request) -> bytes:
    del request
    unit.refuse_if_stopped()
    return b""


async def _start_stop_unit(unit: Unit, request: Request) -> bytes:
    """A unit is stopped with an empty cache, unless NO_FLUSH says otherwise."""
    fields = request.fields
    refuse_if(fields.power_condition or fields.power_condition_modifier or fields.loej)
    if not fields.start and not fields.no_flush:
        error = await unit.volume.flush()
        if error is not None:
            raise error
    unit.stopped = not fields.start
    return b""


async def _request_sense(unit: Unit, request: Request) -> bytes:
    """A unit attention that is told here is told."""
    standing = INITIALIZING_COMMAND_REQUIRED if unit.stopped else NO_SENSE
    sense = unit.attentions.popleft() if unit.attentions else standing
    return encode_sense(sense, SenseFormat.DESCRIPTOR if request.fields.desc else SenseFormat.FIXED)


CONDITION: Final[Mapping[opcodes.Cdb, Handler]] = MappingProxyType(
    {
        opcodes.TEST_UNIT_READY: _test_unit_ready,
        opcodes.REQUEST_SENSE: _request_sense,
        opcodes.START_STOP_UNIT: _start_stop_unit,
    }
)
