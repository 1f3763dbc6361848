"""What Linux says about a block device's node, and the one system call that Python lacks.

Ref: linux/fs.h (BLK*), linux/falloc.h, fallocate(2).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
import struct

__all__ = ["is_block_device", "logical_block_bytes", "punch_hole", "size_bytes"]

_BLKGETSIZE64 = 0x80081272
_BLKSSZGET = 0x1268
_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate64 = _libc.fallocate64
_fallocate64.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_fallocate64.restype = ctypes.c_int


def is_block_device(fd: int) -> bool:
    """Whether `fd` is a block device's node."""
    return stat.S_ISBLK(os.fstat(fd).st_mode)


def size_bytes(fd: int) -> int:
    """Bytes of a regular file or a block device. Raises OSError."""
    if not is_block_device(fd):
        return os.fstat(fd).st_size
    return int(struct.unpack("=Q", fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8)))[0])


def logical_block_bytes(fd: int) -> int:
    """The smallest transfer that a block device takes; 1 for a regular file. Raises OSError."""
    if not is_block_device(fd):
        return 1
    return int(struct.unpack("=i", fcntl.ioctl(fd, _BLKSSZGET, bytes(4)))[0])


def punch_hole(fd: int, offset_bytes: int, length_bytes: int) -> None:
    """The range reads as zeroes and its room is given back. Raises OSError; EOPNOTSUPP where nothing can do that."""
    if _fallocate64(fd, _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE, offset_bytes, length_bytes):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
