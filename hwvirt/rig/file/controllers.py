"""The `controllers:` part of a rig file: who owns which disk, what each presents, where redirected blocks go."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hwvirt.blame import suggestion
from hwvirt.rig.file.item import Item
from hwvirt.rig.file.layout import LayoutError, lay_out
from hwvirt.rig.file.model import (
    ControllerSpec,
    DiskSpec,
    Forward,
    Frozen,
    LunSpec,
    Overcommit,
    Own,
    Placement,
    Redirect,
    StoreSpec,
)

__all__ = ["LUN_ADDRESS", "NAME", "NAME_RULE", "parse_controllers"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,47}")
NAME_RULE = "Names have letters, digits and _ . - and at most 48 of them; the first is a letter or digit."
LUN_ADDRESS = re.compile(r"(?:([^/]+)/)?([0-9]{1,3})")
_MODES = ("own", "redirect", "frozen", "forward")
_MOST_LUNS = 256
_MOST_CONTROLLERS = 2


@dataclass(frozen=True, slots=True)
class _Draft:
    """A controller as it is written: the items to blame, and the mode of each LUN with its options."""

    fields: Mapping[str, Item]
    luns: Mapping[int, tuple[str, Item]]

    def of_mode(self, mode: str) -> list[int]:
        return [number for number, (kind, _) in self.luns.items() if kind == mode]


def parse_controllers(
    item: Item, disks: Mapping[str, DiskSpec]
) -> tuple[Mapping[str, ControllerSpec], Mapping[str, Placement]]:
    """The controllers, with every name resolved, and where their volumes lie."""
    drafts = {key.name(NAME, NAME_RULE): _draft(value) for key, value in item.entries()}
    if not 1 <= len(drafts) <= _MOST_CONTROLLERS:
        raise item.error(f"a rig has one controller or two, not {len(drafts)}")
    owners: dict[str, str] = {}
    for name, draft in drafts.items():
        disk = draft.fields["disk"].one_of(disks, "disk")
        if disk in owners:
            raise draft.fields["disk"].error(f"disk {disk!r} already belongs to controller {owners[disk]}")
        owners[disk] = name

    luns = {name: _luns(name, drafts) for name in drafts}
    controllers = {}
    for disk, name in owners.items():
        sources = [n for n, specs in luns.items() for lun in specs.values() if isinstance(lun, Redirect) and lun.to == name]
        _check_blocks_match(drafts[name], disk, sources, drafts, disks)
        controllers[name] = ControllerSpec(name, disk, MappingProxyType(luns[name]), _store(drafts[name], name, sources))
    try:
        layout = lay_out(controllers, disks)
    except LayoutError as error:
        draft = drafts[error.controller]
        blamed = draft.fields.get("store", draft.fields["disk"]) if error.lun is None else draft.luns[error.lun][1]
        raise blamed.error(error.reason, error.next_step) from error
    return MappingProxyType(controllers), MappingProxyType(layout)


def _draft(item: Item) -> _Draft:
    found = item.fields(("disk",), ("luns", "store"))
    luns = {}
    for key, value in found["luns"].entries() if "luns" in found else ():
        kind, options, _ = value.choice(_MODES)
        luns[key.integer(0, _MOST_LUNS - 1, "the number of a LUN")] = kind, options
    return _Draft(found, dict(sorted(luns.items())))


def _luns(name: str, drafts: Mapping[str, _Draft]) -> dict[int, LunSpec]:
    return {number: _lun(name, kind, options, drafts) for number, (kind, options) in drafts[name].luns.items()}


def _lun(name: str, kind: str, item: Item, drafts: Mapping[str, _Draft]) -> LunSpec:
    match kind:
        case "own":
            return Own(_size(item))
        case "redirect":
            others = [other for other in drafts if other != name]
            if not others:
                raise item.error("the rig has no second controller to redirect to")
            return Redirect(others[0], _size(item))
        case "frozen":
            return _frozen(name, item, drafts[name].of_mode("redirect"))
    return _forward(name, item, drafts)


def _size(item: Item) -> int | None:
    found = item.fields((), ("size",))
    return found["size"].size() if "size" in found else None


def _frozen(name: str, item: Item, redirected: list[int]) -> Frozen:
    if item.is_scalar:
        of = item.integer(0)
        if of not in redirected:
            raise item.error(f"LUN {of} of controller {name} is no redirect LUN", "Only those have a frozen original.")
        return Frozen(of)
    item.fields(())
    if not redirected:
        raise item.error(f"controller {name} has no redirect LUN", "Only those have a frozen original.")
    if len(redirected) > 1:
        raise item.error(f"controller {name} has several redirect LUNs", f"Name one: {{frozen: {redirected[0]}}}.")
    return Frozen(redirected[0])


def _forward(name: str, item: Item, drafts: Mapping[str, _Draft]) -> Forward:
    match = LUN_ADDRESS.fullmatch(item.text())
    if match is None or match[1] is None:
        raise item.error(f"{item.text()!r} is no LUN of a controller; write it like b/0")
    other, number = match[1], int(match[2])
    if other == name:
        raise item.error(f"controller {name} cannot forward to itself")
    if other not in drafts:
        raise item.error(f"the rig has no controller {other!r}", suggestion(other, drafts))
    far = drafts[other].luns
    if number not in far:
        known = ", ".join(map(str, far)) or "none"
        raise item.error(f"controller {other} has no LUN {number}", f"Its LUNs: {known}.")
    if far[number][0] == "forward":
        raise item.error(f"{other}/{number} is forwarded itself", "A request is passed on once.")
    return Forward(other, number)


def _store(draft: _Draft, name: str, sources: list[str]) -> StoreSpec | None:
    if "store" not in draft.fields:
        return StoreSpec() if sources else None
    item = draft.fields["store"]
    if not sources:
        raise item.error(f"nobody redirects to controller {name}", "Take the store out, or redirect a LUN to it.")
    found = item.fields((), ("size", "overcommit"))
    return StoreSpec(
        found["size"].size() if "size" in found else None,
        found["overcommit"].word(Overcommit) if "overcommit" in found else Overcommit.REFUSE,
    )


def _check_blocks_match(
    draft: _Draft, disk: str, sources: list[str], drafts: Mapping[str, _Draft], disks: Mapping[str, DiskSpec]
) -> None:
    for source in sources:
        first = drafts[source].fields["disk"].text()
        first_bytes, second_bytes = disks[first].block_bytes, disks[disk].block_bytes
        if first_bytes != second_bytes:
            raise draft.fields["disk"].error(
                f"blocks of {second_bytes} bytes on disk {disk} cannot hold those of {first_bytes} bytes on disk {first}",
                "Give both disks the same block size.",
            )
