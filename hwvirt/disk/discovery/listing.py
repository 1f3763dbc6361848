"""All SCSI disks of this machine, through pyudev. No disk is asked, no udev daemon is needed."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pyudev

from hwvirt.disk.discovery.identity import DiskIdentity
from hwvirt.disk.discovery.sysfs import read_identity

__all__ = ["list_identities"]


def list_identities() -> list[DiskIdentity]:
    """In the order of their addresses."""
    devices = _udev().list_devices(subsystem="scsi", DEVTYPE="scsi_device")
    paths = sorted((Path(device.sys_path) for device in devices), key=_address_order)
    return [identity for path in paths if (identity := read_identity(path)) is not None]


@cache
def _udev() -> pyudev.Context:
    """Made once: it starts a program to find its library."""
    return pyudev.Context()


def _address_order(device: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in device.name.split(":"))
