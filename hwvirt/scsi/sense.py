"""Sense data: what went wrong, fixed and descriptor format. Ref: T10 SPC-4 4.5, additional sense codes annex E."""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from hwvirt.scsi.layout import Bits, Int, Layout
from hwvirt.scsi.status import SenseKey

__all__ = [
    "BECOMING_READY",
    "BUS_RESET_OCCURRED",
    "CAPACITY_CHANGED",
    "COMMANDS_CLEARED",
    "COMMUNICATION_FAILURE",
    "COMMUNICATION_TIMEOUT",
    "DATA_PHASE_ERROR",
    "INITIALIZING_COMMAND_REQUIRED",
    "INTERNAL_TARGET_FAILURE",
    "INVALID_FIELD_IN_CDB",
    "INVALID_FIELD_IN_PARAMETER_LIST",
    "INVALID_OPCODE",
    "LBA_OUT_OF_RANGE",
    "LOGICAL_UNIT_NOT_SUPPORTED",
    "LUNS_CHANGED",
    "MALFORMED_SENSE",
    "MISCOMPARE",
    "NEXUS_LOSS_OCCURRED",
    "NOT_READY",
    "NO_SENSE",
    "PARAMETER_LIST_LENGTH_ERROR",
    "POWER_ON_OCCURRED",
    "RESET_OCCURRED",
    "SAVING_PARAMETERS_NOT_SUPPORTED",
    "SPACE_ALLOCATION_FAILED_WRITE_PROTECT",
    "UNRECOVERED_READ_ERROR",
    "WRITE_ERROR",
    "WRITE_PROTECTED",
    "CheckCondition",
    "Sense",
    "SenseFormat",
    "decode_sense",
    "encode_descriptor",
    "encode_fixed",
    "encode_sense",
    "errno_of",
]


class SenseFormat(Enum):
    """How sense data is written. SPC-4 4.5.1."""

    FIXED = "fixed"
    DESCRIPTOR = "descriptor"


@dataclass(frozen=True, slots=True)
class Sense:
    """One sense: key, additional code and qualifier; INFORMATION (an LBA, or None), deferred or of this command."""

    key: SenseKey
    asc: int
    ascq: int
    information: int | None = None
    deferred: bool = False

    def at(self, lba: int) -> Sense:
        """The same sense with `lba` in INFORMATION."""
        return replace(self, information=lba)

    def __str__(self) -> str:
        """For people: "medium error, unrecovered read error (3/11/00), information 0x1f400"."""
        name = _NAMES.get((self.asc, self.ascq))
        words = [self.key.name.lower().replace("_", " ")]
        if name is not None and name != words[0]:
            words.append(name)
        text = f"{'deferred ' if self.deferred else ''}{', '.join(words)} ({self.key:x}/{self.asc:02x}/{self.ascq:02x})"
        return text if self.information is None else f"{text}, information {self.information:#x}"


class CheckCondition(Exception):
    """A command that ended with CHECK CONDITION. Raised at scalar borders, returned as an item in batches."""

    def __init__(self, sense: Sense) -> None:
        self.sense = sense
        super().__init__(str(sense))


_NAMES: Final[dict[tuple[int, int], str]] = {}


def _sense(key: SenseKey, asc: int, ascq: int, name: str) -> Sense:
    _NAMES[asc, ascq] = name
    return Sense(key, asc, ascq)


NO_SENSE = _sense(SenseKey.NO_SENSE, 0x00, 0x00, "no additional sense")

NOT_READY = _sense(SenseKey.NOT_READY, 0x04, 0x00, "not ready, cause not reportable")
BECOMING_READY = _sense(SenseKey.NOT_READY, 0x04, 0x01, "in process of becoming ready")
INITIALIZING_COMMAND_REQUIRED = _sense(SenseKey.NOT_READY, 0x04, 0x02, "not ready, initializing command required")

UNRECOVERED_READ_ERROR = _sense(SenseKey.MEDIUM_ERROR, 0x11, 0x00, "unrecovered read error")
WRITE_ERROR = _sense(SenseKey.MEDIUM_ERROR, 0x0C, 0x00, "write error")

COMMUNICATION_FAILURE = _sense(SenseKey.HARDWARE_ERROR, 0x08, 0x00, "logical unit communication failure")
INTERNAL_TARGET_FAILURE = _sense(SenseKey.HARDWARE_ERROR, 0x44, 0x00, "internal target failure")

