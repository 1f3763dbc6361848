"""Opens a disk for a controller, by kind."""

from __future__ import annotations

from typing import Literal

from hwvirt.disk.discovery.place import Place
from hwvirt.disk.discovery.removable import RemovableDisk
from hwvirt.disk.disk import Disk
from hwvirt.disk.loop import LoopDisk
from hwvirt.disk.passthrough import SgDisk
from hwvirt.disk.witness import WitnessedDisk

__all__ = ["DiskKind", "open_disk"]

DiskKind = Literal["file", "sg"]


def open_disk(kind: DiskKind, path: str, block_bytes: int, witness: str) -> Disk:
    """A disk for reading and writing; with a `witness` file, every medium-changing CDB is written down there first.

    A real disk comes as a RemovableDisk. Raises DiskError when it cannot be opened or claimed.
    """
    disk: Disk = LoopDisk(path, block_bytes) if kind == "file" else SgDisk(path)
    try:
        witnessed = WitnessedDisk(disk, witness) if witness else disk
        return witnessed if kind == "file" else RemovableDisk(witnessed, Place(path).occupied)
    except BaseException:
        disk.close()
        raise
