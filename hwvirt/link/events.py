"""What a session reports: its events, the proven peer, and the counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from hwvirt.errors import LinkError
from hwvirt.link.config import LinkLimits
from hwvirt.link.messages import Reply, Request

__all__ = ["Answered", "Asked", "Ended", "Event", "LinkStatistics", "Peer", "Up"]


@dataclass(slots=True)
class LinkStatistics:
    """Counts over all sessions of a link. `rtt_us` is that of the last ping."""

    sent_frames: int = 0
    sent_bytes: int = 0
    received_frames: int = 0
    received_bytes: int = 0
    refused: int = 0  # frames of another epoch, replies that no open request has
    corrupt: int = 0  # frames that were damaged
    refused_peers: int = 0  # connections that ended in their handshake
    dropped_replies: int = 0  # replies of this side to requests of a session that is over
    reconnects: int = 0
    in_flight: int = 0
    rtt_us: int = 0


class Peer(NamedTuple):
    """Who is at the other end, proven; what it takes; and the epoch of the session with it."""

    name: str
    boot_epoch: int
    limits: LinkLimits
    epoch: int
    place: str


class Up(NamedTuple):
    """The peer has proven the secret: requests may flow."""

    peer: Peer


class Asked(NamedTuple):
    """The peer asks; answer with `Session.reply(tag, ...)`."""

    tag: int
    message: Request


class Answered(NamedTuple):
    """The reply to the request that `Session.request` gave this tag."""

    tag: int
    message: Reply


class Ended(NamedTuple):
    """The session is over; always the last event. Send what is still in `outgoing()`, then close."""

    error: LinkError


Event: TypeAlias = Up | Asked | Answered | Ended