PARAMETER_LIST_LENGTH_ERROR = _sense(SenseKey.ILLEGAL_REQUEST, 0x1A, 0x00, "parameter list length error")
INVALID_OPCODE = _sense(SenseKey.ILLEGAL_REQUEST, 0x20, 0x00, "invalid command operation code")
LBA_OUT_OF_RANGE = _sense(SenseKey.ILLEGAL_REQUEST, 0x21, 0x00, "logical block address out of range")
INVALID_FIELD_IN_CDB = _sense(SenseKey.ILLEGAL_REQUEST, 0x24, 0x00, "invalid field in CDB")
LOGICAL_UNIT_NOT_SUPPORTED = _sense(SenseKey.ILLEGAL_REQUEST, 0x25, 0x00, "logical unit not supported")
INVALID_FIELD_IN_PARAMETER_LIST = _sense(SenseKey.ILLEGAL_REQUEST, 0x26, 0x00, "invalid field in parameter list")
SAVING_PARAMETERS_NOT_SUPPORTED = _sense(SenseKey.ILLEGAL_REQUEST, 0x39, 0x00, "saving parameters not supported")

RESET_OCCURRED = _sense(SenseKey.UNIT_ATTENTION, 0x29, 0x00, "power on, reset, or bus device reset occurred")
POWER_ON_OCCURRED = _sense(SenseKey.UNIT_ATTENTION, 0x29, 0x01, "power on occurred")
BUS_RESET_OCCURRED = _sense(SenseKey.UNIT_ATTENTION, 0x29, 0x02, "SCSI bus reset occurred")
NEXUS_LOSS_OCCURRED = _sense(SenseKey.UNIT_ATTENTION, 0x29, 0x07, "I_T nexus loss occurred")
CAPACITY_CHANGED = _sense(SenseKey.UNIT_ATTENTION, 0x2A, 0x09, "capacity data has changed")
COMMANDS_CLEARED = _sense(SenseKey.UNIT_ATTENTION, 0x2F, 0x00, "commands cleared by another initiator")
LUNS_CHANGED = _sense(SenseKey.UNIT_ATTENTION, 0x3F, 0x0E, "reported LUNs data has changed")

WRITE_PROTECTED = _sense(SenseKey.DATA_PROTECT, 0x27, 0x00, "write protected")
SPACE_ALLOCATION_FAILED_WRITE_PROTECT = _sense(SenseKey.DATA_PROTECT, 0x27, 0x07, "space allocation failed write protect")

COMMUNICATION_TIMEOUT = _sense(SenseKey.ABORTED_COMMAND, 0x08, 0x01, "logical unit communication time-out")
DATA_PHASE_ERROR = _sense(SenseKey.ABORTED_COMMAND, 0x4B, 0x00, "data phase error")
MISCOMPARE = _sense(SenseKey.MISCOMPARE, 0x1D, 0x00, "miscompare during verify operation")

MALFORMED_SENSE = _sense(SenseKey.VENDOR_SPECIFIC, 0xFF, 0xFF, "the sense data could not be understood")
"""What `decode_sense` says about bytes that no standard defines; never sent by a device server of ours."""

_CURRENT_FIXED, _DEFERRED_FIXED, _CURRENT_DESCRIPTOR, _DEFERRED_DESCRIPTOR = 0x70, 0x71, 0x72, 0x73
_FIXED = Layout(
    "fixed format sense data",
    18,
    Bits("valid", 0, 7),
    Bits("response_code", 0, 6, 0),
    Bits("key", 2, 3, 0),
    Int("information", 3, 4),
    Int("additional_length", 7),
    Int("asc", 12),
    Int("ascq", 13),
)
_DESCRIPTOR = Layout(
    "descriptor format sense data",
    8,
    Bits("response_code", 0, 6, 0),
    Bits("key", 1, 3, 0),
    Int("asc", 2),
    Int("ascq", 3),
    Int("additional_length", 7),
)
_INFORMATION_TYPE = 0x00
_INFORMATION = Layout(
    "information sense data descriptor", 12, Int("type", 0), Int("length", 1), Bits("valid", 2, 7), Int("information", 4, 8)
)
_LEAST_FIXED_BYTES = 3  # up to the sense key; what a device cuts off counts as zero


