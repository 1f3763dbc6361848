"""What a disk says about itself. Ref: T10 SPC-4 6.6 (INQUIRY), 7.8 (VPD pages), SBC-4 5.20 (READ CAPACITY(16))."""

from __future__ import annotations

from dataclasses import dataclass

from hwvirt.buffers import joined
from hwvirt.disk.disk import Disk
from hwvirt.errors import DiskError
from hwvirt.scsi.cdb import describe, inquiry, mode_sense_10, read_capacity_16
from hwvirt.scsi.command import Command
from hwvirt.scsi.mode import ModeFacts, decode_mode_10
from hwvirt.scsi.parameters import decode_capacity
from hwvirt.scsi.sense import decode_sense
from hwvirt.scsi.status import SenseKey, Status
from hwvirt.scsi.vpd import (
    BlockLimits,
    Page,
    Provisioning,
    decode_inquiry,
    decode_naa,
    decode_pages,
    decode_provisioning,
    decode_serial,
)
from hwvirt.units import Deadline

__all__ = ["DiskFacts", "describe_disk"]

_PAGE_BYTES = 252  # old devices take only the low byte of the allocation length
_CAUTIOUS_TRANSFER_BYTES = 1 << 16
_CAUTIOUS_WRITE_SAME_BYTES = 1 << 22
_CACHING_PAGE = 0x08
_WANTED = (
    Page.UNIT_SERIAL_NUMBER,
    Page.DEVICE_IDENTIFICATION,
    Page.BLOCK_LIMITS,
    Page.LOGICAL_BLOCK_PROVISIONING,
)


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """Identity, size and abilities. `naa` is the designator as a number (SPC-4 7.8.6.6), None where the disk has none.

    `max_transfer_blocks` is the longest read or write; `zeroing_blocks` the longest WRITE SAME(16) with UNMAP that is sure
    to read back zeroes, 0 where there is none.
    """

    vendor: str
    product: str
    revision: str
    serial: str
    naa: int | None
    blocks: int
    block_bytes: int
    max_transfer_blocks: int
    zeroing_blocks: int
    write_protected: bool
    volatile_cache: bool
    fua: bool

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole disk."""
        return self.blocks * self.block_bytes


def describe_disk(disk: Disk, deadline: Deadline) -> DiskFacts:
    """Asks the disk; changes nothing. Raises DiskError when it does not answer, or is no disk with blocks."""
    try:
        return _facts(disk, deadline)
    except ValueError as error:
        raise DiskError(f"{disk.name} sent data that makes no sense: {error}.") from error


def _facts(disk: Disk, deadline: Deadline) -> DiskFacts:
    who = decode_inquiry(_needed(disk, Command(inquiry(None, _PAGE_BYTES), (), _PAGE_BYTES), deadline))
    if (who.qualifier, who.device_type) != (0, 0):
        raise DiskError(f"{disk.name} is no disk with blocks (peripheral device type {who.device_type:#04x}).")
    capacity = decode_capacity(_needed(disk, Command(read_capacity_16(), (), 32), deadline))
    if not capacity.block_bytes:
        raise DiskError(f"{disk.name} says that its blocks have 0 bytes.")
    listed = _page(disk, Page.SUPPORTED_PAGES, deadline)
    pages = {page: _page(disk, page, deadline) for page in (decode_pages(listed) if listed else ()) if page in _WANTED}
    serial, names = pages.get(Page.UNIT_SERIAL_NUMBER), pages.get(Page.DEVICE_IDENTIFICATION)
    limits, provisioning = pages.get(Page.BLOCK_LIMITS), pages.get(Page.LOGICAL_BLOCK_PROVISIONING)
    most = BlockLimits.decode(limits) if limits else BlockLimits()
    mode = _asked(disk, Command(mode_sense_10(_CACHING_PAGE, _PAGE_BYTES), (), _PAGE_BYTES), deadline)
    modes = decode_mode_10(mode) if mode else ModeFacts(write_protected=False, fua=False, volatile_cache=None)
    return DiskFacts(
        vendor=who.vendor,
        product=who.product,
        revision=who.revision,
        serial=decode_serial(serial) if serial else "",
        naa=decode_naa(names) if names else None,
        blocks=capacity.blocks,
        block_bytes=capacity.block_bytes,
        max_transfer_blocks=most.max_transfer or max(1, _CAUTIOUS_TRANSFER_BYTES // capacity.block_bytes),
        zeroing_blocks=_zeroing_blocks(decode_provisioning(provisioning), most, capacity.block_bytes) if provisioning else 0,
        write_protected=modes.write_protected,
        volatile_cache=modes.volatile_cache is not False,  # a disk that does not say may have one
        fua=modes.fua,
    )


def _zeroing_blocks(provisioning: Provisioning, limits: BlockLimits, block_bytes: int) -> int:
    """UNMAP alone promises nothing: a disk may ignore it, or a part of it. SBC-4 5.35, 4.7.3.4."""
    if not (provisioning.write_same_unmap and provisioning.reads_zeroes):
        return 0
    return limits.max_write_same or max(1, _CAUTIOUS_WRITE_SAME_BYTES // block_bytes)


def _page(disk: Disk, page: int, deadline: Deadline) -> bytes | None:
    data = _asked(disk, Command(inquiry(page, _PAGE_BYTES), (), _PAGE_BYTES), deadline)
    if data is None or len(data) < _PAGE_BYTES:
        return data
    whole = 4 + int.from_bytes(data[2:4], "big")
    return _asked(disk, Command(inquiry(page, whole), (), whole), deadline)


def _needed(disk: Disk, command: Command, deadline: Deadline) -> bytes:
    data = _asked(disk, command, deadline)
    if data is None:
        raise DiskError(f"{disk.name} does not know {describe(command.cdb)}.")
    return data


def _asked(disk: Disk, command: Command, deadline: Deadline) -> bytes | None:
    """The Data-In; None where the disk does not know the command or the page. Raises DiskError for another failure."""
    completion = disk.execute(command, deadline)
    if completion.good:
        return bytes(joined(completion.data)) if completion.data else b""
    if completion.status != Status.CHECK_CONDITION:
        raise DiskError(f"{disk.name}: {describe(command.cdb)} ended with {completion.status.name}.")
    sense = decode_sense(completion.sense)
    if sense.key is SenseKey.ILLEGAL_REQUEST:
        return None
    raise DiskError(f"{disk.name}: {describe(command.cdb)} ended with {sense}.")
