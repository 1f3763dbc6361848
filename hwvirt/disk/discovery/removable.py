"""A disk that somebody may pull while it is in use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

from hwvirt.disk.disk import BatchDisk, Disk, Ends, execute_each
from hwvirt.errors import DiskError
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.sense import Sense, encode_sense
from hwvirt.scsi.status import SenseKey, Status
from hwvirt.units import Deadline

__all__ = ["REMOVED", "Presence", "RemovableDisk"]

REMOVED = Sense(SenseKey.NOT_READY, 0x04, 0x03)
"""LOGICAL UNIT NOT READY, MANUAL INTERVENTION REQUIRED (SPC-4 annex E): initiators do not try again by themselves."""


class Presence(Enum):
    """Whether a disk is there. It only ever goes from PRESENT to REMOVED."""

    PRESENT = "the disk answers for itself"
    REMOVED = "the disk was pulled: every request fails at once with REMOVED, also when a disk comes back"


class RemovableDisk:
    """`inner`, until it is pulled. A disk that comes back has to be named, guarded and opened anew.

    `occupied` says whether the disk is still in its place; it is asked by `look`, and when a command got no completion.
    """

    def __init__(self, inner: Disk, occupied: Callable[[], bool]) -> None:
        self._inner = inner
        self._batches = inner if isinstance(inner, BatchDisk) else None
        self._occupied = occupied
        self._presence = Presence.PRESENT

    @property
    def name(self) -> str:
        """The inner disk's."""
        return self._inner.name

    @property
    def quick(self) -> bool:
        """The inner disk's."""
        return self._inner.quick

    def look(self) -> Presence:
        """Looks whether the disk is still there. From any thread; takes microseconds."""
        if self._presence is Presence.PRESENT and not self._occupied():
            self._presence = Presence.REMOVED
        return self._presence

    def execute(self, command: Command, deadline: Deadline) -> Completion:
        """The inner disk's completion; CHECK CONDITION with REMOVED when it is gone, whoever noticed first."""
        if self._presence is Presence.REMOVED:
            return _refused(command)
        try:
            return self._inner.execute(command, deadline)
        except DiskError:
            if self.look() is Presence.REMOVED:
                return _refused(command)
            raise

    def execute_batch(self, batch: Sequence[Command], deadline: Deadline) -> Ends:
        """As `execute`, for each command."""
        if self._batches is None:
            return execute_each(self, batch, deadline)
        if self._presence is Presence.REMOVED:
            return [_refused(command) for command in batch]
        ends = self._batches.execute_batch(batch, deadline)
        if any(isinstance(end, DiskError) for end in ends) and self.look() is Presence.REMOVED:
            pairs = zip(batch, ends, strict=True)
            return [_refused(command) if isinstance(end, DiskError) else end for command, end in pairs]
        return ends

    def close(self) -> None:
        """Closes the inner disk. Idempotent."""
        self._inner.close()


def _refused(command: Command) -> Completion:
    return Completion(Status.CHECK_CONDITION, sense=encode_sense(REMOVED), residual=command.data_in_length)
