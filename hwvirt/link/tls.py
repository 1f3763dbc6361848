"""TLS 1.3 on the Ethernet link, pure: what the wire brings goes in, what it shall carry comes out. Ref: RFC 8446.

Each end shows a certificate of the authority that the other one knows. Names in certificates are not read: who is there is
for the secret to prove, inside, and that proof covers both certificates (`Channel.binding`, as RFC 5929 does with one). So
nobody who has another certificate of that authority can sit in between.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, cast

from hwvirt.buffers import Buffer
from hwvirt.errors import UsageError
from hwvirt.link.config import Role, TlsFiles

__all__ = ["NO_TLS", "Channel", "Credentials", "load_credentials"]

_WRITTEN_AT_ONCE_BYTES = 1 << 18
_CERTIFICATE = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----")
_CORRECT = "Correct `tls` of the link."

NO_TLS = bytes.fromhex("15 0303 0002 02 0a")
"""The fatal alert unexpected_message in the clear (RFC 8446, 5.1 and 6.2), for who does not begin with TLS."""


class Credentials(NamedTuple):
    """What one end shows, and whom it believes. `digest` is that of its own certificate."""

    context: ssl.SSLContext
    digest: bytes


def load_credentials(files: TlsFiles, role: Role) -> Credentials:
    """What is in the files. Raises UsageError, with the file, for one that is missing or of no use."""
    for path in (files.authority, files.certificate, files.key):
        try:
            path.read_bytes()
        except OSError as error:
            raise UsageError(f"link TLS {path}: {error.strerror}.", next_step=_CORRECT) from error
    server = role is Role.LISTEN
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    if server:
        context.num_tickets = 0  # a session is never resumed: each one shows its certificates
    try:
        context.load_verify_locations(files.authority)
    except ssl.SSLError as error:
        raise UsageError(f"link TLS {files.authority}: no certificate in PEM.", next_step=_CORRECT) from error
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except (ssl.SSLError, _Encrypted) as error:
        raise UsageError(f"link TLS {files.key}: {_why_no_key(error)} {files.certificate}.", next_step=_CORRECT) from error
    return Credentials(context, hashlib.sha256(_first_certificate(files.certificate)).digest())


class Channel:
    """One connection's TLS. Raises ssl.SSLError wherever it fails; `outgoing` then holds the alert for the other end."""

    def __init__(self, credentials: Credentials, role: Role) -> None:
        self._own_digest = credentials.digest
        self._role = role
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = role is Role.LISTEN
        self._tls = credentials.context.wrap_bio(self._incoming, self._outgoing, server_side=server)
        self.binding = b""
        """What this connection is known by at both ends: their certificates. Empty until both have been believed."""

    def received(self, data: Buffer) -> None:
        """The wire has brought `data`. Read until nothing is left before more is brought."""
        self._incoming.write(data)

    def shake_hands(self) -> bool:
        """Goes on with the handshake; whether it is done. The connecting end is told of a refusal only afterwards."""
        if not self.binding:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                return False
            theirs = hashlib.sha256(self._tls.getpeercert(binary_form=True) or b"").digest()
            connecting, listening = self._own_digest, theirs
            if self._role is Role.LISTEN:
                connecting, listening = listening, connecting
            self.binding = connecting + listening
        return True

    def read_into(self, room: memoryview) -> int:
        """Puts plain bytes to the front of `room`: how many; none when more has to be received first."""
        filled = 0
        try:
            while filled < len(room) and (size_bytes := self._read(room[filled:])):
                filled += size_bytes
        except ssl.SSLWantReadError:
            pass
        return filled

    def _read(self, room: memoryview) -> int:
        return cast(int, self._tls.read(len(room), cast(bytearray, room)))  # with a buffer it says how many bytes

    def write(self, pieces: Sequence[Buffer]) -> Iterator[bytes]:
        """Plain bytes, as the wire shall carry them."""
        for piece in _gathered(pieces):
            rest = memoryview(piece)
            while rest:
                rest = rest[self._tls.write(rest) :]
            yield self.outgoing()

    def outgoing(self) -> bytes:
        """What the wire shall carry: of the handshake, or an alert."""
        return self._outgoing.read()

    def close(self) -> None:
        """Says that nothing more comes; never fails."""
        with suppress(ssl.SSLError):  # the other end has not said so yet, or there was no handshake
            self._tls.unwrap()


def _gathered(pieces: Sequence[Buffer]) -> Iterator[Buffer]:
    """The same bytes in buffers that are worth a call: small ones together, large ones in parts."""
    small: list[Buffer] = []
    small_bytes = 0
    for piece in pieces:
        if len(piece) >= _WRITTEN_AT_ONCE_BYTES:
            if small:
                yield b"".join(small)
                small, small_bytes = [], 0
            view = memoryview(piece)
            for start in range(0, len(view), _WRITTEN_AT_ONCE_BYTES):
                yield view[start : start + _WRITTEN_AT_ONCE_BYTES]
            continue
        small.append(piece)
        small_bytes += len(piece)
        if small_bytes >= _WRITTEN_AT_ONCE_BYTES:
            yield b"".join(small)
            small, small_bytes = [], 0
    if small:
        yield b"".join(small)


class _Encrypted(Exception):
    pass


def _no_password() -> str:
    raise _Encrypted  # OpenSSL would ask on the terminal


def _why_no_key(error: Exception) -> str:
    if isinstance(error, _Encrypted):
        return "it is encrypted, and nobody is there to type the password. It belongs to"
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return "it does not belong to the certificate in"
    return "no key in PEM that belongs to a certificate in PEM in"


def _first_certificate(path: Path) -> bytes:
    begin, end = _CERTIFICATE
    text = path.read_text(errors="replace")
    start = text.index(begin)
    return ssl.PEM_cert_to_DER_cert(text[start : text.index(end, start) + len(end)])
