"""Lets a rig have a disk: every rung, then the claim, held for the whole run. Writes nothing, ever."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hwvirt.disk.discovery.identity import DiskIdentity
from hwvirt.disk.discovery.label import Label
from hwvirt.disk.guard.ladder import (
    refuse_another_disk,
    refuse_another_label,
    refuse_foreign,
    refuse_unarmed,
    refuse_used,
    refuse_window,
    resolve,
)
from hwvirt.disk.guard.linux import LinuxProbe
from hwvirt.disk.guard.probe import Claim, ClaimedElsewhereError, Probe
from hwvirt.disk.guard.wanted import DiskName, Wanted
from hwvirt.scsi.volume import Access, Extent

__all__ = ["Admitted", "admit", "claimed"]


@dataclass(frozen=True, slots=True)
class Admitted:
    """A disk that the rig may write inside the window, as long as the context of `admit` lasts."""

    identity: DiskIdentity
    label: Label
    window: Extent
    wanted: Wanted
    probe: Probe
    claim: Claim

    @property
    def sg(self) -> str:
        """The node for SG_IO, /dev/sgN."""
        return self.identity.sg

    @property
    def block(self) -> str:
        """The claimed node, /dev/sdX."""
        return self.identity.block

    def recheck(self) -> None:
        """Before each start of a controller: it is still this disk and still this label. Raises WrongDisk, DiskError."""
        refuse_another_disk(self.wanted, self.identity, self.probe)
        if _admissible(self.wanted, self.identity, self.claim) != self.label:
            raise self.wanted.refused(self.identity, "its label has changed since the run began", "Run it again.")


@contextmanager
def admit(name: DiskName, rig: str, role: str, probe: Probe | None = None) -> Iterator[Admitted]:
    """The disk that rig `rig` names as its disk `role`, claimed until the context ends, also for a dry run.

    Raises WrongDisk for any reason not to write it, DiskError when it cannot be asked.
    """
    wanted, probe = Wanted(rig, role, name), probe or LinuxProbe()
    with claimed(wanted, probe, Access.READ_ONLY) as (disk, claim):
        label = _admissible(wanted, disk, claim)
        yield Admitted(disk, label, name.window, wanted, probe, claim)


@contextmanager
def claimed(wanted: Wanted, probe: Probe, access: Access) -> Iterator[tuple[DiskIdentity, Claim]]:
    """The rungs up to the claim; what lies on the disk is not yet looked at. Raises WrongDisk, DiskError."""
    disk = resolve(wanted, probe)
    refuse_window(wanted, disk)
    refuse_used(wanted, disk, probe)
    try:
        with probe.claim(disk, access) as claim:
            refuse_another_disk(wanted, disk, probe)
            yield disk, claim
    except ClaimedElsewhereError as error:
        next_step = f"Find out who (fuser -v {disk.block}), or name another disk."
        raise wanted.refused(disk, str(error), next_step) from error


def _admissible(wanted: Wanted, disk: DiskIdentity, claim: Claim) -> Label:
    content = claim.content()
    refuse_another_label(wanted, disk, content)
    refuse_foreign(wanted, disk, content)
    return refuse_unarmed(wanted, disk, content)
