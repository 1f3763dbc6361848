"""How a link is set up: who connects to whom, with which secret, limits and deadlines."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from hwvirt.errors import LocalLinkError
from hwvirt.link.baud import line_s

__all__ = [
    "Compression",
    "EthernetLink",
    "Flow",
    "Identity",
    "LinkLimits",
    "LinkTiming",
    "Role",
    "SerialLink",
    "TlsFiles",
    "address_text",
    "line_handshake_s",
    "presentable",
]

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


def line_handshake_s(baud: int) -> float:
    """How long a serial line may take for a handshake, with some repetitions."""
    return line_s(_HANDSHAKE_BYTES, baud)


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
class TlsFiles:
    """Files in PEM for TLS: the authorities that are believed, a certificate (and what leads to its authority), its key."""

    authority: Path
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class EthernetLink:
    """A link over TCP. Port 0 listens on a free port; `seed` makes the pauses between attempts repeatable.

    `peer` is the one controller that is accepted; None: whoever knows the secret, but never two at a time.
    With `tls`, everything on the connection is encrypted, and both ends show certificates.
    """

    role: Role
    host: str
    port: int
    secret: bytes = field(repr=False)
    limits: LinkLimits = LinkLimits()
    timing: LinkTiming = LinkTiming()
    seed: int = 0
    peer: str | None = None
    tls: TlsFiles | None = None

    def __post_init__(self) -> None:
        if not self.secret:
            raise LocalLinkError("link: the secret is empty.", next_step="Give both controllers the same secret.")


class Flow(Enum):
    """How the ends of a serial line hold each other back, besides the link's own window.

    XON/XOFF is not among them: it takes two byte values from the line, and the window already bounds what is unread.
    """

    NONE = "none"
    RTSCTS = "rtscts"


class Compression(Enum):
    """Whether a serial line carries less than was sent. Done when both ends say so; zeroes are left out in any case."""

    NONE = "none"
    ZSTD = "zstd"


_LEAST_BUFFER_BYTES = 1024
_BUFFERS_IN_PING, _BUFFERS_IN_SILENCE = 2, 8
_HANDSHAKE_BYTES = 2048


@dataclass(frozen=True, slots=True)
class SerialLink:
    """A link over a serial line, 8N1. `device`: a tty, or a URL of pyserial ("rfc2217://host:port").

    A line has no side that connects: `role` says which end opens the session; the ends need different ones.
    `receive_buffer_bytes`: what may lie unread in this end's tty. 3400 suits a UART without flow control and a line of
    user-mode Linux, which dies for good at 3900; a Linux tty proper holds 64 KiB, and fast lines want as much.
    Messages of any size go over the line, but not past each other: `limits.frame_bytes` bounds how long a small one waits.
    """

    role: Role
    device: str
    baud: int
    secret: bytes = field(repr=False)
    flow: Flow = Flow.NONE
    receive_buffer_bytes: int = 3400
    compression: Compression = Compression.ZSTD
    limits: LinkLimits = LinkLimits()
    timing: LinkTiming = LinkTiming()
    seed: int = 0
    peer: str | None = None

    def __post_init__(self) -> None:
        if not self.secret:
            raise LocalLinkError("link: the secret is empty.", next_step="Give both controllers the same secret.")
        if self.baud < 1:
            raise LocalLinkError(f"link: a line of {self.baud} baud carries nothing.", next_step="Correct the baud rate.")
        if not _LEAST_BUFFER_BYTES <= self.receive_buffer_bytes <= 1 << 30:
            raise LocalLinkError(
                f"link: a line cannot work with a receive buffer of {self.receive_buffer_bytes} bytes.",
                next_step=f"Allow {_LEAST_BUFFER_BYTES} bytes or more.",
            )

    @property
    def paced_timing(self) -> LinkTiming:
        """The deadlines, longer where the line needs that long."""
        timing, buffer_s = self.timing, line_s(self.receive_buffer_bytes, self.baud)
        return replace(
            timing,
            handshake_s=max(timing.handshake_s, line_handshake_s(self.baud)),
            ping_s=max(timing.ping_s, _BUFFERS_IN_PING * buffer_s),
            silence_s=max(timing.silence_s, _BUFFERS_IN_SILENCE * buffer_s),
        )
