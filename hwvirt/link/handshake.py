"""The proof of the shared secret. Ref: RFC 2104 (HMAC), FIPS 180-4 (SHA-256).

    connecting side                     listening side
    Hello (name, boot epoch, nonce)  →
                                     ←  Hello
    Proof                            →                    checked first: who lacks the secret learns no proof
                                     ←  Proof
    first frame of the epoch         →                    shows that both proofs arrived

Each proof covers both hellos whole, the prover's role, and under TLS both certificates. So it fits no other session, no
other direction, no hello that was changed on its way, and no connection that somebody in between has made. The epoch of the
session and the keys of its frames come from the same hellos and the secret: nobody else can name them beforehand.
"""

from __future__ import annotations

import hmac

from hwvirt.link.codec import encode
from hwvirt.link.config import Role
from hwvirt.link.messages import Hello
from hwvirt.link.wire import VERSION, Seal

__all__ = ["Handshake"]


class Handshake:
    """Both hellos, in one order on both sides, the secret, and the `binding`: what the connection below is known by."""

    def __init__(self, secret: bytes, connecting: Hello, listening: Hello, binding: bytes = b"") -> None:
        self._secret = secret
        parts = [*(encode(hello).meta for hello in (connecting, listening)), *([binding] if binding else [])]
        self._transcript = bytes([VERSION]) + b"".join(len(part).to_bytes(2, "big") + part for part in parts)

    def proof(self, role: Role) -> bytes:
        """What the side of that role sends to show that it knows the secret: 32 bytes."""
        return self._mac(role.value)

    def proves(self, role: Role, mac: bytes) -> bool:
        """Whether `mac` is the proof of that side; takes the same time whatever it is."""
        return hmac.compare_digest(self.proof(role), mac)

    @property
    def epoch(self) -> int:
        """The session's epoch, a u64; never zero, which means "no epoch yet"."""
        return int.from_bytes(self._mac("epoch")[:8], "big") or 1

    def seal(self, role: Role) -> Seal:
        """What the frames of that side are sealed with in this session."""
        return Seal(self._mac("frames of " + role.value))

    def _mac(self, purpose: str) -> bytes:
        return hmac.digest(self._secret, b"hwvirt link " + purpose.encode() + b"\0" + self._transcript, "sha256")
