"""The interface of everything that executes CDBs for a controller or the judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from hwvirt.errors import DiskError
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.sense import Sense
from hwvirt.scsi.status import SenseKey
from hwvirt.units import Deadline

__all__ = ["ATTENTIONS_MOST", "LOST_WRITES", "BatchDisk", "Disk", "Ends", "execute_each"]

Ends = list[Completion | DiskError]
"""How each command of a batch ended, in order; a DiskError where no completion can be had."""

ATTENTIONS_MOST = 5
"""So many unit attentions in a row are taken for news of the past: power on, a reset, new firmware are told one by one, each
in the place of an answer (SAM-5 5.14). A disk that has more to tell is told on."""

LOST_WRITES = Sense(SenseKey.HARDWARE_ERROR, 0x0C, 0x00)
"""A flush that came too late: earlier writes may be gone. Told once, so it must not have a key that initiators try again
on (Linux does on MEDIUM ERROR, UNIT ATTENTION and deferred errors), or the second answer would hide the first."""


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


@runtime_checkable
class BatchDisk(Disk, Protocol):
    """A disk that takes a batch in one step, so that a command costs no more than itself. Worth it where disks are quick."""

    def execute_batch(self, batch: Sequence[Command], deadline: Deadline) -> Ends:
        """Executes the commands in their order."""
        ...


def execute_each(disk: Disk, batch: Sequence[Command], deadline: Deadline) -> Ends:
    """A batch for a disk that takes one command at a time."""
    ends: Ends = []
    for command in batch:
        try:
            ends.append(disk.execute(command, deadline))
        except DiskError as error:
            ends.append(error)
    return ends
