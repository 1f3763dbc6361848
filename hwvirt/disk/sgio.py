"""The SG_IO ioctl: one SCSI command to the kernel and back. Structures and numbers, nothing else.

Ref: scsi/sg.h (interface version 3), scsi/scsi_host.h (DID_*).
"""

from __future__ import annotations

import ctypes
import fcntl
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from hwvirt.buffers import Buffer, Pieces, joined, length
from hwvirt.scsi.command import Command

__all__ = ["DriverStatus", "HostStatus", "Outcome", "SgIoHdr", "SgIovec", "sg_io"]

_SG_IO = 0x2285
_DXFER_NONE = -1
_DXFER_TO_DEV = -2
_DXFER_FROM_DEV = -3
_FLAG_Q_AT_TAIL = 0x10  # the default of /dev/sgN is the head: the newest command would overtake all others
_SENSE_BYTES = 252  # SPC-4 4.5: sense data is never longer
_IOV_MAX = 1024  # UIO_MAXIOV
_WORTH_POINTING_BYTES = 1 << 15  # to ask a buffer for its address costs as much as to copy about this much
_LONGEST_S = 24 * 3600.0


class HostStatus(IntEnum):
    """What the host adapter says about the delivery of a command (DID_*)."""

    OK = 0x00
    NO_CONNECT = 0x01
    BUS_BUSY = 0x02
    TIME_OUT = 0x03
    BAD_TARGET = 0x04
    ABORT = 0x05
    PARITY = 0x06
    ERROR = 0x07
    RESET = 0x08
    BAD_INTR = 0x09
    PASSTHROUGH = 0x0A
    SOFT_ERROR = 0x0B
    IMM_RETRY = 0x0C
    REQUEUE = 0x0D
    TRANSPORT_DISRUPTED = 0x0E
    TRANSPORT_FAILFAST = 0x0F
    TARGET_FAILURE = 0x10
    NEXUS_FAILURE = 0x11
    ALLOC_FAILURE = 0x12
    MEDIUM_ERROR = 0x13
    TRANSPORT_MARGINAL = 0x14


class DriverStatus(IntEnum):
    """What the kernel's driver says; the low four bits of the field."""

    OK = 0x0
    BUSY = 0x1
    SOFT = 0x2
    MEDIA = 0x3
    ERROR = 0x4
    INVALID = 0x5
    TIMEOUT = 0x6
    HARD = 0x7
    SENSE = 0x8  # no error of its own: sense data is there


class SgIovec(ctypes.Structure):
    """struct sg_iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class SgIoHdr(ctypes.Structure):
    """struct sg_io_hdr."""

    _fields_ = (
        ("interface_id", ctypes.c_int),
        ("dxfer_direction", ctypes.c_int),
        ("cmd_len", ctypes.c_ubyte),
        ("mx_sb_len", ctypes.c_ubyte),
        ("iovec_count", ctypes.c_ushort),
        ("dxfer_len", ctypes.c_uint),
        ("dxferp", ctypes.c_void_p),
        ("cmdp", ctypes.c_void_p),
        ("sbp", ctypes.c_void_p),
        ("timeout", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("pack_id", ctypes.c_int),
        ("usr_ptr", ctypes.c_void_p),
        ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte),
        ("msg_status", ctypes.c_ubyte),
        ("sb_len_wr", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort),
        ("driver_status", ctypes.c_ushort),
        ("resid", ctypes.c_int),
        ("duration", ctypes.c_uint),
        ("info", ctypes.c_uint),
    )


class Outcome(NamedTuple):
    """Everything that the kernel said about one command. `data` is the Data-In that arrived."""

    status: int
    host_status: int
    driver_status: int
    sense: bytes
    residual: int
    data: Buffer
    duration_ms: int


def sg_io(fd: int, command: Command, timeout_s: float) -> Outcome:
    """Sends the command and waits for its end; other threads run meanwhile. Raises OSError.

    Large pieces of Data-Out go out from where they lie, small ones are joined first. A command has Data-Out or Data-In,
    not both (ValueError).
    """
    if command.data_out and command.data_in_length:
        raise ValueError("interface version 3 of SG_IO has no bidirectional commands")
    sense = ctypes.create_string_buffer(_SENSE_BYTES)
    header = SgIoHdr(
        interface_id=ord("S"),
        dxfer_direction=_DXFER_NONE,
        cmd_len=len(command.cdb),
        mx_sb_len=_SENSE_BYTES,
        cmdp=_address(command.cdb),
        sbp=ctypes.addressof(sense),
        timeout=max(1, round(min(timeout_s, _LONGEST_S) * 1000)),
        flags=_FLAG_Q_AT_TAIL,
    )
    data_in = np.empty(command.data_in_length, np.uint8)  # not zeroed: what did not arrive is cut off
    keep: object = None  # what the header points to has to outlive the call
    if command.data_in_length:
        header.dxfer_direction = _DXFER_FROM_DEV
        header.dxferp = _address(data_in.data)
        header.dxfer_len = command.data_in_length
    elif command.data_out:
        keep = _point_to(header, command.data_out)
    fcntl.ioctl(fd, _SG_IO, header)
    del keep
    residual = min(max(0, header.resid), header.dxfer_len)
    return Outcome(
        status=header.status,
        host_status=header.host_status,
        driver_status=header.driver_status & 0x0F,
        sense=sense.raw[: header.sb_len_wr],
        residual=residual,
        data=data_in.data[: command.data_in_length - residual],
        duration_ms=header.duration,
    )


def _point_to(header: SgIoHdr, pieces: Pieces) -> object:
    """Makes the pieces the header's Data-Out; what is returned must live as long as the header is used."""
    header.dxfer_direction = _DXFER_TO_DEV
    header.dxfer_len = length(pieces)
    if len(pieces) > _IOV_MAX or header.dxfer_len < len(pieces) * _WORTH_POINTING_BYTES:
        pieces = (joined(pieces),)
    if len(pieces) == 1:
        header.dxferp = _address(pieces[0])
        return pieces
    iovec = (SgIovec * len(pieces))(*[SgIovec(_address(piece), len(piece)) for piece in pieces])
    header.dxferp = ctypes.addressof(iovec)
    header.iovec_count = len(pieces)
    return pieces, iovec


def _address(buffer: Buffer) -> int:
    """Where the buffer's bytes lie, writable or not."""
    return int(np.frombuffer(buffer, np.uint8).__array_interface__["data"][0])
