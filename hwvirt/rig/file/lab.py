"""The `lab:` part of a rig file, and which disks its kernels can have."""

from __future__ import annotations

from collections.abc import Mapping

from hwvirt.rig.file.item import Item
from hwvirt.rig.file.model import ControllerSpec, DiskSpec, Kernels, LabDisk, LabSpec, ScsiDebugSpec, SgSpec
from hwvirt.units import format_size

__all__ = ["check_disks", "parse_lab"]


def parse_lab(item: Item, controllers: Mapping[str, ControllerSpec]) -> LabSpec:
    """How many kernels there are."""
    kernels = item.fields(("kernels",))["kernels"]
    lab = LabSpec(kernels.word(Kernels))
    if lab.kernels is Kernels.EACH and len(controllers) < 2:
        raise kernels.error("a kernel for each controller needs two controllers")
    return lab


def check_disks(
    item: Item, disks: Mapping[str, DiskSpec], controllers: Mapping[str, ControllerSpec], lab: LabSpec
) -> None:
    """Every disk can be where the rig runs: what else a kernel would say when it is up. `item` is the rig's `disks`."""
    blamed = {key.text(): value for key, value in item.entries()}
    if lab.kernels is Kernels.EACH:
        for name, spec in controllers.items():
            if not isinstance(disks[spec.disk], LabDisk):
                raise blamed[spec.disk].error(
                    f"the kernel of controller {name} makes scsi-debug, tcm-loop and tcmu disks only",
                    "Use one of these, or one kernel for all: `lab: {kernels: shared}`.",
                )
    made = {name: disk for name, disk in disks.items() if isinstance(disk, LabDisk)}
    for name, disk in disks.items():
        if made and isinstance(disk, SgSpec):
            raise blamed[name].error(
                f"no real disk is there: the rig runs in the lab, where {next(iter(made))} is made",
                "Put real disks into a rig without scsi-debug, tcm-loop and tcmu disks.",
            )
    if lab.kernels is Kernels.SHARED:
        _check_shared({name: disk for name, disk in made.items() if isinstance(disk, ScsiDebugSpec)}, blamed)


def _check_shared(disks: Mapping[str, ScsiDebugSpec], blamed: Mapping[str, Item]) -> None:
    """The driver's parameters are those of all its disks."""
    first = next(iter(disks), "")
    for name, disk in disks.items():
        if disk != disks[first]:
            raise blamed[name].error(
                f"{_shape(disk)}, and {first} {_shape(disks[first])}: all scsi-debug disks of a kernel are alike",
                "Give them one size and one block size, or each controller a kernel: `lab: {kernels: each}`.",
            )


def _shape(disk: ScsiDebugSpec) -> str:
    return f"has {format_size(disk.size_bytes)} in blocks of {format_size(disk.block_bytes)}"
