"""Writes and wipes labels. Consent is the identity in the rig file: there is no flag and no question.

All disks are checked and claimed before the first is written; a refusal leaves every one as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from enum import Enum

from hwvirt.disk.discovery.identity import DiskIdentity
from hwvirt.disk.discovery.label import NO_LABEL, encode_label, make_label
from hwvirt.disk.guard.admit import claimed
from hwvirt.disk.guard.ladder import refuse_another_label, refuse_foreign
from hwvirt.disk.guard.linux import LinuxProbe
from hwvirt.disk.guard.probe import Claim, Probe
from hwvirt.disk.guard.wanted import Wanted
from hwvirt.scsi.volume import Access

__all__ = ["Effect", "arm", "disarm"]


class Effect(Enum):
    """Whether anything is written."""

    WRITE = "the label is written or wiped"
    DRY_RUN = "every query is made, nothing is written"


def arm(
    disks: Sequence[Wanted], now: datetime, effect: Effect = Effect.WRITE, probe: Probe | None = None
) -> list[DiskIdentity]:
    """Labels the disks for their rig; those that are labelled so already get a new date. Raises WrongDisk, DiskError.

    Refuses whatever `admit` refuses, except that a disk is not armed.
    """
    probe = probe or LinuxProbe()
    with _all_claimed(disks, effect, probe) as claims:
        labels = []
        for wanted, disk, claim in claims:
            content = claim.content()
            refuse_another_label(wanted, disk, content)
            refuse_foreign(wanted, disk, content)
            labels.append(encode_label(make_label(wanted.rig, wanted.role, disk, now)))
        _write(claims, labels, effect)
    return _announced(claims, effect, probe)


def disarm(disks: Sequence[Wanted], effect: Effect = Effect.WRITE, probe: Probe | None = None) -> list[DiskIdentity]:
    """Wipes the labels of this rig; returns the disks that had one. Raises WrongDisk for another label, DiskError."""
    probe = probe or LinuxProbe()
    with _all_claimed(disks, effect, probe) as claims:
        ours = []
        for wanted, disk, claim in claims:
            content = claim.content()
            refuse_another_label(wanted, disk, content)
            if content.label is not None:
                ours.append((wanted, disk, claim))
        _write(ours, [NO_LABEL] * len(ours), effect)
    return _announced(ours, effect, probe)


@contextmanager
def _all_claimed(
    disks: Sequence[Wanted], effect: Effect, probe: Probe
) -> Iterator[list[tuple[Wanted, DiskIdentity, Claim]]]:
    access = Access.READ_WRITE if effect is Effect.WRITE else Access.READ_ONLY
    with ExitStack() as stack:
        yield [(wanted, *stack.enter_context(claimed(wanted, probe, access))) for wanted in disks]


def _write(claims: Sequence[tuple[Wanted, DiskIdentity, Claim]], labels: Sequence[bytes], effect: Effect) -> None:
    if effect is Effect.WRITE:
        for (_, _, claim), label in zip(claims, labels, strict=True):
            claim.write_label(label)


def _announced(claims: Sequence[tuple[Wanted, DiskIdentity, Claim]], effect: Effect, probe: Probe) -> list[DiskIdentity]:
    """The disks. Told to udev only now: as long as a disk is locked, udev leaves it alone."""
    disks = [disk for _, disk, _ in claims]
    if effect is Effect.WRITE:
        for disk in disks:
            probe.announce(disk)
    return disks
