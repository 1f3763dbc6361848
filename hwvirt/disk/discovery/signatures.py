"""What a disk's content looks like to others: file systems, RAID and LVM members, swap, partition tables.

Ref: util-linux, blkid/blkid.h: the low-level probing of libblkid.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_void_p
from dataclasses import dataclass
from functools import cache
from typing import Any

from hwvirt.errors import DiskError

__all__ = ["SIGNATURES", "Signature", "find_signatures", "library_name"]

_LIBRARY = "libblkid.so.1"
_PACKAGE = "libblkid1"

_SUBLKS_TYPE, _SUBLKS_USAGE, _SUBLKS_MAGIC = 1 << 5, 1 << 7, 1 << 9
_SUBLKS_BADCSUM = 1 << 10  # a damaged file system is somebody's, too
_PARTS_FORCE_GPT = 1 << 1  # also one that lost its protective MBR
_PARTS_MAGIC = 1 << 3
_FOUND, _NOTHING_MORE = 0, 1

SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "blkid_new_probe": (c_void_p, ()),
    "blkid_free_probe": (None, (c_void_p,)),
    "blkid_probe_set_device": (c_int, (c_void_p, c_int, c_int64, c_int64)),
    "blkid_probe_enable_superblocks": (c_int, (c_void_p, c_int)),
    "blkid_probe_set_superblocks_flags": (c_int, (c_void_p, c_int)),
    "blkid_probe_enable_partitions": (c_int, (c_void_p, c_int)),
    "blkid_probe_set_partitions_flags": (c_int, (c_void_p, c_int)),
    "blkid_do_probe": (c_int, (c_void_p,)),
    "blkid_probe_lookup_value": (c_int, (c_void_p, c_char_p, POINTER(c_char_p), POINTER(c_size_t))),
}
"""Function → (result type, argument types), as the header declares them."""

_WORDS = {
    "filesystem": "{} file system",
    "raid": "{} (a member of an array or volume group)",
    "crypto": "{} (encrypted)",
    "table": "{} partition table",
}


@dataclass(frozen=True, slots=True)
class Signature:
    """One thing that libblkid recognises: its type ("ext4", "gpt"), what it is for, and where its magic bytes lie."""

    kind: str
    usage: str
    offset_bytes: int

    def __str__(self) -> str:
        """For people: "ext4 file system"."""
        return _WORDS.get(self.usage, "{}").format(self.kind)


def find_signatures(fd: int) -> list[Signature]:
    """All that is recognised on an open block device or file, which is only read. Raises DiskError."""
    library = _library()
    probe = library.blkid_new_probe()
    if not probe:
        raise DiskError("libblkid has no memory for a probe.")
    try:
        if library.blkid_probe_set_device(probe, fd, 0, 0):
            raise DiskError(f"libblkid cannot read {os.readlink(f'/proc/self/fd/{fd}')}.")
        library.blkid_probe_enable_superblocks(probe, 1)
        library.blkid_probe_set_superblocks_flags(probe, _SUBLKS_TYPE | _SUBLKS_USAGE | _SUBLKS_MAGIC | _SUBLKS_BADCSUM)
        library.blkid_probe_enable_partitions(probe, 1)
        library.blkid_probe_set_partitions_flags(probe, _PARTS_FORCE_GPT | _PARTS_MAGIC)
        found = []
        while (result := library.blkid_do_probe(probe)) == _FOUND:
            found.append(_signature(library, probe))
        if result != _NOTHING_MORE:
            raise DiskError(f"libblkid cannot read {os.readlink(f'/proc/self/fd/{fd}')}.")
        return found
    finally:
        library.blkid_free_probe(probe)


def _signature(library: Any, probe: int) -> Signature:
    table = _value(library, probe, "PTTYPE")
    if table:
        return Signature(table, "table", int(_value(library, probe, "PTMAGIC_OFFSET") or 0))
    kind, usage = _value(library, probe, "TYPE"), _value(library, probe, "USAGE")
    return Signature(kind, usage, int(_value(library, probe, "SBMAGIC_OFFSET") or 0))


def _value(library: Any, probe: int, name: str) -> str:
    value = c_char_p()
    if library.blkid_probe_lookup_value(probe, name.encode(), byref(value), None):
        return ""
    return (value.value or b"").decode("utf-8", "replace")


def library_name() -> str:
    """The library that is used here. Raises DiskError with what to install."""
    return str(_library()._name)


@cache
def _library() -> Any:
    """The library with every signature set; loaded once."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise DiskError(f"{_LIBRARY} is missing.", next_step=f"Install it: apt-get install {_PACKAGE}.") from error
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
