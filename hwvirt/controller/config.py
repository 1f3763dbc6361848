"""The configuration of one controller daemon: a JSON file, written by the rig runner or by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from hwvirt.disk.open import DiskKind
from hwvirt.errors import UsageError

__all__ = ["Config", "DiskConfig", "LinkConfig", "LinkRole", "LunConfig", "NbdConfig", "StoreConfig", "load_config"]


LinkRole = Literal["listen", "connect"]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class DiskConfig(_Strict, frozen=True):
    """A disk image or a device node; `kind` says how CDBs reach it. `witness`: the log of medium-changing CDBs."""

    name: str
    path: str
    kind: DiskKind = "file"
    block_bytes: int = 4096
    witness: str = ""


class LunConfig(_Strict, frozen=True):
    """A logical unit: `own` and `redirect` lie at `lba` on the disk, `frozen` shows the first volume of LUN `of`."""

    lun: int
    mode: Literal["own", "redirect", "frozen", "forward"]
    lba: int = 0
    blocks: int = 0
    of: int = 0
    remote_lun: int = 0
    start: Literal["own", "redirecting"] = "redirecting"


class StoreConfig(_Strict, frozen=True):
    """The part of the disk that takes the other controller's blocks."""

    lba: int
    blocks: int


class LinkConfig(_Strict, frozen=True):
    """The second path: one side listens, the other connects. `secret_file` holds the shared secret."""

    role: LinkRole
    host: str
    port: int
    peer: str
    secret_file: str
    stall_s: float = 30.0
    up_within_s: float = 10.0


class NbdConfig(_Strict, frozen=True):
    """Where hosts reach the logical units; port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = 0


class Config(_Strict, frozen=True):
    """One controller."""

    name: str
    state_dir: str
    control: str
    disk: DiskConfig
    luns: list[LunConfig]
    store: StoreConfig | None = None
    link: LinkConfig | None = None
    nbd: NbdConfig = NbdConfig()


def load_config(path: Path) -> Config:
    """The configuration in the file. Raises UsageError with the file, the place in it and the reason."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Config)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}.", next_step="Name a controller configuration file.") from error
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}.", next_step="See docs/controller.md for the keys.") from error
    except msgspec.DecodeError as error:
        raise UsageError(f"{path}: not JSON: {error}.") from error
