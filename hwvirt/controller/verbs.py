"""What the control socket can be asked: `hwvirt ctl SOCKET VERB [KEY=VALUE ...]`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hwvirt.controller.control import Verb
from hwvirt.controller.correlation import Rows
from hwvirt.controller.lifecycle import Lifecycle
from hwvirt.controller.position import MAPPED, ZERO, unpack
from hwvirt.controller.redirect import RedirectVolume
from hwvirt.errors import ControllerError

if TYPE_CHECKING:
    from hwvirt.controller.daemon import Controller

__all__ = ["verbs_of"]

STRIP_CELLS = 64
_PAGE_ROWS = 8192


def verbs_of(controller: Controller) -> Mapping[str, Verb]:
    """The verbs of one controller. Arguments: `lun` where a unit is meant, `after` and `limit` for pages."""

    async def status(_: dict[str, Any]) -> Any:
        return _status(controller)

    async def correlation(arguments: dict[str, Any]) -> Any:
        return _map(_redirect(controller, arguments), arguments)

    async def ledger(arguments: dict[str, Any]) -> Any:
        if controller.store is None:
            raise ControllerError(f"controller {controller.config.name} has no store.")
        return _ledger(controller.store.records.rows(), arguments)

    async def flush(arguments: dict[str, Any]) -> Any:
        unit = controller.units[int(arguments.get("lun", 0))]
        if unit.volume is not None and (failed := await unit.volume.flush()):
            raise ControllerError(f"flush: {failed}")
        return {}

    async def redirect(arguments: dict[str, Any]) -> Any:
        await _lifecycle(controller, arguments).redirect()
        return {"state": _redirect(controller, arguments).state.value}

    async def commit(arguments: dict[str, Any]) -> Any:
        """`wait`: answers when everything is written back."""
        lifecycle = _lifecycle(controller, arguments)
        await lifecycle.commit()
        if arguments.get("wait"):
            await lifecycle.settled()
        return {"state": _redirect(controller, arguments).state.value}

    async def discard(arguments: dict[str, Any]) -> Any:
        await _lifecycle(controller, arguments).discard()
        return {"state": _redirect(controller, arguments).state.value}

    return {
        "status": status,
        "map": correlation,
        "ledger": ledger,
        "flush": flush,
        "redirect": redirect,
        "commit": commit,
        "discard": discard,
    }


def _redirect(controller: Controller, arguments: dict[str, Any]) -> RedirectVolume:
    number = int(arguments.get("lun", 0))
    unit = controller.units.get(number)
    if unit is None or unit.redirect is None:
        able = [str(lun) for lun, unit in controller.units.items() if unit.redirect is not None]
        raise ControllerError(
            f"LUN {number} of controller {controller.config.name} does not redirect.",
            next_step=f"LUNs that do: {', '.join(able) or 'none'}.",
        )
    return unit.redirect


def _lifecycle(controller: Controller, arguments: dict[str, Any]) -> Lifecycle:
    _redirect(controller, arguments)
    lifecycle = controller.units[int(arguments.get("lun", 0))].lifecycle
    assert lifecycle is not None
    return lifecycle


def _map(volume: RedirectVolume, arguments: dict[str, Any]) -> dict[str, Any]:
    """A page of the map: rows [lba, blocks, position, generation, sequence]; position is null where blocks read zero."""
    rows = volume.map.rows()
    rows = rows[(rows["position"] >= MAPPED) | (rows["position"] == ZERO)]
    page, following = _page(rows, arguments)
    entries = []
    for lba, blocks, position, sequence in page.tolist():
        if position >= MAPPED:
            place = unpack(position)
            entries.append([lba, blocks, place.lba, place.generation, sequence])
        else:
            entries.append([lba, blocks, None, 0, sequence])
    return {"state": volume.state.value, "rows": entries, "next": following}


def _ledger(rows: Rows, arguments: dict[str, Any]) -> dict[str, Any]:
    """A page of the ledger: rows [position, generation, crc, lba, sequence, volume, kind]; kind 1 live, 2 tombstone."""
    page, following = _page(rows, arguments)
    return {"rows": [list(row) for row in page.tolist()], "next": following}


def _page(rows: Rows, arguments: dict[str, Any]) -> tuple[Rows, int | None]:
    start = int(arguments.get("after", 0))
    end = start + min(int(arguments.get("limit", _PAGE_ROWS)), _PAGE_ROWS)
    return rows[start:end], end if end < len(rows) else None


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
        },
    }


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
