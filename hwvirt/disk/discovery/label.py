"""The label of an armed disk: who may write it, signed by CRC-32C. Pure: bytes in, bytes out.

It takes the first 4096 bytes, which no window may contain. That is the place to be: whoever partitions the disk or puts a
file system on it overwrites these bytes, and so disarms it. It is text, so that `head -2 /dev/sdX` shows it:

    hwvirt disk label 1
    {"rig":"desk","role":"first","wwn":"naa.…","serial":"…","size_bytes":…,"block_bytes":…,"armed_at":"2026-01-31T12:00:00Z"}

Zeroes follow; the last four bytes are the CRC-32C of all before, little-endian.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import msgspec

from hwvirt.digest import crc32c
from hwvirt.disk.discovery.identity import DiskIdentity

__all__ = ["LABEL_BYTES", "NO_LABEL", "BadLabelError", "Label", "decode_label", "encode_label", "make_label"]

LABEL_BYTES = 4096
NO_LABEL = bytes(LABEL_BYTES)
"""What `disarm` leaves."""

_MAGIC = b"hwvirt disk label "
_FIRST_LINE = _MAGIC + b"1\n"
_CRC_AT = LABEL_BYTES - 4
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,47}")  # as in rig files: these become names of links in /dev


class BadLabelError(ValueError):
    """There is a label, but nobody can say whose: torn, rotten, or of another version."""


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`rig` may write this disk as its disk `role`. The rest is the disk's identity, so that a copy on another is known."""

    rig: str
    role: str
    wwn: str
    serial: str
    size_bytes: int
    block_bytes: int
    armed_at: datetime

    def names(self, disk: DiskIdentity) -> bool:
        """Whether the label was made for this disk."""
        theirs = (disk.wwn, disk.serial, disk.size_bytes, disk.block_bytes)
        return (self.wwn, self.serial, self.size_bytes, self.block_bytes) == theirs


def make_label(rig: str, role: str, disk: DiskIdentity, now: datetime) -> Label:
    """The label that arms `disk`."""
    armed_at = now.astimezone(UTC).replace(microsecond=0)
    return Label(rig, role, disk.wwn, disk.serial, disk.size_bytes, disk.block_bytes, armed_at)


def encode_label(label: Label) -> bytes:
    """LABEL_BYTES, ready to be written. Raises ValueError for names that a label cannot carry."""
    text = _FIRST_LINE + msgspec.json.encode(label) + b"\n"
    if not (_NAME.fullmatch(label.rig) and _NAME.fullmatch(label.role)) or len(text) > _CRC_AT:
        raise ValueError(f"a label cannot carry rig {label.rig!r} and disk {label.role!r}")
    signed = text.ljust(_CRC_AT, b"\0")
    return signed + crc32c(signed).to_bytes(4, "little")


def decode_label(data: bytes) -> Label | None:
    """The label in the first LABEL_BYTES of a disk; None where there never was one. Raises BadLabelError."""
    if not data.startswith(_MAGIC):
        return None
    if not data.startswith(_FIRST_LINE):
        raise BadLabelError("another version of hwvirt wrote its label")
    signed, crc = data[:_CRC_AT], data[_CRC_AT:LABEL_BYTES]
    if crc32c(signed).to_bytes(4, "little") != crc:
        raise BadLabelError("its label is damaged (the CRC-32C is wrong)")
    text = signed[len(_FIRST_LINE) :].rstrip(b"\0")
    try:
        label = msgspec.json.decode(text, type=Label)
        encode_label(label)
    except ValueError as error:  # also msgspec's
        raise BadLabelError(f"its label makes no sense: {error}") from error
    return label