def encode_sense(sense: Sense, sense_format: SenseFormat = SenseFormat.FIXED) -> bytes:
    """Sense data in the format; in descriptor format also where INFORMATION does not fit the four bytes of fixed format."""
    if sense_format is SenseFormat.DESCRIPTOR or (sense.information or 0) >> 32:
        return encode_descriptor(sense)
    return encode_fixed(sense)


def encode_fixed(sense: Sense) -> bytes:
    """18 bytes of fixed format sense data; INFORMATION beyond 32 bits is left out, not valid. SPC-4 4.5.3."""
    fits = sense.information is not None and not sense.information >> 32
    return _FIXED.encode(
        valid=int(fits),
        response_code=_DEFERRED_FIXED if sense.deferred else _CURRENT_FIXED,
        key=sense.key,
        information=sense.information if fits and sense.information else 0,
        additional_length=_FIXED.size - 8,
        asc=sense.asc,
        ascq=sense.ascq,
    )


def encode_descriptor(sense: Sense) -> bytes:
    """Descriptor format sense data; INFORMATION, where known, in its descriptor. SPC-4 4.5.2."""
    descriptors = b""
    if sense.information is not None:
        descriptors = _INFORMATION.encode(
            type=_INFORMATION_TYPE, length=_INFORMATION.size - 2, valid=1, information=sense.information
        )
    header = _DESCRIPTOR.encode(
        response_code=_DEFERRED_DESCRIPTOR if sense.deferred else _CURRENT_DESCRIPTOR,
        key=sense.key,
        asc=sense.asc,
        ascq=sense.ascq,
        additional_length=len(descriptors),
    )
    return header + descriptors


def decode_sense(data: bytes) -> Sense:
    """The sense in sense data of either format; MALFORMED_SENSE for other bytes. Raises ValueError for none at all."""
    if not data:
        raise ValueError("there is no sense data")
    code = data[0] & 0x7F
    if code in (_CURRENT_FIXED, _DEFERRED_FIXED):
        return _decode_fixed(data, deferred=code == _DEFERRED_FIXED)
    if code in (_CURRENT_DESCRIPTOR, _DEFERRED_DESCRIPTOR):
        return _decode_descriptor(data, deferred=code == _DEFERRED_DESCRIPTOR)
    return MALFORMED_SENSE


def _decode_fixed(data: bytes, deferred: bool) -> Sense:
    if len(data) < _LEAST_FIXED_BYTES:
        return MALFORMED_SENSE
    end = 8 + data[7] if len(data) > 7 else len(data)
    fields = _FIXED.decode(data[:end].ljust(_FIXED.size, b"\0"))
    information = fields.information if fields.valid else None
    return _understood(fields.key, fields.asc, fields.ascq, information, deferred)


def _decode_descriptor(data: bytes, deferred: bool) -> Sense:
    if len(data) < _DESCRIPTOR.size:
        return MALFORMED_SENSE
    fields = _DESCRIPTOR.decode(data)
    information = None
    rest = data[_DESCRIPTOR.size : _DESCRIPTOR.size + fields.additional_length]
    while len(rest) >= 2:
        if rest[0] == _INFORMATION_TYPE and len(rest) >= _INFORMATION.size:
            descriptor = _INFORMATION.decode(rest)
            information = descriptor.information if descriptor.valid else None
        rest = rest[2 + rest[1] :]
    return _understood(fields.key, fields.asc, fields.ascq, information, deferred)


def _understood(key: int, asc: int, ascq: int, information: int | None, deferred: bool) -> Sense:
    try:
        return Sense(SenseKey(key), asc, ascq, information, deferred)
    except ValueError:  # 0Ch is reserved
        return MALFORMED_SENSE


def errno_of(sense: Sense) -> int:
    """The errno by which a block protocol without sense data tells this: ENOSPC, EPERM, EINVAL or EIO."""
    if (sense.asc, sense.ascq) == (0x27, 0x07):
        return errno.ENOSPC
    if sense.key is SenseKey.DATA_PROTECT:
        return errno.EPERM
    if sense.key is SenseKey.ILLEGAL_REQUEST:
        return errno.EINVAL
    return errno.EIO
