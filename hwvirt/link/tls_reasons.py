"""What OpenSSL says when TLS fails, as the link says it: place, reason, next step."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from hwvirt.errors import LinkError, PeerError
from hwvirt.link.errors import CorruptFrame, LinkDown

__all__ = ["BOTH_OR_NEITHER", "failed", "hung_up", "is_no_tls"]

BOTH_OR_NEITHER = "Give both controllers `tls`, or neither."
_ONE_AUTHORITY = "Give both controllers certificates of one authority."
_RENEW = "Make a new one, and see that the clocks are right."

_UNACCEPTABLE: Mapping[int, tuple[str, str]] = {  # X509_V_ERR_… of OpenSSL's x509_vfy.h
    7: ("has a certificate of another authority", _ONE_AUTHORITY),  # CERT_SIGNATURE_FAILURE: the name is the same
    9: ("has a certificate that is not valid yet", _RENEW),
    10: ("has a certificate that has expired", _RENEW),
    18: ("has a certificate of another authority", _ONE_AUTHORITY),  # it has signed itself
    19: ("has a certificate of another authority", _ONE_AUTHORITY),  # one in its chain has
    20: ("has a certificate of another authority", _ONE_AUTHORITY),
    21: ("has a certificate of another authority", _ONE_AUTHORITY),
}
_WRONG: Mapping[str, tuple[str, str]] = {  # parts of reason names: the rest of a name differs between versions of OpenSSL
    "PEER_DID_NOT_RETURN": ("shows no certificate", "Give it `tls` with a certificate."),
    "UNSUPPORTED_PROTOCOL": ("does not speak TLS 1.3", "Update its OpenSSL."),
    "ALERT_PROTOCOL_VERSION": ("does not speak TLS 1.3", "Update its OpenSSL."),
    "ALERT_CERTIFICATE_EXPIRED": ("does not accept the certificate of this controller: it has expired", _RENEW),
    "ALERT_UNKNOWN_CA": ("does not accept the certificate of this controller: another authority made it", _ONE_AUTHORITY),
    "ALERT_CERTIFICATE_REQUIRED": ("does not accept this controller without a certificate", "Give it `tls`."),
    "ALERT_BAD_CERTIFICATE": ("does not accept the certificate of this controller", _RENEW),
    "ALERT_CERTIFICATE_UNKNOWN": ("does not accept the certificate of this controller", _ONE_AUTHORITY),
    "ALERT_UNSUPPORTED_CERTIFICATE": ("does not accept the certificate of this controller", _ONE_AUTHORITY),
}
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "UNKNOWN_PROTOCOL")


def is_no_tls(error: ssl.SSLError) -> bool:
    """Whether the other end has begun with something that is no TLS."""
    return (error.reason or "") in _NO_TLS


def failed(place: str, error: ssl.SSLError, *, was_up: bool) -> LinkError:
    """Why TLS with `place` is over. `was_up`: a session was up on it, so both ends had been believed."""
    reason = error.reason or ""
    if was_up:
        if "ALERT" in reason:
            heard = f"link: {place} ended the session because of what it received."
            return LinkDown(heard, next_step="Check the cable.")
        return CorruptFrame(f"link: {place} sent a damaged TLS record.", next_step="Check the cable.")
    if isinstance(error, ssl.SSLCertVerificationError):
        other = (f"has a certificate that cannot be accepted: {error.verify_message}", _ONE_AUTHORITY)
        what, step = _UNACCEPTABLE.get(error.verify_code, other)
        return PeerError(f"link: {place} {what}.", next_step=step)
    if is_no_tls(error):
        return PeerError(f"link: {place} does not speak TLS, and this controller does.", next_step=BOTH_OR_NEITHER)
    for part, (what, step) in _WRONG.items():
        if part in reason:
            return PeerError(f"link: {place} {what}.", next_step=step)
    said = reason.lower().replace("_", " ") or "it was cut off"
    return PeerError(f"link: TLS with {place} failed: {said}.", next_step="Check the address and the cable.")


def hung_up(place: str) -> LinkDown:
    """The connection was closed before TLS was up, and no alert says why."""
    return LinkDown(f"link: {place} broke off the TLS handshake.", next_step=BOTH_OR_NEITHER)
