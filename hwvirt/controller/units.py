"""The logical units of a controller: what each LUN of the configuration is made of."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from hwvirt.controller.config import Config, LunConfig
from hwvirt.controller.correlation import CorrelationMap
from hwvirt.controller.forward import ForwardUnit
from hwvirt.controller.journal import StateDirectory
from hwvirt.controller.lifecycle import Lifecycle
from hwvirt.controller.link_store import Asker, LinkStore
from hwvirt.controller.map_journal import MapJournal
from hwvirt.controller.meter import Meter
from hwvirt.controller.redirect import RedirectVolume
from hwvirt.disk.disk import Disk
from hwvirt.disk.volume import DiskVolume
from hwvirt.scsi.server import DeviceServer
from hwvirt.scsi.volume import Access, Extent, Volume
from hwvirt.scsi.vpd import Identity
from hwvirt.trace import Trace

__all__ = ["Unit", "build_units"]


@dataclass(slots=True)
class Unit:
    """One LUN. A forwarded unit has no volume here: the other controller has it."""

    config: LunConfig
    block_bytes: int
    meter: Meter
    volume: Volume | None = None
    redirect: RedirectVolume | None = None
    lifecycle: Lifecycle | None = None


def build_units(
    config: Config, disk: Disk, state: StateDirectory, asker: Asker | None, trace: Trace
) -> Mapping[int, Unit]:
    """Every LUN of the configuration, in order; `load_config` has refused those that cannot be."""
    units: dict[int, Unit] = {}
    for lun in sorted(config.luns, key=lambda lun: (lun.mode == "frozen", lun.lun)):
        units[lun.lun] = _build(config, lun, disk, state, asker, units, trace)
    return dict(sorted(units.items()))


def _build(
    config: Config,
    lun: LunConfig,
    disk: Disk,
    state: StateDirectory,
    asker: Asker | None,
    units: Mapping[int, Unit],
    trace: Trace,
) -> Unit:
    size = config.disk.block_bytes
    if lun.mode == "forward":
        assert asker is not None
        return Unit(lun, size, Meter(ForwardUnit(asker, lun.remote_lun), size))
    if lun.mode == "own":
        volume = DiskVolume(disk, Extent(lun.lba, lun.blocks), size)
        return Unit(lun, size, _served(config, lun, volume), volume)
    if lun.mode == "frozen":
        source = units[lun.of]
        window = Extent(source.config.lba, source.config.blocks)
        volume = DiskVolume(disk, window, size, access=Access.READ_ONLY)
        lun = msgspec.structs.replace(lun, lba=window.lba, blocks=window.blocks)
        return Unit(lun, size, _served(config, lun, volume), volume)
    assert asker is not None
    first = DiskVolume(disk, Extent(lun.lba, lun.blocks), size)
    correlation = CorrelationMap(lun.blocks)
    journal = MapJournal(state.journal(f"map-{lun.lun}"), correlation, lun.lun)
    redirect = RedirectVolume(lun.lun, first, LinkStore(asker, size), journal, correlation)
    return Unit(lun, size, _served(config, lun, redirect), redirect, redirect, Lifecycle(redirect, trace))


def _served(config: Config, lun: LunConfig, volume: Volume) -> Meter:
    # NAA 3h, locally assigned (SPC-4 7.8.6.6.4): the same controller and LUN have the same name after each start.
    naa = 3 << 60 | zlib.crc32(config.name.encode()) << 16 | lun.lun
    identity = Identity("HWVIRT", f"{lun.mode.upper()} {config.name}"[:16], "1", f"{config.name}-{lun.lun}", naa)
    return Meter(DeviceServer(volume, identity), volume.block_bytes)
