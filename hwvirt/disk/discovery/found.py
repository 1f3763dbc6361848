"""The disks of this machine with everything that decides whether a rig may have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from hwvirt.disk.discovery.content import Content, opened, read_content
from hwvirt.disk.discovery.identity import DiskIdentity
from hwvirt.disk.discovery.listing import list_identities
from hwvirt.disk.discovery.uses import Use, find_uses
from hwvirt.errors import DiskError
from hwvirt.scsi.volume import Extent

__all__ = ["Armed", "FoundDisk", "discover", "suggested_window"]

_MARGIN_BYTES = 1 << 20


class Armed(Enum):
    """Whether a disk carries a label."""

    ARMED = "armed"
    NOT_ARMED = "not armed"
    BAD_LABEL = "bad label"
    UNKNOWN = "unknown"  # it cannot be read


@dataclass(frozen=True, slots=True)
class FoundDisk:
    """One disk. `content` is None where it cannot be read, `unreadable` then says why."""

    identity: DiskIdentity
    uses: tuple[Use, ...]
    content: Content | None
    unreadable: str = ""
    twins: tuple[str, ...] = ()
    """Nodes of other disks with the same wwn; with the same serial, where it has no wwn."""

    @property
    def armed(self) -> Armed:
        """By the label alone; that it was made for this disk, the guard finds out."""
        if self.content is None:
            return Armed.UNKNOWN
        if self.content.bad_label:
            return Armed.BAD_LABEL
        return Armed.NOT_ARMED if self.content.label is None else Armed.ARMED

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why a rig cannot have it as it is; empty when it can be armed, or is."""
        reasons = [use.reason for use in self.uses]
        if not self.identity.wwn and not self.identity.serial:
            reasons.append("it has neither wwn nor serial")
        if not self.identity.block or not self.identity.sg:
            reasons.append("it lacks a node (modprobe sd_mod sg)")
        if self.content is not None and self.armed is not Armed.ARMED:
            reasons += [f"it carries: {signature}" for signature in self.content.signatures]
        if self.twins:
            key = "wwn" if self.identity.wwn else "serial"
            reasons.append(f"its {key} is also that of {' and '.join(self.twins)}")
        return (*reasons, *([self.unreadable] if self.unreadable else ()))


def discover() -> list[FoundDisk]:
    """Every SCSI disk, in the order of their addresses. Only reads."""
    identities = list_identities()
    return [replace(_found(one), twins=_twins(one, identities)) for one in identities]


def suggested_window(disk: DiskIdentity) -> Extent:
    """All blocks but the first MiB, where the label is, and the last, where a GPT keeps its copy."""
    margin, blocks = _MARGIN_BYTES // disk.block_bytes, disk.size_bytes // disk.block_bytes
    return Extent(margin, blocks - 2 * margin)


def _twins(disk: DiskIdentity, all_disks: Sequence[DiskIdentity]) -> tuple[str, ...]:
    name = disk.wwn or disk.serial
    return tuple(other.node for other in all_disks if other is not disk and name and (other.wwn or other.serial) == name)


def _found(identity: DiskIdentity) -> FoundDisk:
    if not identity.block:
        return FoundDisk(identity, (), None)
    uses = tuple(find_uses(identity.block))
    try:
        with opened(identity.block) as fd:
            return FoundDisk(identity, uses, read_content(fd))
    except DiskError as error:
        return FoundDisk(identity, uses, None, error.reason)
