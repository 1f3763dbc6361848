"""TCP connections under the link, plain or with TLS: they know bytes, and nothing above."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TypeAlias, cast

from typing_extensions import override

from hwvirt.buffers import Buffer
from hwvirt.link import tls_reasons
from hwvirt.link.config import Role, address_text
from hwvirt.link.connection import Connection
from hwvirt.link.errors import LinkDown
from hwvirt.link.tls import NO_TLS, Channel, Credentials

__all__ = ["Connected", "TcpPort", "TlsPort"]

_UNSENT_BYTES = 1 << 20
"""With this much unsent, requests wait: a slow line costs no more memory than this, one frame, and the replies."""
_LINGER_S = 1.0
_TCP_NODELAY = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
_STRANGERS_READ_BYTES, _PEERS_READ_BYTES = 1 << 12, 1 << 17

Connected: TypeAlias = Callable[["TcpPort", str], Connection]
"""Makes the Connection of a new port; the text names the other end."""


class TcpPort(asyncio.BufferedProtocol):
    """One TCP connection and the Connection on it. `gone` is done when the connection is."""

    def __init__(self, connected: Connected, place: str | None) -> None:
        self._connected = connected
        self._place = place
        self._abort: asyncio.TimerHandle | None = None
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are not asyncio's subclasses
        transport.get_extra_info("socket").setsockopt(*_TCP_NODELAY)
        self._transport.set_write_buffer_limits(high=_UNSENT_BYTES)
        self._place = self._place or _place_of(transport)
        self.connection = self._connected(self, self._place)

    @override
    def get_buffer(self, sizehint: int) -> memoryview:
        return self.connection.writable()

    @override
    def buffer_updated(self, nbytes: int) -> None:
        self.connection.received(nbytes)

    @override
    def pause_writing(self) -> None:
        self.connection.pause()

    @override
    def resume_writing(self) -> None:
        self.connection.resume()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.connection.end(self._lost(exc))
        if self._abort is not None:
            self._abort.cancel()
        self.gone.set_result(None)

    def send(self, buffers: list[Buffer]) -> None:
        """See `Port`."""
        if not self._transport.is_closing():
            self._transport.writelines(buffers)

    def close(self) -> None:
        """See `Port`. Who does not take the rest within a second does without."""
        self._transport.close()
        if self._abort is None:
            self._abort = self.gone.get_loop().call_later(_LINGER_S, self._transport.abort)

    def _lost(self, why: Exception | None) -> LinkDown:
        how = f"broke: {why}" if why else "was closed by the other side"
        return LinkDown(f"link: the connection with {self._place} {how}.")


class TlsPort(TcpPort):
    """A TCP connection with TLS on it. The Connection is there from the start, so its deadlines bound the handshake too."""

    def __init__(self, connected: Connected, place: str | None, credentials: Credentials, role: Role) -> None:
        super().__init__(connected, place)
        self._tls = Channel(credentials, role)
        self._room = memoryview(bytearray(_STRANGERS_READ_BYTES))
        self._early: list[Buffer] = []  # said before the handshake was done: a hello
        self._failed = False

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._shake_hands()

    @override
    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room

    @override
    def buffer_updated(self, nbytes: int) -> None:
        if self._failed or self._transport.is_closing():
            return
        self._tls.received(self._room[:nbytes])
        try:
            if self._shake_hands():
                while size_bytes := self._tls.read_into(self.connection.writable()):
                    self.connection.received(size_bytes)
        except ssl.SSLError as error:
            self._failed = True
            self._carry(self._tls.outgoing() or (NO_TLS if tls_reasons.is_no_tls(error) else b""))
            self.connection.broke(tls_reasons.failed(str(self._place), error, was_up=self.connection.is_up))

    def _shake_hands(self) -> bool:
        if self._tls.binding:
            return True
        done = self._tls.shake_hands()
        self._carry(self._tls.outgoing())
        if done:
            self._room = memoryview(bytearray(_PEERS_READ_BYTES))
            self.connection.session.binding = self._tls.binding
            early, self._early = self._early, []
            self.send(early)
        return done

    @override
    def send(self, buffers: list[Buffer]) -> None:
        if self._failed or self._transport.is_closing():
            return  # the alert was the last word
        if not self._tls.binding:
            self._early += buffers
        elif buffers:
            self._transport.writelines(list(self._tls.write(buffers)))

    def _carry(self, data: bytes) -> None:
        if data and not self._transport.is_closing():
            self._transport.write(data)

    @override
    def close(self) -> None:
        if self._tls.binding and not self._failed:
            self._tls.close()
            self._carry(self._tls.outgoing())
        super().close()

    @override
    def _lost(self, why: Exception | None) -> LinkDown:
        return super()._lost(why) if self._tls.binding else tls_reasons.hung_up(str(self._place))


def _place_of(transport: asyncio.BaseTransport) -> str:
    peer = transport.get_extra_info("peername")
    return address_text(*peer[:2]) if peer else "somebody who has hung up already"
