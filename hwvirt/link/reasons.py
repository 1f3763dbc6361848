"""The texts of a link that does not come up or does not stay: place, reason, next step."""

from __future__ import annotations

from hwvirt.errors import LinkError, PeerError
from hwvirt.link.errors import LinkDown, Unproven
from hwvirt.link.messages import Farewell

__all__ = ["other_peer", "same_name", "silent", "stranger", "told", "unfinished", "unproven"]

_SECRETS = "Give both controllers the same secret."
_NAMES = "Give them different names, or correct the address."
_PORTS = "Give every pair of controllers a port of its own."


def stranger(place: str, name: str) -> PeerError:
    """The proof is wrong."""
    return PeerError(f"link: {place} calls itself {name} and does not know the secret.", next_step=_SECRETS)


def same_name(place: str, name: str) -> PeerError:
    """Two controllers of one name, or one that has reached itself."""
    return PeerError(f"link: {place} is called {name}, as this controller is.", next_step=_NAMES)


def other_peer(place: str, name: str, partner: str | None) -> PeerError:
    """Another controller than the one that belongs here."""
    return PeerError(f"link: {place} is {name}, but the peer of this controller is {partner}.", next_step=_PORTS)


def unproven(place: str, within_s: float) -> Unproven:
    """The handshake took too long."""
    return Unproven(
        f"link: {place} did not prove itself within {within_s:g} s.", next_step="See that a hwvirt controller is there."
    )


def silent(place: str, for_s: float) -> LinkDown:
    """No sign of life."""
    reason = f"link: {place} was silent for {for_s:g} s."
    return LinkDown(reason, next_step="Check the cable and the other controller.", silent_s=for_s)


def unfinished(place: str, for_s: float) -> LinkDown:
    """A frame lost its end."""
    reason = f"link: {place} began a frame and did not go on with it for {for_s:g} s."
    return LinkDown(reason, next_step="Check the cable.", silent_s=for_s)


def told(place: str, why: Farewell, own_name: str) -> LinkError:
    """What the other side's farewell means here."""
    match why:
        case Farewell.CLOSING:
            return LinkDown(f"link: {place} closed the session.")
        case Farewell.BROKEN:
            return LinkDown(f"link: {place} ended the session because of what it received.", next_step="Check the cable.")
        case Farewell.WRONG_SECRET:
            return PeerError(f"link: {place} does not accept the secret of this controller.", next_step=_SECRETS)
        case Farewell.SAME_NAME:
            return same_name(place, own_name)
        case Farewell.OTHER_PEER:
            return PeerError(f"link: {place} is the peer of another controller.", next_step=_PORTS)
