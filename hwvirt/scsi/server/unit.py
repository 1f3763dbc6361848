"""What the commands of a device server work on: the unit's state, and one request that is being served."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from hwvirt.buffers import Buffer, Pieces, joined, length
from hwvirt.scsi.layout import Values
from hwvirt.scsi.sense import (
    INITIALIZING_COMMAND_REQUIRED,
    INVALID_FIELD_IN_CDB,
    LBA_OUT_OF_RANGE,
    WRITE_PROTECTED,
    CheckCondition,
    Sense,
    SenseFormat,
)
from hwvirt.scsi.volume import Access, Volume
from hwvirt.scsi.vpd import BlockLimits, Identity

__all__ = ["Handler", "Request", "Unit", "default_limits", "refuse_if"]

_READ_ONLY = Access.READ_ONLY
_MAX_TRANSFER_BYTES = 64 << 20
_OPTIMAL_TRANSFER_BYTES = 1 << 20


@dataclass(slots=True)
class Unit:
    """A logical unit: its volume, who it is, what it allows, and what it still has to say."""

    volume: Volume
    identity: Identity
    limits: BlockLimits
    luns: Callable[[], Sequence[int]]
    sense_format: SenseFormat
    attentions: deque[Sense] = field(default_factory=deque)
    stopped: bool = False

    def refuse_if_stopped(self) -> None:
        """Raises CheckCondition until the unit is started again."""
        if self.stopped:
            raise CheckCondition(INITIALIZING_COMMAND_REQUIRED)

    def refuse_outside(self, lba: int, blocks: int) -> None:
        """Raises CheckCondition unless the extent lies within the capacity."""
        if lba + blocks > self.volume.blocks:
            raise CheckCondition(LBA_OUT_OF_RANGE)

    def refuse_if_protected(self) -> None:
        """Raises CheckCondition when hosts may only read."""
        if self.volume.access is _READ_ONLY:
            raise CheckCondition(WRITE_PROTECTED)


@dataclass(slots=True)
class Request:
    """One command: the fields of its CDB, and its Data-Out, of which `taken_bytes` were asked for."""

    fields: Values
    data_out: Pieces
    taken_bytes: int = 0

    def take(self, size_bytes: int) -> Buffer:
        """The first bytes of Data-Out. Raises CheckCondition when the initiator sent fewer than the CDB says."""
        if length(self.data_out) < size_bytes:
            raise CheckCondition(INVALID_FIELD_IN_CDB)
        self.taken_bytes = size_bytes
        return memoryview(joined(self.data_out))[:size_bytes] if size_bytes else b""


Handler: TypeAlias = Callable[[Unit, Request], Awaitable[bytes]]
"""Serves one command: its Data-In, which may be longer than the allocation length. Raises CheckCondition."""


def refuse_if(wrong: object) -> None:
    """Raises CheckCondition, INVALID FIELD IN CDB, when `wrong` is true."""
    if wrong:
        raise CheckCondition(INVALID_FIELD_IN_CDB)


def default_limits(block_bytes: int) -> BlockLimits:
    """What a unit allows in one command: 64 MiB of data, 2^23 blocks without data."""
    return BlockLimits(
        max_compare_and_write=255,
        max_transfer=_MAX_TRANSFER_BYTES // block_bytes,
        optimal_transfer=_OPTIMAL_TRANSFER_BYTES // block_bytes,
        max_unmap=1 << 23,
        max_unmap_extents=256,
        optimal_unmap=1,
        max_write_same=1 << 23,
    )
