"""From a rig and the places where its parts are, the configuration of each controller. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

import msgspec

from hwvirt.controller.config import (
    UP_WITHIN_S,
    Config,
    DiskConfig,
    LinkConfig,
    LinkRole,
    LunConfig,
    NbdConfig,
    SerialConfig,
    StoreConfig,
    TlsConfig,
)
from hwvirt.controller.ledger import ROW
from hwvirt.disk.open import DiskKind
from hwvirt.link.baud import line_s
from hwvirt.link.config import line_handshake_s
from hwvirt.rig.file.model import ControllerSpec, Forward, Frozen, Redirect, Rig, Serial

__all__ = ["Places", "configure", "dialler", "slow_start_s"]

_HANDSHAKES = 2


@dataclass(frozen=True, slots=True)
class Places:
    """Where one controller finds its things, on the machine that it runs on. `link` is reached, or listened at."""

    folder: PurePath
    control: PurePath
    secret: PurePath
    disk_kind: DiskKind
    disk_path: str
    block_bytes: int
    link: tuple[str, int] | SerialConfig
    nbd_host: str = "127.0.0.1"
    tls: TlsConfig | None = None


def configure(rig: Rig, name: str, places: Places, *, redirect_at_start: bool) -> Config:
    """The configuration of controller `name`."""
    spec = rig.controllers[name]
    store = rig.layout[name].store
    peers = [other for other in rig.controllers if other != name]
    # The one that needs the other to start connects; the other one listens.
    role: LinkRole = "connect" if name == dialler(rig) else "listen"
    link = None
    if peers:
        reached = _reached(places)
        stall_s, up_within_s = rig.link.stall_s, UP_WITHIN_S + slow_start_s(rig)
        link = LinkConfig(
            role, peers[0], str(places.secret), *reached, tls=places.tls, stall_s=stall_s, up_within_s=up_within_s
        )
    return Config(
        name=name,
        state_dir=str(places.folder / "state" / name),
        control=str(places.control),
        disk=DiskConfig(
            spec.disk,
            places.disk_path,
            places.disk_kind,
            512 if places.block_bytes == 512 else 4096,
            str(places.folder / f"{spec.disk}.witness"),
            # The run has made the disk, or has admitted it; it holds the disk until its controllers have ended.
            "held" if places.disk_kind == "sg" else None,
        ),
        luns=[_lun(rig, spec, number, redirect_at_start) for number in spec.luns],
        store=StoreConfig(*store) if store else None,
        link=link,
        nbd=NbdConfig(places.nbd_host),
    )


def _reached(places: Places) -> tuple[str | None, int | None, SerialConfig | None]:
    return (None, None, places.link) if isinstance(places.link, SerialConfig) else (*places.link, None)


def slow_start_s(rig: Rig) -> float:
    """How much longer than usual a start may take because of the line: a handshake, and the whole ledger over it."""
    if not isinstance(rig.link, Serial):
        return 0.0
    rows = sum(
        rig.layout[name].luns[number].blocks
        for name, spec in rig.controllers.items()
        for number, lun in spec.luns.items()
        if isinstance(lun, Redirect)
    )
    return _HANDSHAKES * line_handshake_s(rig.link.baud) + line_s(rows * ROW.itemsize, rig.link.baud)


def dialler(rig: Rig) -> str:
    """The controller that makes the connection: it needs the other one to start, and to flush when it stops."""
    wanting = [name for name, spec in rig.controllers.items() if _needs_peer(spec)]
    return (wanting or list(rig.controllers))[0]


def _needs_peer(spec: ControllerSpec) -> bool:
    return any(isinstance(lun, Redirect | Forward) for lun in spec.luns.values())


def _lun(rig: Rig, spec: ControllerSpec, number: int, redirect_at_start: bool) -> LunConfig:
    lun = spec.luns[number]
    if isinstance(lun, Forward):
        return LunConfig(number, "forward", remote_lun=lun.lun)
    if isinstance(lun, Frozen):
        return LunConfig(number, "frozen", of=lun.of)
    extent = rig.layout[spec.name].luns[number]
    if isinstance(lun, Redirect):
        config = LunConfig(number, "redirect", extent.lba, extent.blocks, start="own")
        return msgspec.structs.replace(config, start="redirecting") if redirect_at_start else config
    return LunConfig(number, "own", extent.lba, extent.blocks)
