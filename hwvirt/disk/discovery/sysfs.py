"""A SCSI disk's identity, from what the kernel tells in sysfs. No disk is asked.

Ref: Documentation/ABI/testing/sysfs-block, sysfs-bus-scsi; T10 SPC-4 7.8 for the pages in vpd_pg80.
"""

from __future__ import annotations

import re
from pathlib import Path

from hwvirt.disk.discovery.identity import DiskIdentity, WriteCache
from hwvirt.scsi.vpd import decode_serial

__all__ = ["read_identity", "scsi_device"]

_DISK_TYPE = "0"
_SECTOR_BYTES = 512  # sysfs counts in these, whatever the disk's blocks are
_CACHES = {"write back": WriteCache.VOLATILE, "write through": WriteCache.NONE}
_TRANSPORTS = {  # what a device's path in sysfs passes through; the nearest to the disk counts first
    "usb": r"/usb\d+/",
    "iscsi": r"/session\d+/",
    "fc": r"/rport-[\d:-]+/",
    "sas": r"/end_device-[\d:]+/",
    "sata": r"/ata\d+/",
    "virtio": r"/virtio\d+/",
    "virtual": r"/(pseudo_\d+|tcm_loop_\d+)/",
}


def read_identity(device: Path) -> DiskIdentity | None:
    """The disk at a SCSI device's folder of sysfs; None where there is none, or no longer."""
    if _text(device / "type") != _DISK_TYPE:
        return None
    block, sg = _entry(device / "block"), _entry(device / "scsi_generic")
    queue = device / "block" / block / "queue"
    return DiskIdentity(
        wwn=_text(device / "wwid"),
        serial=_serial(device / "vpd_pg80"),
        vendor=_text(device / "vendor"),
        model=_text(device / "model"),
        firmware=_text(device / "rev"),
        size_bytes=_number(device / "block" / block / "size") * _SECTOR_BYTES if block else 0,
        block_bytes=_number(queue / "logical_block_size") if block else 0,
        physical_block_bytes=_number(queue / "physical_block_size") if block else 0,
        write_cache=_CACHES.get(_text(queue / "write_cache"), WriteCache.UNKNOWN) if block else WriteCache.UNKNOWN,
        transport=_transport(str(device)),
        address=device.name,
        sg=f"/dev/{sg}" if sg else "",
        block=f"/dev/{block}" if block else "",
    )


def scsi_device(node: str) -> Path | None:
    """The folder of the SCSI device that a /dev/sdX or /dev/sgN belongs to; None for any other node."""
    name = Path(node).name
    folders = (Path("/sys/class") / kind / name / "device" for kind in ("block", "scsi_generic"))
    return next((folder.resolve() for folder in folders if (folder / "type").exists()), None)


def _transport(path: str) -> str:
    found = [(match.end(), name) for name, pattern in _TRANSPORTS.items() for match in re.finditer(pattern, path)]
    return max(found)[1] if found else ""


def _serial(page: Path) -> str:
    try:
        return decode_serial(page.read_bytes())
    except (OSError, ValueError):  # a disk without the page, or with a broken one, has no serial
        return ""


def _entry(directory: Path) -> str:
    try:
        return next((entry.name for entry in directory.iterdir()), "")
    except OSError:
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:  # it goes when the disk goes
        return ""


def _number(path: Path) -> int:
    text = _text(path)
    return int(text) if text.isdecimal() else 0
