"""Who a SCSI disk is, as the kernel noted it when the disk appeared."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["DiskIdentity", "WriteCache", "people_size"]


class WriteCache(Enum):
    """What a disk does with a write that no flush has followed."""

    VOLATILE = "volatile"  # lost with the power
    NONE = "none"
    UNKNOWN = "unknown"  # the kernel's disk driver does not drive it


@dataclass(frozen=True, slots=True)
class DiskIdentity:
    """One SCSI device of type disk. Texts are empty and numbers 0 where disk or kernel say nothing.

    `wwn` is the best name of VPD page 83 ("naa.…", "eui.…", "t10.…"), `serial` that of page 80. `block` (/dev/sdX) and
    `sg` (/dev/sgN) are its nodes now, `address` its place on the bus, host:channel:target:LUN: all three may change.
    """

    wwn: str
    serial: str
    vendor: str
    model: str
    firmware: str
    size_bytes: int
    block_bytes: int
    physical_block_bytes: int
    write_cache: WriteCache
    transport: str
    address: str
    sg: str
    block: str

    @property
    def node(self) -> str:
        """The node that people know the disk by."""
        return self.block or self.sg or f"SCSI device {self.address}"

    def __str__(self) -> str:
        """For messages: "/dev/sdc (ZL2001, 500.1 GB)"."""
        return f"{self.node} ({self.serial or self.wwn or 'no serial'}, {people_size(self.size_bytes)})"


def people_size(size_bytes: int) -> str:
    """As on the disk's sticker, in powers of ten: 500107862016 → "500.1 GB"."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B"
