"""The configuration of one controller daemon, as it stands in its JSON file. See docs/controller.md."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from hwvirt.controller.misfit import PRINTABLE
from hwvirt.disk.open import DiskKind
from hwvirt.link.config import Compression, Flow

__all__ = [
    "UP_WITHIN_S",
    "Config",
    "DiskConfig",
    "GuardConfig",
    "LinkConfig",
    "LinkRole",
    "LunConfig",
    "LunNumber",
    "NbdConfig",
    "SerialConfig",
    "StoreConfig",
    "TlsConfig",
    "WindowConfig",
]

UP_WITHIN_S = 10.0
"""How long a controller that needs its peer waits for it at the start, unless its file says otherwise."""

LinkRole = Literal["listen", "connect"]
_Blocks = Annotated[int, Meta(ge=0, le=1 << 60)]
LunNumber = Annotated[int, Meta(ge=0, le=255)]
_Name = Annotated[str, Meta(min_length=1, max_length=64, pattern=PRINTABLE)]
_Text = Annotated[str, Meta(min_length=1, max_length=64)]
_Path = Annotated[str, Meta(min_length=1)]
_Port = Annotated[int, Meta(ge=0, le=65535)]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class WindowConfig(_Strict, frozen=True):
    """A part of the disk."""

    lba: _Blocks
    blocks: Annotated[int, Meta(ge=1, le=1 << 60)]


class GuardConfig(_Strict, frozen=True):
    """A real disk by what it is, as in the file of the rig for which it was armed. See `hwvirt.disk.guard`."""

    rig: _Text
    role: _Text
    size_bytes: Annotated[int, Meta(ge=1)]
    window: WindowConfig
    wwn: _Path | None = None
    serial: _Path | None = None


class DiskConfig(_Strict, frozen=True):
    """A disk image or a device node; `kind` says how CDBs reach it. `witness`: the log of medium-changing CDBs.

    `guard`: what a SCSI disk is admitted by, or "held": whoever wrote this has made the disk, or holds the claim on it.
    """

    name: _Text
    path: _Path
    kind: DiskKind = "file"
    block_bytes: Literal[512, 4096] = 4096
    witness: str = ""
    guard: GuardConfig | Literal["held"] | None = None


class LunConfig(_Strict, frozen=True):
    """A logical unit: `own` and `redirect` lie at `lba` on the disk, `frozen` shows the first volume of LUN `of`."""

    lun: LunNumber
    mode: Literal["own", "redirect", "frozen", "forward"]
    lba: _Blocks = 0
    blocks: _Blocks = 0
    of: LunNumber = 0
    remote_lun: LunNumber = 0
    start: Literal["own", "redirecting"] = "redirecting"

    @property
    def lies_on_disk(self) -> bool:
        """Whether `lba` and `blocks` say where it lies."""
        return self.mode in ("own", "redirect")


class StoreConfig(WindowConfig, frozen=True):
    """The part of the disk that takes the other controller's blocks."""


class SerialConfig(_Strict, frozen=True):
    """A serial line: a tty, or a URL of pyserial. See `hwvirt.link.config.SerialLink`."""

    device: _Path
    baud: Annotated[int, Meta(ge=1, le=100_000_000)] = 115200
    flow: Flow = Flow.NONE
    receive_buffer_bytes: Annotated[int, Meta(ge=1024, le=1 << 30)] = 3400
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
    up_within_s: Annotated[float, Meta(gt=0)] = UP_WITHIN_S


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
