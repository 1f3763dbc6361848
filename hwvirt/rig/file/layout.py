"""Where volumes and stores lie on the disks. Pure: the same rig always gives the same layout.

Rule 1: logical units lie in the order of their numbers, from the start of the disk's window, without gaps.
Rule 2: a unit without a size takes what the others leave; beside a store without a size it takes a quarter of the window.
Rule 3: the store follows the units; without a size it reaches to the end of the window.
Rule 4: a store holds every block that redirection can send to it, and an eighth more, unless it may be overcommitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from hwvirt.rig.file.model import ControllerSpec, DiskSpec, Overcommit, Own, Placement, Redirect, StoreSpec
from hwvirt.scsi.volume import Extent
from hwvirt.units import format_size

__all__ = ["LayoutError", "lay_out"]

_QUARTER = 4
_SLACK = 8


class LayoutError(Exception):
    """Volumes that do not fit. `lun` tells whose fault it is: a logical unit of `controller`, or (None) its store."""

    def __init__(self, controller: str, lun: int | None, reason: str, next_step: str = "") -> None:
        self.controller, self.lun, self.reason, self.next_step = controller, lun, reason, next_step
        super().__init__(reason)


def lay_out(controllers: Mapping[str, ControllerSpec], disks: Mapping[str, DiskSpec]) -> dict[str, Placement]:
    """The placement of every controller. Raises LayoutError for the first volume that does not fit."""
    layout = {name: _place(spec, disks[spec.disk]) for name, spec in controllers.items()}
    for name, spec in controllers.items():
        if spec.store and spec.store.overcommit is Overcommit.REFUSE:
            _check_room(spec, disks[spec.disk], layout[name], _redirected_blocks(name, controllers, layout))
    return layout


def _place(spec: ControllerSpec, disk: DiskSpec) -> Placement:
    window = disk.window
    sizes = {number: lun.size_bytes for number, lun in spec.luns.items() if isinstance(lun, Own | Redirect)}
    blocks = {number: _blocks(spec, number, size, disk) for number, size in sizes.items() if size is not None}
    store_blocks = _blocks(spec, None, spec.store.size_bytes, disk) if spec.store and spec.store.size_bytes else 0
    if store_blocks > window.blocks:
        over = store_blocks - window.blocks
        raise LayoutError(spec.name, None, f"the store has {over} blocks more than {_described(spec, disk)}")
    open_ended = [number for number, size in sizes.items() if size is None]
    if len(open_ended) > 1:
        first, second = open_ended[:2]
        raise LayoutError(
            spec.name, second, f"LUNs {first} and {second} both have no size", "Only one LUN can take the rest of the disk."
        )
    for number in open_ended:
        rest = window.blocks - sum(blocks.values()) - store_blocks
        blocks[number] = min(rest, window.blocks // _QUARTER) if _reaches_to_the_end(spec.store) else rest
        if blocks[number] < 1:
            raise LayoutError(spec.name, number, f"nothing of {_described(spec, disk)} is left for LUN {number}")

    lba, luns = window.lba, {}
    end = window.lba + window.blocks
    for number in sizes:
        luns[number] = Extent(lba, blocks[number])
        lba += blocks[number]
        if lba > end:
            raise LayoutError(spec.name, number, f"LUN {number} ends {lba - end} blocks behind {_described(spec, disk)}")
    return Placement(MappingProxyType(luns), _store(spec, disk, Extent(lba, end - lba), store_blocks))


def _store(spec: ControllerSpec, disk: DiskSpec, rest: Extent, wanted_blocks: int) -> Extent | None:
    if spec.store is None:
        return None
    if rest.blocks < max(1, wanted_blocks):
        wanted = f", it wants {wanted_blocks}" if wanted_blocks else ""
        left = f"{rest.blocks} blocks of {_described(spec, disk)} are left for the store"
        raise LayoutError(spec.name, None, left + wanted)
    return Extent(rest.lba, wanted_blocks or rest.blocks)


def _redirected_blocks(to: str, controllers: Mapping[str, ControllerSpec], layout: Mapping[str, Placement]) -> int:
    return sum(
        layout[name].luns[number].blocks
        for name, spec in controllers.items()
        for number, lun in spec.luns.items()
        if isinstance(lun, Redirect) and lun.to == to
    )


def _check_room(spec: ControllerSpec, disk: DiskSpec, placement: Placement, redirected: int) -> None:
    needed = redirected + -(-redirected // _SLACK)
    store = placement.store
    if store is not None and store.blocks < needed:
        reason = (
            f"second disk too small: the store on disk {spec.disk} has {store.blocks} blocks, redirection can fill "
            f"{redirected} and needs {needed} with an eighth to spare"
        )
        next_step = (
            f"Give the store {format_size(needed * disk.block_bytes)}, on a bigger disk where it must be, or write "
            "`store: {overcommit: allow}` and expect writes to fail once it is full."
        )
        raise LayoutError(spec.name, None, reason, next_step)


def _reaches_to_the_end(store: StoreSpec | None) -> bool:
    return store is not None and store.size_bytes is None


def _blocks(spec: ControllerSpec, lun: int | None, size_bytes: int, disk: DiskSpec) -> int:
    if size_bytes % disk.block_bytes:
        whose = "the store" if lun is None else f"LUN {lun}"
        raise LayoutError(
            spec.name, lun, f"{whose} is {size_bytes} bytes, not a whole number of {disk.block_bytes}-byte blocks"
        )
    return size_bytes // disk.block_bytes


def _described(spec: ControllerSpec, disk: DiskSpec) -> str:
    return f"disk {spec.disk} ({disk.window.blocks} blocks of {disk.block_bytes} bytes)"
