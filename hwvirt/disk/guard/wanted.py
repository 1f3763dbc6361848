"""A disk as a rig names it, and the refusal that names the disk, the reason and the next step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hwvirt.disk.discovery.identity import DiskIdentity
from hwvirt.errors import SafetyRefusal
from hwvirt.scsi.volume import Extent

__all__ = ["DiskName", "Wanted", "WrongDisk"]


class DiskName(Protocol):
    """What a rig says of a real disk: its identity, and the only blocks that may be written. At least one of wwn, serial."""

    @property
    def wwn(self) -> str | None:
        """The name of VPD page 83, as `hwvirt scan` prints it."""
        ...

    @property
    def serial(self) -> str | None:
        """The serial number of VPD page 80."""
        ...

    @property
    def size_bytes(self) -> int:
        """The exact size."""
        ...

    @property
    def block_bytes(self) -> int:
        """The logical block size."""
        ...

    @property
    def window(self) -> Extent:
        """The blocks that may be written."""
        ...


class WrongDisk(SafetyRefusal):
    """A disk that a rig must not write. `disk` is None where no disk was found or more than one."""

    def __init__(self, wanted: Wanted, disk: DiskIdentity | None, reason: str, next_step: str) -> None:
        self.wanted, self.disk = wanted, disk
        which = f"disk {wanted.role} of rig {wanted.rig}"
        what = which if disk is None else f"{disk} as {which}"
        super().__init__(f"refusing {what}: {reason}.", next_step=next_step)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Disk `role` of rig `rig`."""

    rig: str
    role: str
    name: DiskName

    def refused(self, disk: DiskIdentity | None, reason: str, next_step: str) -> WrongDisk:
        """The refusal, for raising."""
        return WrongDisk(self, disk, reason, next_step)
