"""How the allocator treats the large buffers of the data path. Ref: mallopt(3)."""

from __future__ import annotations

import ctypes
from contextlib import suppress

__all__ = ["keep_large_buffers"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_BUFFER_BYTES = 32 << 20  # the most that glibc takes (DEFAULT_MMAP_THRESHOLD_MAX on 64 bits)
_KEPT_BYTES = 256 << 20


def keep_large_buffers() -> None:
    """Memory of freed buffers stays with the process: fresh pages would cost more than the data that is put into them.

    Does nothing where the C library has no mallopt.
    """
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BUFFER_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
