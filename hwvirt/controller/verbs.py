"""What the control socket can be asked: `hwvirt ctl SOCKET VERB [KEY=VALUE ...]`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from hwvirt.controller.config import LunNumber
from hwvirt.controller.control import Verb
from hwvirt.controller.ledger import Ledger
from hwvirt.controller.lifecycle import Lifecycle
from hwvirt.controller.misfit import read_arguments
from hwvirt.controller.position import MAPPED, unpack
from hwvirt.controller.redirect import RedirectVolume
from hwvirt.controller.units import Unit
from hwvirt.disk.discovery.removable import Presence, RemovableDisk
from hwvirt.disk.disk import Disk
from hwvirt.errors import ControllerError, UsageError
from hwvirt.scsi.cdb import synchronize_cache_16
from hwvirt.scsi.command import Command
from hwvirt.scsi.sense import decode_sense

if TYPE_CHECKING:
    from hwvirt.controller.daemon import Controller

__all__ = ["disk_state", "verbs_of"]

STRIP_CELLS = 64
_PAGE_ROWS = 8192


class _Nothing(msgspec.Struct, forbid_unknown_fields=True):
    pass


class _OfUnit(msgspec.Struct, forbid_unknown_fields=True):
    lun: LunNumber = 0


class _Commit(_OfUnit, forbid_unknown_fields=True):
    wait: bool = False


class _Page(msgspec.Struct, forbid_unknown_fields=True):
    after: Annotated[int, Meta(ge=0)] = 0
    limit: Annotated[int, Meta(ge=1)] = _PAGE_ROWS


class _MapPage(_Page, forbid_unknown_fields=True):
    lun: LunNumber = 0


def verbs_of(controller: Controller) -> Mapping[str, Verb]:
    """The verbs of one controller. Arguments: `lun` where a unit is meant, `after` and `limit` for pages.

    They raise UsageError for arguments that are not theirs.
    """

    async def status(arguments: dict[str, Any]) -> Any:
        read_arguments(arguments, _Nothing)
        return _status(controller)

    async def correlation(arguments: dict[str, Any]) -> Any:
        asked = read_arguments(arguments, _MapPage)
        return _map(_redirecting(controller, asked.lun)[0], asked)

    async def ledger(arguments: dict[str, Any]) -> Any:
        asked = read_arguments(arguments, _Page)
        if controller.store is None:
            raise UsageError(
                f"controller {controller.config.name} has no store.", next_step="Ask the controller that stores."
            )
        return _ledger(controller.store.records, asked)

    async def flush(arguments: dict[str, Any]) -> Any:
        await _flush(_unit(controller, read_arguments(arguments, _OfUnit).lun))
        return {}

    async def redirect(arguments: dict[str, Any]) -> Any:
        volume, lifecycle = _redirecting(controller, read_arguments(arguments, _OfUnit).lun)
        await lifecycle.redirect()
        return {"state": volume.state.value}

    async def commit(arguments: dict[str, Any]) -> Any:
        """`wait`: answers when everything is written back."""
        asked = read_arguments(arguments, _Commit)
        volume, lifecycle = _redirecting(controller, asked.lun)
        await lifecycle.commit()
        if asked.wait:
            await lifecycle.settled()
        return {"state": volume.state.value}

    async def discard(arguments: dict[str, Any]) -> Any:
        volume, lifecycle = _redirecting(controller, read_arguments(arguments, _OfUnit).lun)
        await lifecycle.discard()
        return {"state": volume.state.value}

    return {
        "status": status,
        "map": correlation,
        "ledger": ledger,
        "flush": flush,
        "redirect": redirect,
        "commit": commit,
        "discard": discard,
    }


def _unit(controller: Controller, lun: int) -> Unit:
    unit = controller.units.get(lun)
    if unit is None:
        known = ", ".join(map(str, controller.units)) or "none"
        raise UsageError(f"controller {controller.config.name} has no LUN {lun}.", next_step=f"Its LUNs: {known}.")
    return unit


def _redirecting(controller: Controller, lun: int) -> tuple[RedirectVolume, Lifecycle]:
    unit = _unit(controller, lun)
    if unit.redirect is None or unit.lifecycle is None:
        able = [str(number) for number, unit in controller.units.items() if unit.redirect is not None]
        raise UsageError(
            f"LUN {lun} of controller {controller.config.name} does not redirect.",
            next_step=f"LUNs that do: {', '.join(able) or 'none'}.",
        )
    return unit.redirect, unit.lifecycle


async def _flush(unit: Unit) -> None:
    """Raises CheckCondition. A forwarded unit is flushed where it is."""
    if unit.volume is not None:
        if failed := await unit.volume.flush():
            raise failed
        return
    (ended,) = await unit.meter.execute([Command(synchronize_cache_16())])
    if not ended.good:
        raise ControllerError(f"the other controller: {decode_sense(ended.sense)}.")


def _map(volume: RedirectVolume, asked: _Page) -> dict[str, Any]:
    """A page of the map: rows [lba, blocks, position, generation, sequence]; position is null where blocks read zero."""
    page, following = volume.map.page(asked.after, min(asked.limit, _PAGE_ROWS))
    entries = []
    for lba, blocks, position, sequence in page.tolist():
        if position >= MAPPED:
            place = unpack(position)
            entries.append([lba, blocks, place.lba, place.generation, sequence])
        else:
            entries.append([lba, blocks, None, 0, sequence])
    return {"state": volume.state.value, "rows": entries, "next": following}


def _ledger(records: Ledger, asked: _Page) -> dict[str, Any]:
    """A page of the ledger: rows [position, generation, crc, lba, sequence, volume, kind]; kind 1 live, 2 tombstone."""
    page, following = records.listing(asked.after, min(asked.limit, _PAGE_ROWS))
    return {"rows": [list(row) for row in page.tolist()], "next": following}


def _status(controller: Controller) -> dict[str, Any]:
    config = controller.config
    return {
        "controller": config.name,
        "ready": controller.ready,
        "pid": controller.pid,
        "epoch": f"{controller.boot_epoch:014x}",
        "uptime_s": round(controller.uptime_s(), 3),
        "link": controller.link.status() if controller.link else None,
        "luns": [_lun(controller, number) for number in controller.units],
        "store": controller.store.status() if controller.store else None,
        "disk": {
            "name": config.disk.name,
            "path": config.disk.path,
            "block_bytes": config.disk.block_bytes,
            "blocks": controller.disk_blocks,
            "state": disk_state(controller.disk),
        },
    }


def disk_state(disk: Disk | None) -> str:
    """ "present", or "removed" when it was pulled."""
    presence = disk.look() if isinstance(disk, RemovableDisk) else Presence.PRESENT
    return presence.name.lower()


def _lun(controller: Controller, number: int) -> dict[str, Any]:
    unit = controller.units[number]
    nbd = controller.config.nbd
    found: dict[str, Any] = {
        "lun": number,
        "mode": unit.config.mode,
        "state": "",
        "blocks": unit.config.blocks,
        "block_bytes": unit.block_bytes,
        "export": f"nbd://{nbd.host}:{controller.nbd_port}/lun{number}" if controller.nbd_port else "",
        "counters": unit.meter.counters,
        "latency_us": unit.meter.latency_us(),
    }
    if unit.config.mode == "forward" and controller.config.link:
        found["target"] = f"{controller.config.link.peer}/{unit.config.remote_lun}"
    if unit.redirect is not None:
        volume = unit.redirect
        found |= {
            "state": volume.state.value,
            "mapped_blocks": volume.map.mapped_blocks,
            "zero_blocks": volume.map.zero_blocks,
            "unflushed_bytes": volume.unflushed.size_bytes,
            "strip": volume.map.strip(STRIP_CELLS),
        }
    return found
