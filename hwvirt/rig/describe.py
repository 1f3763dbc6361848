"""A rig in words: for the console, for the lock file, for `--dry-run`."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, TextIO

from hwvirt.disk.guard.admit import admit
from hwvirt.rig.file.model import DiskSpec, Ethernet, Forward, Frozen, LoopSpec, Redirect, Rig, Serial, SgSpec
from hwvirt.rig.file.scenario import Judge, Step, Workload
from hwvirt.rig.steps import name_of
from hwvirt.units import format_size

__all__ = ["detail_of", "locked", "print_dry_run", "topology"]


def detail_of(step: Step) -> str:
    """What a step is about: "a/0, 20000 ops, depth 32"."""
    if isinstance(step, Judge):
        return ", ".join(name.value for name in step.properties) if step.properties else "all"
    if isinstance(step, Workload):
        return f"{step.controller}/{step.lun}, {step.ops} ops, depth {step.depth}"
    lun = getattr(step, "lun", None)
    return step.controller if lun is None else f"{step.controller}/{lun}"


def topology(rig: Rig) -> dict[str, Any]:
    """Host path, link and the disk below each controller."""
    return {
        "host": rig.host.path.value,
        "link": "ethernet" if isinstance(rig.link, Ethernet) else "serial",
        "controllers": {name: spec.disk for name, spec in rig.controllers.items()},
    }


def locked(rig: Rig) -> dict[str, Any]:
    """The rig as it was resolved: identities, sizes, places, seed."""
    return {
        "rig": rig.name,
        "file": str(rig.path),
        "seed": rig.seed,
        "disks": {
            name: {
                "kind": type(disk).__name__.removesuffix("Spec").lower(),
                "block_bytes": disk.block_bytes,
                "window": list(disk.window),
                **_identity(disk),
            }
            for name, disk in rig.disks.items()
        },
        "controllers": {
            name: {
                "disk": spec.disk,
                "luns": {number: _lun_words(rig, name, number) for number in spec.luns},
                "store": list(store) if (store := rig.layout[name].store) else None,
            }
            for name, spec in rig.controllers.items()
        },
    }


def _identity(disk: DiskSpec) -> dict[str, Any]:
    if isinstance(disk, SgSpec):
        return {"wwn": disk.wwn, "serial": disk.serial, "size_bytes": disk.size_bytes}
    return {"node": disk.node.value, "size_bytes": disk.size_bytes} if isinstance(disk, LoopSpec) else {}


def _lun_words(rig: Rig, controller: str, number: int) -> str:
    spec = rig.controllers[controller].luns[number]
    if isinstance(spec, Forward):
        return f"forward to {spec.controller}/{spec.lun}"
    extent = rig.extent(controller, number)
    place = f"blocks {extent.lba} to {extent.lba + extent.blocks - 1}"
    if isinstance(spec, Frozen):
        return f"frozen, shows LUN {spec.of}: {place}"
    return f"redirect to {spec.to}: {place}" if isinstance(spec, Redirect) else f"own: {place}"


def print_dry_run(rig: Rig, out: TextIO) -> None:
    """Prints what a run would make and do, in order. Makes nothing and writes nothing.

    Real disks go through all of the guard, together. Raises WrongDisk for one that a run would be refused, DiskError.
    """
    with ExitStack() as claims:
        for name, disk in rig.disks.items():
            size = format_size(disk.window.blocks * disk.block_bytes)
            if isinstance(disk, SgSpec):
                identity = claims.enter_context(admit(disk, rig.name, name)).identity
                lba, blocks = disk.window
                print(f"would use disk {name}: {identity}, blocks {lba} to {lba + blocks - 1}, {size}", file=out)
            else:
                print(f"would make disk {name}: {size}", file=out)
    devices = rig.link.devices if isinstance(rig.link, Serial) else None
    for name, device in (devices or {}).items():
        print(f"would use {device} as the end of the serial line at controller {name}", file=out)
    for name, controller in locked(rig)["controllers"].items():
        print(f"would start controller {name} on disk {controller['disk']}", file=out)
        for number, words in controller["luns"].items():
            print(f"    LUN {number}: {words}", file=out)
        if controller["store"]:
            lba, blocks = controller["store"]
            print(f"    store: blocks {lba} to {lba + blocks - 1}", file=out)
    for scenario in rig.scenarios:
        print(f"scenario: {scenario.name}", file=out)
        for step in scenario.steps:
            print(f"    would {name_of(step)} {detail_of(step)}", file=out)
