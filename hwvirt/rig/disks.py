"""Disks of a bench: made for the run, and given back when it ends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hwvirt.disk.disk import Disk
from hwvirt.disk.guard.admit import Admitted, admit
from hwvirt.disk.loop import LoopDisk, create_image
from hwvirt.disk.loopdev import LoopDevice
from hwvirt.disk.open import DiskKind
from hwvirt.disk.passthrough import SgDisk
from hwvirt.disk.witness import Record, read_witness
from hwvirt.errors import InfrastructureError
from hwvirt.lab.disks import Cache, ScsiDebug, Spec, TcmLoop, make
from hwvirt.lab.tcmu import ServedDisk, Tcmu, serve
from hwvirt.rig.file.model import Backing, DiskSpec, LabDisk, LoopNode, Rig, ScsiDebugSpec, SgSpec, TcmuSpec
from hwvirt.scsi.volume import Access

__all__ = ["BenchDisk", "guest_spec", "needs_lab", "prepare_disk", "volatile_devices"]

_BACKING = "HWVIRT_BACKING"


@dataclass(frozen=True, slots=True)
class BenchDisk:
    """Where a disk of the rig is while it is up."""

    kind: DiskKind
    path: str
    block_bytes: int
    witness_path: Path
    admitted: Admitted | None = None
    """A real disk: the guard has let the rig have it, and holds it."""
    served: ServedDisk | None = None
    """A tcmu disk: its device server, which knows how often the rig's faults of it have struck."""

    def recheck(self) -> None:
        """Before a controller opens it: a real disk is still the one that was admitted. Raises WrongDisk, DiskError."""
        if self.admitted is not None:
            self.admitted.recheck()

    def open_for_judge(self) -> Disk:
        """The disk itself, for reading only, past the controller that has it."""
        if self.kind == "file":
            return LoopDisk(self.path, self.block_bytes, access=Access.READ_ONLY)
        return SgDisk(self.path, access=Access.READ_ONLY)

    def witnessed(self) -> list[Record]:
        """The medium-changing CDBs that the disk was sent. Raises DiskError, also when nobody has written them down."""
        return read_witness(str(self.witness_path))


def needs_lab(rig: Rig) -> bool:
    """Whether the rig has disks that only a kernel of the lab is asked to make."""
    return any(isinstance(disk, LabDisk) for disk in rig.disks.values())


def volatile_devices(devices: Mapping[str, str]) -> dict[str, str]:
    """The environment that tells a guest which block device keeps the data of which disk with a volatile cache, by name."""
    return {_BACKING: msgspec.json.encode(devices).decode()}


def _volatile_device(name: str) -> str | None:
    """What `volatile_devices` says of a disk, in the guest."""
    return msgspec.json.decode(os.environ.get(_BACKING, "{}"), type=dict[str, str]).get(name)


def prepare_disk(rig: Rig, name: str, folder: Path, stack: ExitStack) -> BenchDisk:
    """Makes a disk, or claims a real one until the stack ends; the undoing is on the stack.

    Raises WrongDisk for a real disk that the rig must not write, InfrastructureError for one that cannot be made here.
    """
    spec = rig.disks[name]
    witness = folder / f"{name}.witness"
    if isinstance(spec, LabDisk):
        wanted = guest_spec(name, spec, folder, stack)
        if isinstance(wanted, Tcmu):
            served = stack.enter_context(serve(wanted))
            return BenchDisk("sg", served.disk.sg, served.disk.block_bytes, witness, served=served)
        made = stack.enter_context(make(wanted))
        return BenchDisk("sg", made.sg, made.block_bytes, witness)
    if isinstance(spec, SgSpec):
        admitted = stack.enter_context(admit(spec, rig.name, name))
        return BenchDisk("sg", admitted.sg, spec.block_bytes, witness, admitted)
    image = _image(name, spec.size_bytes, folder, stack)
    if spec.node is LoopNode.FILE:
        return BenchDisk("file", str(image), spec.block_bytes, witness)
    device = stack.enter_context(LoopDevice(str(image), spec.block_bytes))
    return BenchDisk("file", device.path, spec.block_bytes, witness)


def _image(name: str, size_bytes: int, folder: Path, stack: ExitStack) -> Path:
    image = folder / "disks" / f"{name}.img"
    image.parent.mkdir(parents=True, exist_ok=True)
    create_image(image, size_bytes)
    stack.callback(image.unlink, missing_ok=True)
    return image


def guest_spec(
    name: str, spec: DiskSpec, folder: Path, stack: ExitStack, volatile: str | None = None
) -> Spec | Tcmu:
    """What a guest is asked to make; an image that the disk needs is made in `folder`, its removal is on the stack.

    `volatile`: the block device in the guest that keeps the data of a disk with a volatile cache; else the guest's
    environment names it (`volatile_devices`).
    Raises InfrastructureError for a disk that no guest makes.
    """
    if not isinstance(spec, LabDisk):
        raise InfrastructureError(f"disk {name}: a kernel of the lab makes scsi-debug, tcm-loop and tcmu disks only.")
    if isinstance(spec, TcmuSpec):
        return Tcmu(name, spec.size_bytes, spec.block_bytes, rules=spec.faults)
    if isinstance(spec, ScsiDebugSpec):
        return ScsiDebug(spec.size_bytes, spec.block_bytes)
    if spec.backing is Backing.LOOP:
        image = _image(name, spec.size_bytes, folder, stack)
        return TcmLoop(name, str(image), spec.size_bytes, spec.block_bytes)
    device = volatile or _volatile_device(name)
    if device is None:
        raise InfrastructureError(f"disk {name}: no block device for its data.", next_step="Run the rig in the lab.")
    return TcmLoop(name, device, spec.size_bytes, spec.block_bytes, Cache.VOLATILE)
