"""What udev is told of a disk: whose it is when it is armed, nothing otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hwvirt.disk.discovery.content import opened, read_label_bytes
from hwvirt.disk.discovery.identity import DiskIdentity
from hwvirt.disk.discovery.label import LABEL_BYTES, BadLabelError, decode_label
from hwvirt.disk.discovery.sysfs import read_identity
from hwvirt.disk.guard.linux import LinuxProbe
from hwvirt.disk.passthrough import SgDisk
from hwvirt.disk.reader import read_blocks
from hwvirt.errors import DiskError
from hwvirt.scsi.volume import Access

__all__ = ["udev_properties"]


def udev_properties(node: str) -> dict[str, str]:
    """Properties for a rule to import, for a /dev/sdX or /dev/sgN; none unless the disk is armed. Raises DiskError.

    A label that is damaged, or was made for another disk, arms nothing. An sg node may be there before the block node, so
    that its disk is asked by SG_IO.
    """
    name = Path(node).name
    for kind in ("block", "scsi_generic"):
        device = Path("/sys/class") / kind / name / "device"
        if device.is_dir():
            identity = read_identity(device.resolve())
            break
    else:
        identity = None
    if identity is None:
        raise DiskError(f"{node} is no SCSI disk's node.", next_step="Give it a /dev/sdX or a /dev/sgN.")
    identity, data = _by_sg(replace(identity, sg=node)) if kind == "scsi_generic" else (identity, _by_block(node))
    try:
        label = decode_label(data)
    except BadLabelError:
        return {}
    if label is None or not label.names(identity):
        return {}
    return {"HWVIRT_RIG": label.rig, "HWVIRT_ROLE": label.role}


def _by_block(node: str) -> bytes:
    with opened(node) as fd:
        return read_label_bytes(fd)


def _by_sg(identity: DiskIdentity) -> tuple[DiskIdentity, bytes]:
    asked = LinuxProbe().asked(identity)
    disk = SgDisk(identity.sg, access=Access.READ_ONLY)
    try:
        return asked, read_blocks(disk, 0, LABEL_BYTES // asked.block_bytes)
    finally:
        disk.close()
