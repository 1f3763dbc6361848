"""What Linux says about a block device's node, and the one system call that Python lacks.

Ref: linux/fs.h (BLK*), linux/falloc.h, fallocate(2).
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import stat
import struct
from pathlib import Path

__all__ = ["is_block_device", "logical_block_bytes", "passthrough_limit_bytes", "punch_hole", "size_bytes"]

_BLKGETSIZE64 = 0x80081272
_BLKSSZGET = 0x1268
_BLKSECTGET = 0x1267
_CAUTIOUS_LIMIT_BYTES = 1 << 16
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


def passthrough_limit_bytes(fd: int) -> int:
    """The longest transfer that SG_IO carries in one command on this node; a cautious 64 KiB where Linux does not say."""
    device = os.fstat(fd)
    try:
        if stat.S_ISCHR(device.st_mode):
            return _sg_limit_bytes(fd, f"{os.major(device.st_rdev)}:{os.minor(device.st_rdev)}")
        node = f"{os.major(device.st_rdev)}:{os.minor(device.st_rdev)}"
        queue = Path(f"/sys/dev/block/{node}/queue")
        most_bytes = int((queue / "max_sectors_kb").read_text()) * 1024
        segments = int((queue / "max_segments").read_text())
    except OSError:
        return _CAUTIOUS_LIMIT_BYTES
    return min(most_bytes, segments // 2 * mmap.PAGESIZE)  # a piece that is not page-aligned costs two segments a page


def _sg_limit_bytes(fd: int, node: str) -> int:
    """The sg driver answers in bytes, but not with the pages that the host adapter takes in one command."""
    most_bytes = int(struct.unpack("=i", fcntl.ioctl(fd, _BLKSECTGET, bytes(4)))[0]) or _CAUTIOUS_LIMIT_BYTES
    for queue in Path(f"/sys/dev/char/{node}/device/block").glob("*/queue/max_segments"):
        most_bytes = min(most_bytes, int(queue.read_text()) * mmap.PAGESIZE)
    return most_bytes


def punch_hole(fd: int, offset_bytes: int, length_bytes: int) -> None:
    """The range reads as zeroes and its room is given back. Raises OSError; EOPNOTSUPP where nothing can do that."""
    if _fallocate64(fd, _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE, offset_bytes, length_bytes):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
