"""The machine that the guard stands on: sysfs, /proc, libblkid, libsgutils2, the kernel's exclusive claim and flock.

Ref: open(2) (O_EXCL on a block device), systemd.io/BLOCK_DEVICE_LOCKING (flock keeps udev from probing meanwhile).
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from hwvirt.disk.discovery.content import Content, read_content, read_label_bytes
from hwvirt.disk.discovery.identity import DiskIdentity
from hwvirt.disk.discovery.label import LABEL_BYTES
from hwvirt.disk.discovery.listing import list_identities
from hwvirt.disk.discovery.said import Said, ask, not_opened
from hwvirt.disk.discovery.uses import Use, claimant, find_uses
from hwvirt.disk.guard.probe import ClaimedElsewhereError
from hwvirt.errors import DiskError
from hwvirt.scsi.volume import Access
from hwvirt.units import Deadline

__all__ = ["LinuxProbe", "as_said"]

_LOCK_S = 5.0  # udev's probing takes less
_POLL_S = 0.01


def as_said(disk: DiskIdentity, said: Said) -> DiskIdentity:
    """The identity with what the disk itself says in the place of what the kernel noted."""
    wwn = disk.wwn
    if wwn.lower().startswith("naa.") and said.naa != int(wwn[4:], 16):
        wwn = "" if said.naa is None else f"naa.{said.naa:x}"
    return replace(disk, wwn=wwn, serial=said.serial, size_bytes=said.size_bytes, block_bytes=said.block_bytes)


class LinuxProbe:
    """This machine. See `Probe`."""

    def identities(self) -> Sequence[DiskIdentity]:
        """From sysfs, through pyudev."""
        return list_identities()

    def asked(self, disk: DiskIdentity) -> DiskIdentity:
        """By INQUIRY and READ CAPACITY through the sg node, opened for reading."""
        return as_said(disk, ask(disk.sg))

    def uses(self, disk: DiskIdentity) -> Sequence[Use]:
        """From /proc and /sys."""
        return find_uses(disk.block)

    @contextmanager
    def claim(self, disk: DiskIdentity, access: Access) -> Iterator[LinuxClaim]:
        """O_EXCL on the block node, then flock. To claim for reading leaves no trace; closing after writing wakes udev."""
        fd = _opened(disk.block, access)
        try:
            _lock(fd, disk.block)
            yield LinuxClaim(fd, disk.block)
        finally:
            os.close(fd)

    def announce(self, disk: DiskIdentity) -> None:
        """A "change" of both nodes: the rules look at the label again. Only root may; udev notices the block node anyway."""
        for folder, node in (("block", disk.block), ("scsi_generic", disk.sg)):
            with suppress(OSError):
                (Path("/sys/class") / folder / Path(node).name / "uevent").write_text("change")


class LinuxClaim:
    """A claimed block node. See `Claim`."""

    def __init__(self, fd: int, node: str) -> None:
        self._fd = fd
        self._node = node

    def content(self) -> Content:
        """Read anew: a run writes by SG_IO, which the page cache of this node does not notice."""
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)
        return read_content(self._fd)

    def write_label(self, data: bytes) -> None:
        """Through the page cache, then to the medium, then compared."""
        try:
            written = os.pwrite(self._fd, data, 0)
            os.fsync(self._fd)
        except OSError as error:
            raise DiskError(f"cannot write the label of {self._node}: {error.strerror}.") from error
        os.posix_fadvise(self._fd, 0, LABEL_BYTES, os.POSIX_FADV_DONTNEED)
        if written != len(data) or read_label_bytes(self._fd) != data:
            raise DiskError(f"{self._node} did not keep its label.", next_step="Do not trust this disk.")


def _opened(node: str, access: Access) -> int:
    mode = os.O_RDWR if access is Access.READ_WRITE else os.O_RDONLY
    try:
        return os.open(node, mode | os.O_EXCL | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.EBUSY:
            owner = claimant(node)
            reason = f"it is claimed by {owner}" if owner else "somebody holds it exclusively"
            raise ClaimedElsewhereError(reason) from error
        raise not_opened(node, error) from error


def _lock(fd: int, node: str) -> None:
    deadline = Deadline.after(_LOCK_S)
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if deadline.expired:
                raise ClaimedElsewhereError(f"it is claimed by {claimant(node) or 'a process that locks it'}") from error
            time.sleep(_POLL_S)  # udev takes the lock for as long as it looks at the disk
        else:
            return
