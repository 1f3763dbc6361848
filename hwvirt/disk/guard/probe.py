"""What the guard asks of the machine. `linux.py` asks for real; tests answer from memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from hwvirt.disk.discovery.content import Content
from hwvirt.disk.discovery.identity import DiskIdentity
from hwvirt.disk.discovery.uses import Use
from hwvirt.scsi.volume import Access

__all__ = ["Claim", "ClaimedElsewhereError", "Probe"]


class ClaimedElsewhereError(Exception):
    """Somebody else holds the disk exclusively. Its text says who, as the end of a sentence."""


class Claim(Protocol):
    """A disk that nobody else can mount, claim or arm as long as this is open."""

    def content(self) -> Content:
        """What lies on it now, past every cache. Raises DiskError."""
        ...

    def write_label(self, data: bytes) -> None:
        """Writes the first LABEL_BYTES, durably, and reads them back. Raises DiskError."""
        ...


class Probe(Protocol):
    """The disks of a machine. Only a claim for writing can change one, and only its label."""

    def identities(self) -> Sequence[DiskIdentity]:
        """The disks that are there now, as the kernel noted them."""
        ...

    def asked(self, disk: DiskIdentity) -> DiskIdentity:
        """The same with what the disk itself answers now. Raises DiskError when it does not answer."""
        ...

    def uses(self, disk: DiskIdentity) -> Sequence[Use]:
        """How the disk is used."""
        ...

    def claim(self, disk: DiskIdentity, access: Access) -> AbstractContextManager[Claim]:
        """Claims it, when entered. Raises ClaimedElsewhereError, DiskError."""
        ...

    def announce(self, disk: DiskIdentity) -> None:
        """Tells udev that the label has changed, where that is allowed."""
        ...
