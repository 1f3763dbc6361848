"""Tells of disks that are pulled and disks that come, while everything runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pyudev

from hwvirt.disk.discovery.removable import Presence, RemovableDisk
from hwvirt.disk.discovery.sysfs import read_identity
from hwvirt.trace import Trace

__all__ = ["DiskWatch"]


class DiskWatch:
    """Hears the kernel (no udev needed) and emits `disk.removed` for each of `disks` that goes, once, and `disk.added`.

    It has no thread: whoever runs the loop calls `dispatch` when `fileno` is readable (`loop.add_reader(watch.fileno(),
    watch.dispatch)`), so that events are emitted there. `on_removed` is called before the event, for each disk.
    """

    def __init__(
        self,
        disks: Sequence[RemovableDisk],
        trace: Trace,
        on_removed: Callable[[RemovableDisk], None] = lambda _: None,
    ) -> None:
        self._present = list(disks)
        self._trace = trace
        self._on_removed = on_removed
        self._monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
        self._monitor.filter_by("scsi", "scsi_device")  # announced last when a disk goes
        self._monitor.filter_by("scsi_generic")  # last when one comes
        self._monitor.start()
        self._look()  # what went before the monitor listened

    def fileno(self) -> int:
        """Readable when there is something to `dispatch`."""
        return int(self._monitor.fileno())

    def dispatch(self) -> None:
        """Takes what the kernel told and emits what it means. Never blocks."""
        added = []
        while (event := self._next()) is not None:
            if event.action == "add" and event.subsystem == "scsi_generic":
                added.append(Path(event.sys_path))
        self._look()
        for device in added:
            identity = read_identity(device.parent.parent)
            if identity is not None:
                self._trace.emit("disk.added", node=identity.sg, wwn=identity.wwn, serial=identity.serial)

    def _next(self) -> pyudev.Device | None:
        try:
            return self._monitor.poll(timeout=0)
        except OSError:  # ENOBUFS: events were lost; `_look` does not depend on them
            return self._monitor.poll(timeout=0)

    def _look(self) -> None:
        gone = [disk for disk in self._present if disk.look() is Presence.REMOVED]
        for disk in gone:
            self._present.remove(disk)
            self._on_removed(disk)
            self._trace.emit("disk.removed", disk=disk.name)
