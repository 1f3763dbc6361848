"""The disk without hardware: a plain file or a loop device behind our own device server."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import threading
from collections.abc import Sequence

from hwvirt.disk.disk import Ends
from hwvirt.disk.file import FileVolume
from hwvirt.disk.linux import logical_block_bytes
from hwvirt.errors import DiskError
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.server import DeviceServer, run_now
from hwvirt.scsi.volume import Access
from hwvirt.scsi.vpd import Identity
from hwvirt.units import Deadline

__all__ = ["LoopDisk", "create_image"]


def create_image(path: str | os.PathLike[str], size_bytes: int) -> None:
    """Makes a new sparse file that reads as zeroes. Raises DiskError, also when there is a file of that name."""
    try:
        with open(path, "xb") as image:
            image.truncate(size_bytes)
    except OSError as error:
        raise DiskError(f"cannot make the image {os.fspath(path)}: {error.strerror}.") from error


_SYNCHRONIZE_CACHE = (0x35, 0x91)


class LoopDisk:
    """A disk over the file or block device `path`, through the page cache. Only what is to be durable takes long.

    READ_WRITE claims the node until `close`: a second writer of the file, or a mount of the device, is refused with a
    DiskError. READ_ONLY claims nothing and is not refused. Without an `identity` the disk has one made from its path.
    """

    quick = True

    def __init__(
        self,
        path: str,
        block_bytes: int,
        *,
        access: Access = Access.READ_WRITE,
        identity: Identity | None = None,
    ) -> None:
        self.name = path
        self._fd = _opened(path, access)
        try:
            _check_size(self._fd, path, block_bytes)
            volume = FileVolume(self._fd, block_bytes, access=access)
            if not volume.blocks:
                raise DiskError(f"{path} is too small for one block of {block_bytes} bytes.")
            identity = identity or _identity_of(path)
            self._server = _Served(volume, identity)
            self._flusher = _Served(volume, identity)  # of its own, so that reads and writes go on during a flush
        except BaseException:
            self.close()
            raise

    def execute(self, command: Command, deadline: Deadline) -> Completion:
        """Executes at once; the deadline is never needed. Raises DiskError after `close`."""
        if self._fd < 0:
            raise DiskError(f"{self.name} is closed.")
        served = self._flusher if command.cdb[0] in _SYNCHRONIZE_CACHE else self._server
        return served.execute([command])[0]

    def execute_batch(self, batch: Sequence[Command], deadline: Deadline) -> Ends:
        """As `execute`, for a whole batch in one step of the device server."""
        if self._fd < 0:
            return [DiskError(f"{self.name} is closed.")] * len(batch)
        return [*self._server.execute(batch)]

    def close(self) -> None:
        """Gives the node and the claim back. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Served:
    """A device server, which is for one thread, for several: one after the other."""

    def __init__(self, volume: FileVolume, identity: Identity) -> None:
        self._turn = threading.Lock()
        self._server = DeviceServer(volume, identity)

    def execute(self, batch: Sequence[Command]) -> list[Completion]:
        """Waits for its turn only: a FileVolume never suspends."""
        with self._turn:
            return run_now(self._server.execute(batch))


def _opened(path: str, access: Access) -> int:
    """An open node, claimed when it is to be written. Raises DiskError."""
    try:
        if access is Access.READ_ONLY:
            return os.open(path, os.O_CLOEXEC | os.O_RDONLY)
        if stat.S_ISBLK(os.stat(path).st_mode):
            return os.open(path, os.O_CLOEXEC | os.O_RDWR | os.O_EXCL)  # against mounts too; udev may hold a lock
        fd = os.open(path, os.O_CLOEXEC | os.O_RDWR)
    except OSError as error:
        raise _refused(path, error) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise _refused(path, error) from error
    return fd


def _refused(path: str, error: OSError) -> DiskError:
    if error.errno in (errno.EBUSY, errno.EWOULDBLOCK):
        return DiskError(
            f"{path} is in use: it is mounted, or another program writes to it.",
            next_step=f"Find that program with fuser -v {path} and stop it, or name another disk.",
        )
    return DiskError(f"cannot open {path}: {error.strerror}.")


def _check_size(fd: int, path: str, block_bytes: int) -> None:
    own = logical_block_bytes(fd)
    if block_bytes % own:
        raise DiskError(f"{path} is a device with blocks of {own} bytes; it cannot have blocks of {block_bytes}.")


def _identity_of(path: str) -> Identity:
    number = int.from_bytes(hashlib.sha256(os.path.realpath(path).encode()).digest()[:7], "big")
    return Identity(vendor="HWVIRT", product="LOOP DISK", revision="0001", serial=f"{number:014X}", naa=0x3 << 60 | number)
