"""The guard of a controller that nobody else has guarded a disk for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hwvirt.controller.config import DiskConfig, GuardConfig
from hwvirt.scsi.volume import Extent
from hwvirt.trace import Trace

__all__ = ["guarded"]


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

    Raises WrongDisk for a disk that must not be written, also when `path` is not its node; DiskError for one that cannot be
    asked. Without an identity it is `path`: a file claims itself, and a disk that is held is claimed by who holds it.
    """
    guard = disk.guard
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
