"""Reads blocks of a disk one command after the other: how the judge looks at a disk, without any volume between."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from hwvirt.buffers import Buffer, joined
from hwvirt.digest import block_digests
from hwvirt.disk.disk import Disk
from hwvirt.errors import DiskError
from hwvirt.scsi.cdb import describe, read_16, read_capacity_16, timeout_s
from hwvirt.scsi.command import Command
from hwvirt.scsi.parameters import decode_capacity
from hwvirt.scsi.sense import decode_sense
from hwvirt.scsi.status import Status
from hwvirt.scsi.volume import Extent
from hwvirt.units import Deadline

__all__ = ["digest_blocks", "read_blocks"]

_COMMAND_BYTES = 1 << 16  # every disk and every path to one takes this much
_CAPACITY_BYTES = 32


def read_blocks(disk: Disk, lba: int, blocks: int) -> bytes:
    """The blocks, whole. Raises DiskError, naming the command and the sense, when one of them cannot be read."""
    return b"".join(_chunks(disk, Extent(lba, blocks), _block_bytes(disk)))


def digest_blocks(disk: Disk, window: Extent) -> array[int]:
    """One CRC-32C for each block of the window (typecode "I"), read in chunks. Raises DiskError as `read_blocks`."""
    block_bytes = _block_bytes(disk)
    digests = array("I")
    for chunk in _chunks(disk, window, block_bytes):
        digests += block_digests((chunk,), block_bytes)
    return digests


def _block_bytes(disk: Disk) -> int:
    return decode_capacity(_data_in(disk, Command(read_capacity_16(), data_in_length=_CAPACITY_BYTES))).block_bytes


def _chunks(disk: Disk, window: Extent, block_bytes: int) -> Iterator[Buffer]:
    step = max(1, _COMMAND_BYTES // block_bytes)
    end = window.lba + window.blocks
    for lba in range(window.lba, end, step):
        blocks = min(step, end - lba)
        yield _data_in(disk, Command(read_16(lba, blocks), data_in_length=blocks * block_bytes))


def _data_in(disk: Disk, command: Command) -> Buffer:
    completion = disk.execute(command, Deadline.after(timeout_s(command.cdb)))
    if completion.good:
        data = joined(completion.data)
        if len(data) == command.data_in_length:
            return data
        reason = f"sent {len(data)} of {command.data_in_length} bytes"
    elif completion.status == Status.CHECK_CONDITION:
        reason = f"ended with {decode_sense(completion.sense)}"
    else:
        reason = f"ended with {completion.status.name}"
    raise DiskError(f"{disk.name}: {describe(command.cdb)} {reason}.")
