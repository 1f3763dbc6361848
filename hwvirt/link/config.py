"""How a link is set up: who connects to whom, with which secret, limits and deadlines."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from hwvirt.errors import LocalLinkError

__all__ = ["EthernetLink", "Identity", "LinkLimits", "LinkTiming", "Role", "address_text", "presentable"]

_LEAST_FRAME_BYTES = 4096
_NAME_MOST = 64


class Role(Enum):
    """Which end makes the connection; once a session is up, both ends are alike."""

    CONNECT = "connect"
    LISTEN = "listen"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a controller is: its name in the rig, and a number that differs after each start."""

    name: str
    boot_epoch: int

    def __post_init__(self) -> None:
        if not presentable(self.name):
            raise LocalLinkError(
                f"link: {self.name!r} cannot be the name of a controller.",
                next_step=f"Use 1 to {_NAME_MOST} printable characters.",
            )


def address_text(host: str, port: int) -> str:
    """An address as people write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def presentable(name: str) -> bool:
    """Whether a name may go to logs and consoles: whoever can connect can send one."""
    return 0 < len(name) <= _NAME_MOST and name.isprintable()


@dataclass(frozen=True, slots=True)
class LinkLimits:
    """What one side takes from the other: unanswered requests, their bytes (or those of their replies), one frame.

    A frame holds a whole batch: by default what an NBD connection may have under way, 64 MiB, with its digests and slices.
    """

    requests: int = 256
    request_bytes: int = 160 << 20
    frame_bytes: int = 80 << 20

    def __post_init__(self) -> None:
        if self.requests < 1 or not _LEAST_FRAME_BYTES <= self.frame_bytes <= self.request_bytes:
            raise LocalLinkError(
                f"link: {self.requests} requests of {self.request_bytes} bytes in frames of {self.frame_bytes} cannot work.",
                next_step=f"Allow a request, frames of {_LEAST_FRAME_BYTES} bytes, and no less bytes than one frame.",
            )


@dataclass(frozen=True, slots=True)
class LinkTiming:
    """Seconds: for the handshake, between signs of life, of silence before the peer counts as gone, between attempts."""

    handshake_s: float = 5.0
    ping_s: float = 1.0
    silence_s: float = 5.0
    first_retry_s: float = 0.05
    last_retry_s: float = 2.0


@dataclass(frozen=True, slots=True)
class EthernetLink:
    """A link over TCP. Port 0 listens on a free port; `seed` makes the pauses between attempts repeatable.

    `peer` is the one controller that is accepted; None: whoever knows the secret, but never two at a time.
    """

    role: Role
    host: str
    port: int
    secret: bytes = field(repr=False)
    limits: LinkLimits = LinkLimits()
    timing: LinkTiming = LinkTiming()
    seed: int = 0
    peer: str | None = None

    def __post_init__(self) -> None:
        if not self.secret:
            raise LocalLinkError("link: the secret is empty.", next_step="Give both controllers the same secret.")
