"""A machine of the tests: disks in memory, and what is told of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from hwvirt.disk.discovery.content import Content
from hwvirt.disk.discovery.identity import DiskIdentity, WriteCache
from hwvirt.disk.discovery.label import LABEL_BYTES, BadLabelError, decode_label
from hwvirt.disk.discovery.signatures import Signature
from hwvirt.disk.discovery.uses import Use
from hwvirt.disk.guard.probe import ClaimedElsewhereError
from hwvirt.scsi.volume import Access, Extent

GOOD = DiskIdentity(
    wwn="naa.5000c500aabbccdd",
    serial="ZL2001",
    vendor="ATA",
    model="ST500DM002",
    firmware="KC45",
    size_bytes=500107862016,
    block_bytes=512,
    physical_block_bytes=4096,
    write_cache=WriteCache.VOLATILE,
    transport="sata",
    address="2:0:0:0",
    sg="/dev/sg2",
    block="/dev/sdc",
)
OTHER = replace(GOOD, wwn="naa.5000c500aabb0011", serial="ZL2002", address="3:0:0:0", sg="/dev/sg3", block="/dev/sdd")


WINDOW = Extent(2048, 1 << 20)


@dataclass(frozen=True)
class Name:
    """As in a rig file."""

    wwn: str | None = GOOD.wwn
    serial: str | None = GOOD.serial
    size_bytes: int = GOOD.size_bytes
    block_bytes: int = GOOD.block_bytes
    window: Extent = WINDOW


@dataclass
class FakeDisk:
    identity: DiskIdentity
    said: DiskIdentity | None = None
    uses: list[Use] = field(default_factory=list)
    signatures: list[Signature] = field(default_factory=list)
    start: bytearray = field(default_factory=lambda: bytearray(LABEL_BYTES))
    held_by: str = ""
    claims: list[Access] = field(default_factory=list)
    writes: int = 0
    claimed_for: list[Access] = field(default_factory=list)

    def content(self) -> Content:
        try:
            return Content(decode_label(bytes(self.start)), "", tuple(self.signatures))
        except BadLabelError as error:
            return Content(None, str(error), tuple(self.signatures))

    def write_label(self, data: bytes) -> None:
        assert self.claims[-1:] == [Access.READ_WRITE]
        self.writes += 1
        self.start[:] = data


class Machine:
    """A `Probe`. The first of its disks is GOOD, or what it is changed to."""

    def __init__(self, *identities: DiskIdentity) -> None:
        self.disks = [FakeDisk(identity) for identity in identities or (GOOD, OTHER)]
        self.announced: list[str] = []

    def identities(self) -> Sequence[DiskIdentity]:
        return [disk.identity for disk in self.disks]

    def asked(self, disk: DiskIdentity) -> DiskIdentity:
        return self._disk(disk).said or disk

    def uses(self, disk: DiskIdentity) -> Sequence[Use]:
        found = self._disk(disk)
        return [*found.uses, *[Use("it is claimed by process 1", "Wait.") for _ in found.claims]]

    @contextmanager
    def claim(self, disk: DiskIdentity, access: Access) -> Iterator[FakeDisk]:
        found = self._disk(disk)
        if found.held_by:
            raise ClaimedElsewhereError(found.held_by)
        found.claims.append(access)
        found.claimed_for.append(access)
        try:
            yield found
        finally:
            found.claims.pop()

    def announce(self, disk: DiskIdentity) -> None:
        self.announced.append(disk.block)

    def _disk(self, identity: DiskIdentity) -> FakeDisk:
        (found,) = [disk for disk in self.disks if disk.identity.wwn == identity.wwn]
        return found

    def bytes(self) -> list[bytes]:
        return [bytes(disk.start) for disk in self.disks]
