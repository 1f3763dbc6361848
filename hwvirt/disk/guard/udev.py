"""What udev is told of a disk: whose it is when it is armed, nothing otherwise.

    python -I -m hwvirt.disk.guard.udev /dev/sdc

prints properties for a rule to import, like `hwvirt udev probe`, but without loading a command line: udev runs it for every
disk, each time that one changes.
"""

from __future__ import annotations

import sys

from hwvirt.disk.discovery.content import opened, read_label_bytes
from hwvirt.disk.discovery.identity import DiskIdentity
from hwvirt.disk.discovery.label import LABEL_BYTES, BadLabelError, decode_label
from hwvirt.disk.discovery.sysfs import read_identity, scsi_device
from hwvirt.errors import DiskError, HwvirtError

__all__ = ["main", "udev_properties"]


def udev_properties(node: str) -> dict[str, str]:
    """HWVIRT_RIG and HWVIRT_ROLE of an armed disk, by its /dev/sdX or /dev/sgN; nothing for another. Raises DiskError.

    A label that is damaged, or was made for another disk, arms nothing.
    """
    device = scsi_device(node)
    identity = read_identity(device) if device is not None else None
    if identity is None:
        raise DiskError(f"{node} is no SCSI disk's node.", next_step="Give it a /dev/sdX or a /dev/sgN.")
    identity, data = (identity, _by_block(identity.block)) if identity.block else _by_sg(identity)
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
    """A disk whose sg node appeared first: it has to be asked itself, also for its size."""
    from hwvirt.disk.guard.linux import LinuxProbe  # noqa: PLC0415  slow to load
    from hwvirt.disk.passthrough import SgDisk  # noqa: PLC0415  slow to load
    from hwvirt.disk.reader import read_blocks  # noqa: PLC0415  slow to load
    from hwvirt.scsi.volume import Access  # noqa: PLC0415  slow to load

    asked = LinuxProbe().asked(identity)
    disk = SgDisk(identity.sg, access=Access.READ_ONLY)
    try:
        return asked, read_blocks(disk, 0, LABEL_BYTES // asked.block_bytes)
    finally:
        disk.close()


def main(arguments: list[str]) -> int:
    """Prints the properties of the node that is named; the exit code."""
    try:
        for key, value in udev_properties(arguments[0]).items():
            print(f"{key}={value}")
    except HwvirtError as error:  # udev writes it to the journal
        print(f"hwvirt: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
