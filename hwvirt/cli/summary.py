"""What a rig file comes to, as text: the layout of its volumes, its scenarios."""

from __future__ import annotations

from rich.table import Table

from hwvirt.rig.file.model import Ethernet, Forward, Frozen, LinkSpec, LunSpec, Own, Redirect, Rig
from hwvirt.scsi.volume import Extent
from hwvirt.tables import Fit, plain_table, print_table
from hwvirt.units import format_duration, format_size

__all__ = ["show"]


def show(rig: Rig) -> None:
    """Prints the rig for people: its volumes and where they lie, its scenarios and what they expect."""
    print(f"{rig.path}: rig {rig.name}, seed {rig.seed}, host {rig.host.path.value}, {_link(rig.link)}")
    print_table(_layout(rig), Fit.WHOLE)
    for scenario in rig.scenarios:
        expected = ", ".join(expectation.text for expectation in scenario.expect) or "nothing in particular"
        print(f"scenario: {scenario.name} ({len(scenario.steps)} steps; expects {expected})")


def _layout(rig: Rig) -> Table:
    table = plain_table("controller", "LUN", "mode", "disk", "first LBA", "blocks", "size")

    def add(controller: str, lun: str, mode: str, disk: str, extent: Extent) -> None:
        size = format_size(extent.blocks * rig.disks[disk].block_bytes)
        table.add_row(controller, lun, mode, disk, str(extent.lba), str(extent.blocks), size)

    for controller in rig.controllers.values():
        for number, lun in controller.luns.items():
            end, _ = rig.resolve(controller.name, number)
            extent = rig.extent(controller.name, number)
            add(controller.name, str(number), _mode(lun), rig.controllers[end].disk, extent)
        store = rig.layout[controller.name].store
        if store is not None:
            add(controller.name, "", "store", controller.disk, store)
    return table


def _mode(lun: LunSpec) -> str:
    match lun:
        case Own():
            return "own"
        case Redirect(to):
            return f"redirect to {to}"
        case Frozen(of):
            return f"frozen {of}"
        case Forward(controller, number):
            return f"forward to {controller}/{number}"


def _link(link: LinkSpec) -> str:
    stall = f"stall {format_duration(link.stall_s)}"
    if isinstance(link, Ethernet):
        return f"link Ethernet, {stall}"
    ends = f" from {' to '.join(link.devices.values())}" if link.devices else ""
    return f"link serial at {link.baud} baud{ends}, {stall}"
