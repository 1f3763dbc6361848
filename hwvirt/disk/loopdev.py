"""Attaches files to Linux loop devices and detaches them again. Needs root.

Ref: linux/loop.h, loop(4). LOOP_CONFIGURE is Linux 5.8; older kernels take the two calls that it replaced.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import time
from types import TracebackType
from typing import Self

from hwvirt.errors import DiskError
from hwvirt.scsi.volume import Access
from hwvirt.units import Deadline

__all__ = ["LoopConfig", "LoopDevice", "LoopInfo64"]

_CONTROL = "/dev/loop-control"
_LOOP_SET_FD = 0x4C00
_LOOP_CLR_FD = 0x4C01
_LOOP_SET_STATUS64 = 0x4C04
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_SET_BLOCK_SIZE = 0x4C09
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CTL_GET_FREE = 0x4C82
_LO_FLAGS_READ_ONLY = 1
_LO_FLAGS_AUTOCLEAR = 4

_ATTACH_TRIES = 64
_DETACH_SECONDS = 10.0
_POLL_SECONDS = 0.01


class LoopInfo64(ctypes.Structure):
    """struct loop_info64."""

    _fields_ = (
        ("device", ctypes.c_uint64),
        ("inode", ctypes.c_uint64),
        ("rdevice", ctypes.c_uint64),
        ("offset", ctypes.c_uint64),
        ("size_limit", ctypes.c_uint64),
        ("number", ctypes.c_uint32),
        ("encrypt_type", ctypes.c_uint32),
        ("encrypt_key_size", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("file_name", ctypes.c_char * 64),
        ("crypt_name", ctypes.c_char * 64),
        ("encrypt_key", ctypes.c_uint8 * 32),
        ("init", ctypes.c_uint64 * 2),
    )


class LoopConfig(ctypes.Structure):
    """struct loop_config."""

    _fields_ = (
        ("fd", ctypes.c_uint32),
        ("block_size", ctypes.c_uint32),
        ("info", LoopInfo64),
        ("reserved", ctypes.c_uint64 * 8),
    )


class LoopDevice:
    """A file attached to a loop device of `block_bytes`; a context manager that detaches.

    The device is held open all the time: when this process is killed, the kernel detaches it with the last one that has it
    open. Raises DiskError when no device can be had, and when the device is still open elsewhere after detaching.
    """

    def __init__(self, backing: str, block_bytes: int, *, access: Access = Access.READ_WRITE) -> None:
        flags = os.O_CLOEXEC | (os.O_RDWR if access is Access.READ_WRITE else os.O_RDONLY)
        try:
            backing_fd = os.open(backing, flags)
        except OSError as error:
            raise DiskError(f"cannot open {backing}: {error.strerror}.") from error
        try:
            status = os.fstat(backing_fd)
            self._backing = (status.st_dev, status.st_ino)
            self.path, self._held = _attach(backing_fd, backing, block_bytes, access)
        finally:
            os.close(backing_fd)
        self._attached = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.detach()

    def detach(self, deadline: Deadline | None = None) -> None:
        """Lets go of the device and waits until the kernel has, too. Idempotent."""
        deadline = deadline or Deadline.after(_DETACH_SECONDS)
        if not self._attached:
            return
        try:
            if self._held.is_open and self._is_ours():
                self._held.call(_LOOP_CLR_FD)
        finally:
            self._held.close()
        while self._is_ours():  # the kernel detaches when the last opener (udev may be one) has closed
            if deadline.expired:
                raise DiskError(
                    f"{self.path} is still open elsewhere.",
                    next_step=f"Close whatever uses it (fuser -v {self.path}); it then detaches itself.",
                )
            time.sleep(_POLL_SECONDS)
        self._attached = False

    def _is_ours(self) -> bool:
        """Whether our file is still behind the device."""
        info = LoopInfo64()
        try:
            with _Node(self.path, os.O_RDONLY) as node:
                node.call(_LOOP_GET_STATUS64, info)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.ENOENT):
                return False
            raise DiskError(f"cannot ask {self.path} what it is attached to: {error.strerror}.") from error
        return (info.device, info.inode) == self._backing


class _Node:
    """A loop node or the control node, open."""

    def __init__(self, path: str, flags: int) -> None:
        self._fd = os.open(path, flags | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def is_open(self) -> bool:
        """Until `close`."""
        return self._fd >= 0

    def close(self) -> None:
        """Lets go of it. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def call(self, request: int, argument: int | ctypes.Structure = 0) -> int:
        """ioctl(2). Raises OSError."""
        return int(fcntl.ioctl(self._fd, request, argument))


def _attach(backing_fd: int, backing: str, block_bytes: int, access: Access) -> tuple[str, _Node]:
    """A free device that now shows the file, open. Another process may take the free device first: then the next."""
    flags = _LO_FLAGS_AUTOCLEAR | (_LO_FLAGS_READ_ONLY if access is Access.READ_ONLY else 0)
    info = LoopInfo64(flags=flags, file_name=os.fsencode(backing)[:63])
    config = LoopConfig(fd=backing_fd, block_size=block_bytes, info=info)
    mode = os.O_RDWR if access is Access.READ_WRITE else os.O_RDONLY
    try:
        for _ in range(_ATTACH_TRIES):
            with _Node(_CONTROL, os.O_RDWR) as control:
                path = f"/dev/loop{control.call(_LOOP_CTL_GET_FREE)}"
            node = _Node(path, mode)
            try:
                _configure(node, config)
            except OSError as error:
                node.close()
                if error.errno != errno.EBUSY:
                    raise
            except BaseException:
                node.close()
                raise
            else:
                return path, node
    except OSError as error:
        raise DiskError(
            f"cannot attach {backing} to a loop device: {error.strerror}.",
            next_step="Loop devices need root and the loop module; a plain file as disk needs neither.",
        ) from error
    raise DiskError(f"cannot attach {backing}: other processes took {_ATTACH_TRIES} free loop devices first.")


def _configure(node: _Node, config: LoopConfig) -> None:
    try:
        node.call(_LOOP_CONFIGURE, config)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTTY):
            raise
    else:
        return
    node.call(_LOOP_SET_FD, config.fd)
    try:
        node.call(_LOOP_SET_STATUS64, config.info)
        node.call(_LOOP_SET_BLOCK_SIZE, config.block_size)
    except OSError:
        node.call(_LOOP_CLR_FD)
        raise
