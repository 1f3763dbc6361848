"""The configuration of one controller daemon: a JSON file, written by the rig runner or by hand. See docs/controller.md."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hwvirt.disk.open import DiskKind
from hwvirt.errors import UsageError
from hwvirt.link.config import Compression, Flow

__all__ = [
    "Config",
    "DiskConfig",
    "LinkConfig",
    "LinkRole",
    "LunConfig",
    "NbdConfig",
    "SerialConfig",
    "StoreConfig",
    "TlsConfig",
    "in_words",
    "load_config",
    "refuse_misfits",
]

LinkRole = Literal["listen", "connect"]
_Blocks = Annotated[int, Meta(ge=0, le=1 << 60)]
_Lun = Annotated[int, Meta(ge=0, le=255)]
_Name = Annotated[str, Meta(min_length=1, max_length=64)]
_Path = Annotated[str, Meta(min_length=1)]
_Port = Annotated[int, Meta(ge=0, le=65535)]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class DiskConfig(_Strict, frozen=True):
    """A disk image or a device node; `kind` says how CDBs reach it. `witness`: the log of medium-changing CDBs."""

    name: _Name
    path: _Path
    kind: DiskKind = "file"
    block_bytes: Literal[512, 4096] = 4096
    witness: str = ""


class LunConfig(_Strict, frozen=True):
    """A logical unit: `own` and `redirect` lie at `lba` on the disk, `frozen` shows the first volume of LUN `of`."""

    lun: _Lun
    mode: Literal["own", "redirect", "frozen", "forward"]
    lba: _Blocks = 0
    blocks: _Blocks = 0
    of: _Lun = 0
    remote_lun: _Lun = 0
    start: Literal["own", "redirecting"] = "redirecting"

    @property
    def lies_on_disk(self) -> bool:
        """Whether `lba` and `blocks` say where it lies."""
        return self.mode in ("own", "redirect")


class StoreConfig(_Strict, frozen=True):
    """The part of the disk that takes the other controller's blocks."""

    lba: _Blocks
    blocks: Annotated[int, Meta(ge=1, le=1 << 60)]


class SerialConfig(_Strict, frozen=True):
    """A serial line: a tty, or a URL of pyserial. See `hwvirt.link.config.SerialLink`."""

    device: _Path
    baud: Annotated[int, Meta(ge=1)] = 115200
    flow: Flow = Flow.NONE
    receive_buffer_bytes: Annotated[int, Meta(ge=1)] = 3400
    compression: Compression = Compression.ZSTD


class TlsConfig(_Strict, frozen=True):
    """Files in PEM. See `hwvirt.link.config.TlsFiles`."""

    authority: _Path
    certificate: _Path
    key: _Path


class LinkConfig(_Strict, frozen=True):
    """The second path: one side listens, the other connects. `secret_file` holds the shared secret.

    Over Ethernet with `host` and `port`, and `tls` if wanted; or over the serial line `serial`, which has none of them.
    """

    role: LinkRole
    peer: _Name
    secret_file: _Path
    host: _Path | None = None
    port: _Port | None = None
    serial: SerialConfig | None = None
    tls: TlsConfig | None = None
    stall_s: Annotated[float, Meta(ge=0)] = 30.0
    up_within_s: Annotated[float, Meta(gt=0)] = 10.0


class NbdConfig(_Strict, frozen=True):
    """Where hosts reach the logical units; port 0 takes a free one."""

    host: _Path = "127.0.0.1"
    port: _Port = 0


class Config(_Strict, frozen=True):
    """One controller."""

    name: _Name
    state_dir: _Path
    control: _Path
    disk: DiskConfig
    luns: list[LunConfig]
    store: StoreConfig | None = None
    link: LinkConfig | None = None
    nbd: NbdConfig = NbdConfig()


def load_config(path: Path) -> Config:
    """The configuration in the file. Raises UsageError with the file, the place in it and the reason."""
    try:
        config = msgspec.convert(json.loads(path.read_bytes(), object_pairs_hook=_without_doubles), Config)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}.", next_step="Name a controller configuration file.") from error
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {in_words(str(error))}.", next_step=_KEYS) from error
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}:{error.lineno}:{error.colno}: not JSON: {error.msg}.", next_step=_KEYS) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON: {error}.", next_step=_KEYS) from error
    except _DoubledKey as error:
        raise UsageError(f"{path}: key '{error}' is there twice.", next_step="Remove one of them.") from error
    _refuse_halves(path, config.link)
    _refuse_overlaps(path, config)
    return config


def refuse_misfits(config: Config, disk_blocks: int) -> None:
    """Raises UsageError for a LUN or store that reaches beyond the end of the disk."""
    for name, lba, blocks in _places(config):
        if lba + blocks > disk_blocks:
            raise UsageError(
                f"controller {config.name}: {name} ends at block {lba + blocks - 1}, but disk {config.disk.name} "
                f"({config.disk.path}) has {disk_blocks} blocks of {config.disk.block_bytes} bytes.",
                next_step="Give it fewer blocks, or a bigger disk.",
            )


_KEYS = "See docs/controller.md for the keys."
_UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`")
_MISSING = re.compile(r"Object missing required field `(.*?)`")
_PLACE = re.compile(r"^(.*) - at `\$\.?(.*)`$", re.DOTALL)


class _DoubledKey(Exception):
    pass


def _without_doubles(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    known: dict[str, Any] = {}
    for key, value in pairs:
        if key in known:
            raise _DoubledKey(key)
        known[key] = value
    return known


def in_words(reason: str) -> str:
    """What msgspec says, the place first and in the words of the manual."""
    reason = _MISSING.sub(r"key '\1' is missing", _UNKNOWN.sub(r"unknown key '\1'", reason))
    placed = _PLACE.match(reason.replace(" | null`", "`"))
    return f"{placed[2]}: {placed[1]}" if placed else reason


def _places(config: Config) -> list[tuple[str, int, int]]:
    """What lies on the disk: name, first LBA and blocks, in the order of LBAs."""
    places = [(f"LUN {lun.lun}", lun.lba, lun.blocks) for lun in config.luns if lun.lies_on_disk]
    if config.store is not None:
        places.append(("the store", config.store.lba, config.store.blocks))
    return sorted(places, key=lambda place: place[1:])


def _refuse_halves(path: Path, link: LinkConfig | None) -> None:
    if link is None:
        return
    for key, value in (("host", link.host), ("port", link.port)):
        if link.serial is None and value is None:
            raise UsageError(f"{path}: link: key '{key}' is missing.", next_step=_KEYS)
        if link.serial is not None and value is not None:
            raise UsageError(f"{path}: link: a serial line has no {key}.", next_step=_KEYS)
    if link.serial is not None and link.tls is not None:
        raise UsageError(f"{path}: link: a serial line has no tls.", next_step=_KEYS)


def _refuse_overlaps(path: Path, config: Config) -> None:
    for number, lun in enumerate(config.luns):
        if lun.lies_on_disk and not lun.blocks:
            reason = f"{path}: luns[{number}]: LUN {lun.lun} has no blocks."
            raise UsageError(reason, next_step="Give it `lba` and `blocks`.")
    places = _places(config)
    for (name, lba, blocks), (other, start, _) in pairwise(places):
        if start < lba + blocks:
            raise UsageError(
                f"{path}: {name} has blocks {lba} to {lba + blocks - 1}, and {other} begins at block {start}.",
                next_step="Move one of them.",
            )
