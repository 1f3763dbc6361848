"""Why a link ends, as far as others tell the reasons apart. The rest of the tree is in `hwvirt.errors`."""

from __future__ import annotations

from hwvirt.errors import LinkError, PeerError

__all__ = ["CorruptFrame", "LinkDown", "Unproven", "WrongVersion"]


class LinkDown(LinkError):
    """The session is over or has not begun: whoever waits for a reply may ask again in the next session.

    `silent_s`: for how long nothing had been heard by then, where that is why.
    """

    def __init__(self, reason: str, *, next_step: str = "", silent_s: float = 0.0) -> None:
        super().__init__(reason, next_step=next_step)
        self.silent_s = silent_s


class CorruptFrame(PeerError):
    """Bytes arrived that are not what a peer sends: a wrong magic, CRC-32C or digest."""


class Unproven(PeerError):
    """Somebody was reached and has not said who it is in time: it may be no controller, or a machine that is busy."""


class WrongVersion(PeerError):
    """The other end speaks another version of the link."""
