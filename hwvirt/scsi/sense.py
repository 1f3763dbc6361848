"""Sense data: what went wrong, fixed and descriptor format. Ref: T10 SPC-4 4.5, additional sense codes annex E."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hwvirt.scsi.status import SenseKey

__all__ = ["CheckCondition", "Sense"]


@dataclass(frozen=True, slots=True)
class Sense:
    """One sense: key, additional code and qualifier; INFORMATION (an LBA, or None), deferred or of this command."""

    key: SenseKey
    asc: int
    ascq: int
    information: int | None = None
    deferred: bool = False

    def at(self, lba: int) -> Sense:
        """The same sense with `lba` in INFORMATION."""
        return replace(self, information=lba)


class CheckCondition(Exception):
    """A command that ended with CHECK CONDITION. Raised at scalar borders, returned as an item in batches."""

    def __init__(self, sense: Sense) -> None:
        self.sense = sense
        super().__init__(str(sense))
