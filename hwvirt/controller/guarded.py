"""The guard of a controller that nobody else has guarded a disk for."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hwvirt.controller.config import DiskConfig, GuardConfig
from hwvirt.errors import SafetyRefusal
from hwvirt.scsi.volume import Extent
from hwvirt.trace import Trace

__all__ = ["guarded"]

_LOOP_MAJOR = 7  # Documentation/admin-guide/devices.txt


@dataclass(frozen=True, slots=True)
class _Name:
    """A `DiskName`."""

    wwn: str | None
    serial: str | None
    size_bytes: int
    block_bytes: int
    window: Extent


@contextmanager
def guarded(disk: DiskConfig, trace: Trace) -> Iterator[str]:
    """The node to open, as long as this is open: a disk that is named by its identity is admitted and claimed.

    Raises WrongDisk for a disk that must not be written, also when `path` is not its node; SafetyRefusal for one that hides
    as a file; DiskError for one that cannot be asked. Without an identity the node is `path`: a file claims itself, and who
    holds a disk has the claim.
    """
    guard = disk.guard
    if disk.kind == "file":
        _refuse_disk(disk.path)
    if not isinstance(guard, GuardConfig):
        yield disk.path
        return
    from hwvirt.disk.guard.admit import admit  # noqa: PLC0415  only for real disks

    name = _Name(guard.wwn, guard.serial, guard.size_bytes, disk.block_bytes, Extent(guard.window.lba, guard.window.blocks))
    with admit(name, guard.rig, guard.role) as admitted:
        if os.path.realpath(disk.path) != admitted.sg:
            raise admitted.wanted.refused(
                admitted.identity,
                f"its node for SG_IO is {admitted.sg}, and the configuration's path is {disk.path}",
                f"Let `path` be {admitted.sg}, or the link that udev makes: /dev/hwvirt-sg/{guard.rig}/{guard.role}.",
            )
        trace.emit("disk.admitted", disk=disk.name, node=admitted.sg, identity=str(admitted.identity))
        yield admitted.sg


def _refuse_disk(path: str) -> None:
    """Of block devices, only loop devices are files: any other one may be a real disk, or lie on one."""
    try:
        found = os.stat(path)
    except OSError:
        return  # who opens it says why it cannot
    if stat.S_ISBLK(found.st_mode) and os.major(found.st_rdev) != _LOOP_MAJOR:
        raise SafetyRefusal(
            f"refusing {path}: it is a block device, and of the kind 'file' are images and loop devices only.",
            next_step="Name a SCSI disk as kind 'sg' with a guard: see docs/controller.md.",
        )
