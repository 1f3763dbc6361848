"""Commands about what the unit is. They touch no block, and are served whether it is started or not.

Ref: T10 SPC-4 6 (INQUIRY, MODE SENSE, REPORT LUNS), SBC-4 5 (READ CAPACITY).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from hwvirt.scsi import mode, opcodes, parameters, vpd
from hwvirt.scsi.layout import Values
from hwvirt.scsi.sense import SAVING_PARAMETERS_NOT_SUPPORTED, CheckCondition
from hwvirt.scsi.server.supported import report_supported_operation_codes
from hwvirt.scsi.server.unit import Handler, Request, Unit, refuse_if

__all__ = ["INFORMATION"]

_WELL_KNOWN_ONLY = 1
_SELECT_REPORTS = (0, _WELL_KNOWN_ONLY, 2)
_LEAST_LUNS_BYTES = 16


async def _inquiry(unit: Unit, request: Request) -> bytes:
    if not request.fields.evpd:
        refuse_if(request.fields.page)
        return vpd.encode_inquiry(unit.identity)
    page = vpd.encode_page(request.fields.page, unit.identity, unit.limits)
    refuse_if(page is None)
    return page or b""


async def _mode_sense_6(unit: Unit, request: Request) -> bytes:
    return mode.encode_mode_6(_mode_pages(unit, request.fields), _descriptor(unit, request.fields), unit.volume.access)


async def _mode_sense_10(unit: Unit, request: Request) -> bytes:
    return mode.encode_mode_10(_mode_pages(unit, request.fields), _descriptor(unit, request.fields), unit.volume.access)


def _mode_pages(unit: Unit, fields: Values) -> bytes:
    if fields.pc == mode.PageControl.SAVED:
        raise CheckCondition(SAVING_PARAMETERS_NOT_SUPPORTED)
    refuse_if(fields.subpage not in (0, mode.ALL_SUBPAGES))
    pages = mode.encode_pages(fields.page, mode.PageControl(fields.pc), unit.sense_format)
    refuse_if(pages is None)
    return pages or b""


def _descriptor(unit: Unit, fields: Values) -> bytes:
    return b"" if fields.dbd else mode.encode_descriptor(unit.volume.blocks, unit.volume.block_bytes)


async def _read_capacity_10(unit: Unit, request: Request) -> bytes:
    refuse_if(request.fields.lba or request.fields.pmi)
    return parameters.encode_capacity_10(unit.volume.blocks, unit.volume.block_bytes)


async def _read_capacity_16(unit: Unit, request: Request) -> bytes:
    refuse_if(request.fields.lba or request.fields.pmi)
    return parameters.encode_capacity_16(unit.volume.blocks, unit.volume.block_bytes)


async def _report_luns(unit: Unit, request: Request) -> bytes:
    refuse_if(request.fields.allocation < _LEAST_LUNS_BYTES or request.fields.select_report not in _SELECT_REPORTS)
    return parameters.encode_luns([] if request.fields.select_report == _WELL_KNOWN_ONLY else unit.luns())


INFORMATION: Final[Mapping[opcodes.Cdb, Handler]] = MappingProxyType(
    {
        opcodes.INQUIRY: _inquiry,
        opcodes.MODE_SENSE_6: _mode_sense_6,
        opcodes.MODE_SENSE_10: _mode_sense_10,
        opcodes.READ_CAPACITY_10: _read_capacity_10,
        opcodes.READ_CAPACITY_16: _read_capacity_16,
        opcodes.REPORT_LUNS: _report_luns,
        opcodes.REPORT_SUPPORTED_OPERATION_CODES: report_supported_operation_codes,
    }
)
