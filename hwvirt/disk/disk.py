"""The interface of everything that executes CDBs for a controller or the judge."""

from __future__ import annotations

from typing import Protocol

from hwvirt.scsi.command import Command, Completion
from hwvirt.units import Deadline

__all__ = ["Disk"]


class Disk(Protocol):
    """A SCSI disk: real, loop device or file. Blocking; safe to call from several threads at once.

    GOOD does not mean durable. Implementations: `SgDisk` (the SG_IO ioctl), `LoopDisk` (the device server over a loop
    device or a file), `FaultyDisk(inner)`.
    """

    @property
    def name(self) -> str:
        """What people call this disk, for messages: a path or an identity."""
        ...

    @property
    def quick(self) -> bool:
        """Whether reads and writes take so little time that an event loop may wait for them (page cache)."""
        ...

    def execute(self, command: Command, deadline: Deadline) -> Completion:
        """Executes one command. Raises DiskError when no completion can be had (node gone, deadline passed)."""
        ...

    def close(self) -> None:
        """Gives the node back. Idempotent."""
        ...
