"""Disks that a program makes in a guest's kernel, and removes again: scsi_debug, and the kernel's own target looped back.

    python -m hwvirt.lab.disks '{"kind": "scsi-debug", "size_bytes": 67108864, "block_bytes": 4096}' ...

makes the disks, prints for each its identity as a line of JSON and removes them when it gets an empty line or SIGTERM.
"""

from __future__ import annotations

import fcntl
import hashlib
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from enum import Enum
from pathlib import Path
from typing import TypeAlias

import msgspec

from hwvirt.disk.loopdev import LoopDevice
from hwvirt.lab.guest.system import DeviceEvents, configfs, load_modules, remove_module, requests, write
from hwvirt.lab.process import LabError
from hwvirt.units import Deadline

__all__ = [
    "Cache",
    "GuestDisk",
    "ScsiDebug",
    "Spec",
    "TcmLoop",
    "add_backstore",
    "describe",
    "loopback_lun",
    "loopback_serial",
    "main",
    "make",
]

_NODE_S = 10.0
_SCSI_DEBUG = Path("/sys/bus/pseudo/drivers/scsi_debug")
_SCSI_DEBUG_LOADED = Path("/run/hwvirt-scsi-debug")
_LOCK = Path("/run/lock/hwvirt-scsi-debug")
_SECTOR_BYTES = 512
_SERIAL_DIGITS = 25


class GuestDisk(msgspec.Struct, frozen=True):
    """A SCSI disk in a guest, as the kernel describes it."""

    sg: str
    block: str
    wwn: str
    serial: str
    vendor: str
    model: str
    size_bytes: int
    block_bytes: int


class ScsiDebug(msgspec.Struct, frozen=True, tag_field="kind", tag="scsi-debug"):
    """A disk in the memory of the scsi_debug driver; loses everything with the power. `parameters` are those of the module.

    All disks of a kernel share one set of parameters and their size, each has its own data.
    """

    size_bytes: int
    block_bytes: int = _SECTOR_BYTES
    parameters: dict[str, str] = {}

    def arguments(self) -> list[str]:
        """The module's parameters; without any, commands take no time and every disk stores its own data."""
        if self.size_bytes % (1 << 20):
            raise LabError(f"scsi_debug makes disks of whole MiB, not of {self.size_bytes} bytes")
        own = {"dev_size_mb": str(self.size_bytes >> 20), "sector_size": str(self.block_bytes)}
        merged = {"delay": "0", "per_host_store": "1", **self.parameters, **own}
        return [f"{key}={value}" for key, value in merged.items()]


class Cache(Enum):
    """What a disk does with writes that no flush has followed."""

    WRITE_THROUGH = "write-through"
    VOLATILE = "volatile"  # lost with the power


class TcmLoop(msgspec.Struct, frozen=True, tag_field="kind", tag="tcm-loop"):
    """A disk of the kernel's SCSI target (LIO) over `backing`, on the guest's own SCSI bus.

    Write-through: a file or block device, by a loop device. Volatile: a block device that holds data over a power cut, such
    as /dev/ubda; what is not flushed lies in the guest's page cache and goes with it.
    """

    name: str
    backing: str
    size_bytes: int
    block_bytes: int = _SECTOR_BYTES
    cache: Cache = Cache.WRITE_THROUGH


Spec: TypeAlias = ScsiDebug | TcmLoop


@contextmanager
def make(spec: Spec) -> Iterator[GuestDisk]:
    """A disk for as long as the context lasts. To be called in a guest, as root. Raises LabError, DiskError."""
    load_modules("sg", "sd_mod")
    with ExitStack() as undo:
        events = undo.enter_context(DeviceEvents())
        bus_path = _scsi_debug(spec, undo) if isinstance(spec, ScsiDebug) else _tcm_loop(spec, undo)
        yield describe(events, bus_path)


def describe(events: DeviceEvents, bus_path: str) -> GuestDisk:
    """Waits until the kernel has read the partition table of the disk at `bus_path`; says what it knows. Raises LabError.

    `bus_path` is a pattern for the last folders of the SCSI device in sysfs; `events` began before the disk did.
    """
    found = events.wait("the disk", rf"add@(/devices/.*/{bus_path})/block/([^/]+)", Deadline.after(_NODE_S))
    device = Path(f"/sys{found[1]}")
    block = device / "block" / found[2]
    (sg,) = (device / "scsi_generic").iterdir()
    page = (device / "vpd_pg80").read_bytes()  # SPC-4 7.8.16: the serial number follows four bytes of header
    return GuestDisk(
        sg=f"/dev/{sg.name}",
        block=f"/dev/{block.name}",
        wwn=(device / "wwid").read_text().strip(),
        serial=page[4:].decode("ascii").strip(" \0"),
        vendor=(device / "vendor").read_text().strip(),
        model=(device / "model").read_text().strip(),
        size_bytes=int((block / "size").read_text()) * _SECTOR_BYTES,
        block_bytes=int((block / "queue/logical_block_size").read_text()),
    )


