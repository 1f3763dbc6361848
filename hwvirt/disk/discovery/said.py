"""What a disk answers when it is asked who it is. Through libsgutils2: not by the code that will write to it.

Ref: T10 SPC-4 6.6 (INQUIRY), 7.8 (VPD pages), SBC-4 5.20 (READ CAPACITY(16)).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from hwvirt.disk.sgutils import NotSupportedError, inquiry, read_capacity_16
from hwvirt.errors import DiskError
from hwvirt.scsi.parameters import decode_capacity
from hwvirt.scsi.vpd import Page, decode_inquiry, decode_naa, decode_pages, decode_serial

__all__ = ["Said", "ask", "not_opened"]

_Answer = TypeVar("_Answer")
_HEADER_BYTES = 4


class Said(NamedTuple):
    """Serial number (empty where it has none), NAA designator as a number (None where it has none), and size."""

    serial: str
    naa: int | None
    blocks: int
    block_bytes: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole disk."""
        return self.blocks * self.block_bytes


def ask(node: str) -> Said:
    """Asks the disk at a /dev/sgN or /dev/sdX node; changes nothing. Raises DiskError when it does not answer properly."""
    try:
        fd = os.open(node, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise not_opened(node, error) from error
    try:
        return _answers(fd)
    except ValueError as error:
        raise DiskError(f"{node} sent data that makes no sense: {error}.") from error
    except DiskError as error:
        raise DiskError(f"{node}: {error.reason}", next_step=error.next_step) from error
    finally:
        os.close(fd)


def not_opened(node: str, error: OSError) -> DiskError:
    """Why a node of a disk could not be opened."""
    return DiskError(
        f"cannot open {node}: {error.strerror}.",
        next_step="Armed disks belong to the group hwvirt (hwvirt udev install); to arm one takes root.",
    )


def _answers(fd: int) -> Said:
    who = decode_inquiry(inquiry(fd))
    if (who.qualifier, who.device_type) != (0, 0):
        raise DiskError(f"no disk with blocks (peripheral device type {who.device_type:#04x}).")
    none: frozenset[int] = frozenset()
    pages = _page(fd, Page.SUPPORTED_PAGES, decode_pages, none)
    serial = _page(fd, Page.UNIT_SERIAL_NUMBER, decode_serial, "") if Page.UNIT_SERIAL_NUMBER in pages else ""
    naa = _page(fd, Page.DEVICE_IDENTIFICATION, decode_naa, None) if Page.DEVICE_IDENTIFICATION in pages else None
    capacity = decode_capacity(read_capacity_16(fd))
    return Said(serial, naa, capacity.blocks, capacity.block_bytes)


def _page(fd: int, page: int, decode: Callable[[bytes], _Answer], otherwise: _Answer) -> _Answer:
    try:
        data = inquiry(fd, page)
        whole = _HEADER_BYTES + int.from_bytes(data[2:4], "big")
        return decode(data if whole <= len(data) else inquiry(fd, page, whole))
    except NotSupportedError:
        return otherwise
