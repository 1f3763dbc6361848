"""Reads a controller's configuration, written by the rig runner or by hand, and refuses what cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec

from hwvirt.controller.config import Config, DiskConfig, GuardConfig, LinkConfig, WindowConfig
from hwvirt.controller.json_file import JsonFile, Way
from hwvirt.controller.misfit import misfit
from hwvirt.errors import UsageError
from hwvirt.reading import read_file

__all__ = ["load_config", "refuse_misfits"]

_KEYS = "See docs/controller.md for the keys."


def load_config(path: Path) -> Config:
    """The configuration in the file. Raises UsageError when it cannot be read, ConfigError where something is wrong."""
    file = JsonFile(str(path), read_file(path, "controller configuration", "Name a controller configuration file."), _KEYS)
    try:
        config = msgspec.convert(file.value, Config)
    except msgspec.ValidationError as error:
        way, reason, next_step, of_key = misfit(error, Config, file.value)
        raise (file.key_error if of_key else file.error)(way, reason, next_step or _KEYS) from error
    _refuse_unguarded(file, config.disk)
    if config.link is not None:
        _refuse_halves(file, config.link)
    _refuse_lonely(file, config)
    _refuse_overlaps(file, config)
    if isinstance(config.disk.guard, GuardConfig):
        _refuse_outside(file, config, config.disk.guard.window)
    return config


def refuse_misfits(config: Config, disk_blocks: int) -> None:
    """Raises UsageError for a LUN or store that reaches beyond the end of the disk."""
    for place in _places(config):
        if place.lba + place.blocks > disk_blocks:
            raise UsageError(
                f"controller {config.name}: {place.name} ends at block {place.lba + place.blocks - 1}, but disk "
                f"{config.disk.name} ({config.disk.path}) has {disk_blocks} blocks of {config.disk.block_bytes} bytes.",
                next_step="Give it fewer blocks, or a bigger disk.",
            )


class _Place(NamedTuple):
    """Something that lies on the disk, and where the file says so."""

    lba: int
    blocks: int
    name: str
    way: Way


def _places(config: Config) -> list[_Place]:
    """What lies on the disk, in the order of LBAs."""

    def places() -> Iterator[_Place]:
        for index, lun in enumerate(config.luns):
            if lun.lies_on_disk:
                yield _Place(lun.lba, lun.blocks, f"LUN {lun.lun}", ("luns", index))
        if config.store is not None:
            yield _Place(config.store.lba, config.store.blocks, "the store", ("store",))

    return sorted(places())


def _refuse_unguarded(file: JsonFile, disk: DiskConfig) -> None:
    """A SCSI disk that is named by its node alone, and a guard of what is none."""
    guard = disk.guard
    if disk.kind == "file":
        if guard is not None:
            raise file.key_error(("disk", "guard"), "only a disk of the kind 'sg' has a guard", "Take it out.")
    elif guard is None:
        next_step = "It says which disk this is: a node may be another disk tomorrow. See docs/controller.md."
        raise file.error(("disk",), "key 'guard' is missing", next_step)
    elif isinstance(guard, GuardConfig) and guard.wwn is None and guard.serial is None:
        raise file.error(("disk", "guard"), "names no disk", "Give its wwn or its serial; `hwvirt scan` prints both.")


def _refuse_halves(file: JsonFile, link: LinkConfig) -> None:
    if link.serial is None:
        for key, value in (("host", link.host), ("port", link.port)):
            if value is None:
                raise file.error(("link",), f"key {key!r} is missing", _KEYS)
        return
    for key in ("host", "port", "tls"):
        if getattr(link, key) is not None:
            raise file.key_error(("link", key), f"a serial line has no {key}", "Take it out, or `serial`.")


def _refuse_lonely(file: JsonFile, config: Config) -> None:
    """A LUN that needs something which is not there."""
    seen: set[int] = set()
    redirected = [lun.lun for lun in config.luns if lun.mode == "redirect"]
    for index, lun in enumerate(config.luns):
        way: Way = ("luns", index)
        if lun.lun in seen:
            raise file.error((*way, "lun"), f"LUN {lun.lun} is configured twice", "Give one of them another number.")
        seen.add(lun.lun)
        if lun.lies_on_disk and not lun.blocks:
            raise file.error(way, f"LUN {lun.lun} has no blocks", "Give it `lba` and `blocks`.")
        if lun.mode in ("redirect", "forward") and config.link is None:
            raise file.error(way, f"LUN {lun.lun} needs a link", "Configure `link`.")
        if lun.mode == "frozen" and lun.of not in redirected:
            able = f"LUNs that do: {', '.join(map(str, redirected)) or 'none'}."
            raise file.error(way, f"LUN {lun.lun} is frozen, but LUN {lun.of} does not redirect", able)


def _refuse_overlaps(file: JsonFile, config: Config) -> None:
    for one, other in pairwise(_places(config)):
        if other.lba < one.lba + one.blocks:
            taken = f"{one.name} has blocks {one.lba} to {one.lba + one.blocks - 1}"
            raise file.error(other.way, f"{taken}, and {other.name} begins at block {other.lba}", "Move one of them.")


def _refuse_outside(file: JsonFile, config: Config, window: WindowConfig) -> None:
    last = window.lba + window.blocks - 1
    for place in _places(config):
        if place.lba < window.lba or place.lba + place.blocks - 1 > last:
            lies = f"{place.name} has blocks {place.lba} to {place.lba + place.blocks - 1}"
            reason = f"{lies}, and the window of the guard is {window.lba} to {last}"
            raise file.error(place.way, reason, "Nothing may be written outside of it.")