def _scsi_debug(spec: ScsiDebug, undo: ExitStack) -> str:
    """The bus path of a new host of scsi_debug. The first disk loads the module, the last one unloads it."""
    arguments = " ".join(spec.arguments())
    with _alone():
        before = _adapters()
        if before:
            loaded = _SCSI_DEBUG_LOADED.read_text() if _SCSI_DEBUG_LOADED.exists() else "other parameters"
            if loaded != arguments:
                raise LabError(f"scsi_debug of this kernel has {loaded}, not {arguments}: its disks share parameters")
            write(_SCSI_DEBUG / "add_host", "1")
        else:
            load_modules("scsi_debug", parameters=spec.arguments())
            _SCSI_DEBUG_LOADED.write_text(arguments)
        (adapter,) = _adapters() - before
    undo.callback(_remove_scsi_debug, adapter)
    return f"{adapter.name}/host[^/]*/target[^/]*/[^/]*"


def _remove_scsi_debug(adapter: Path) -> None:
    with _alone():
        device = _scsi_device(adapter)
        if device is not None:  # somebody may have pulled it
            write(device / "delete", "1")
        if not any(_scsi_device(adapter) for adapter in _adapters()):
            remove_module("scsi_debug")


def _adapters() -> set[Path]:
    return set(_SCSI_DEBUG.glob("adapter[0-9]*"))


def _scsi_device(adapter: Path) -> Path | None:
    return next(iter(adapter.resolve().glob("host*/target*/[0-9]*:*")), None)


@contextmanager
def _alone() -> Iterator[None]:
    """One program at a time adds or removes disks of scsi_debug."""
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _tcm_loop(spec: TcmLoop, undo: ExitStack) -> str:
    """The bus path of a new backstore of the kernel's target."""
    if spec.cache is Cache.VOLATILE:
        if not Path(spec.backing).is_block_device():
            raise LabError(f"{spec.backing} is no block device: a file of the launcher keeps what was not flushed")
        load_modules("target_core_mod", "target_core_file")
        store = f"fileio_0/{spec.name}"
        control = f"fd_dev_name={spec.backing},fd_dev_size={spec.size_bytes},fd_buffered_io=1"  # that makes it say WCE=1
    else:
        load_modules("loop", "target_core_mod", "target_core_iblock")
        loop = undo.enter_context(LoopDevice(spec.backing, spec.block_bytes))
        store, control = f"iblock_0/{spec.name}", f"udev_path={loop.path}"
    backstore = add_backstore(store, control, loopback_serial(spec.name), undo)
    write(backstore / "attrib/block_size", str(spec.block_bytes))
    return loopback_lun(backstore, spec.name, undo)


def loopback_serial(name: str) -> str:
    """A serial number for a disk, 25 hexadecimal digits: LIO makes the disk's NAA identifier of them.

    The bytes of its name where they fit, else a digest of it: two names, two serials.
    """
    digits = name.encode().hex()
    if len(digits) > _SERIAL_DIGITS:
        digits = hashlib.sha256(name.encode()).hexdigest()[:_SERIAL_DIGITS]
    return digits.ljust(_SERIAL_DIGITS, "0")


def add_backstore(store: str, control: str, serial: str, undo: ExitStack) -> Path:
    """A backstore ("fileio_0/NAME") of the kernel's target, enabled; its folder in configfs. Raises LabError."""
    backstore = configfs() / "target/core" / store
    backstore.mkdir(parents=True)
    undo.callback(backstore.rmdir)
    write(backstore / "control", control)
    write(backstore / "enable", "1")
    write(backstore / "wwn/vpd_unit_serial", serial)
    return backstore


def loopback_lun(backstore: Path, name: str, undo: ExitStack) -> str:
    """Shows a backstore on the guest's own SCSI bus; returns its bus path there, for `describe`. Raises LabError."""
    load_modules("tcm_loop")
    port = f"naa.6001405{zlib.crc32(name.encode()):09x}"
    group = configfs() / "target/loopback" / port / "tpgt_1"
    group.parent.parent.mkdir(exist_ok=True)
    for directory in (group.parent, group):
        directory.mkdir()
        undo.callback(directory.rmdir)
    write(group / "nexus", port)
    unit = group / "lun/lun_0"
    unit.mkdir()
    undo.callback(unit.rmdir)
    link = unit / "disk"
    link.symlink_to(backstore)
    undo.callback(link.unlink)
    return f"{(group / 'address').read_text().strip()}:0"


def main(argv: Sequence[str]) -> int:
    """Makes the disks, prints their identities, waits for an empty line or SIGTERM, removes the disks."""
    told = requests()
    with ExitStack() as stack:
        for text in argv[1:]:
            disk = stack.enter_context(make(msgspec.json.decode(text, type=Spec)))
            print(msgspec.json.encode(disk).decode(), flush=True)
        for line in told:
            print(f"no request is known here: {line!r}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
