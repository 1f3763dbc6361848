"""Where a disk is plugged in, and whether it still is."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from hwvirt.errors import DiskError

__all__ = ["Place"]


_NEXT_STEP = "`hwvirt scan` shows the disks of this machine."
_LEAVING = ("cancel", "deleted")


class Place:
    """A node's folder in sysfs. Its inode there tells it from a later one of the same name.

    It is the node's own folder, not that of the SCSI device above it: the kernel has removed it when it announces that the
    device goes.
    """

    def __init__(self, node: str) -> None:
        try:
            found = os.stat(node)
            kind = "block" if stat.S_ISBLK(found.st_mode) else "char"
            number = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
            self._folder = Path(f"/sys/dev/{kind}/{number}").resolve(strict=True)
            self._inode = os.stat(self._folder).st_ino
            self._state = self._folder / "device/state"
            self._state.read_text()
        except OSError as error:
            raise DiskError(f"{node} is no SCSI disk's node: {error.strerror}.", next_step=_NEXT_STEP) from error

    def occupied(self) -> bool:
        """Whether the same disk is still there, and not about to go."""
        try:
            return os.stat(self._folder).st_ino == self._inode and self._state.read_text().strip() not in _LEAVING
        except OSError:
            return False
