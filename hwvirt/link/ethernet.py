"""The link over TCP: who listens, who connects, and the pauses between attempts."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import socket
from collections.abc import Callable
from contextlib import suppress

from hwvirt.errors import LinkError
from hwvirt.link.config import EthernetLink, LinkTiming, address_text
from hwvirt.link.connection import Connection
from hwvirt.link.errors import LinkDown
from hwvirt.link.ports import Connected, TcpPort, TlsPort
from hwvirt.link.tls import load_credentials

__all__ = ["Backoff", "Dialler", "Listener"]

_BACKLOG = 1024
"""Connections that wait to be taken: where more come at once, the kernel lets the peer try again after a second."""


def _ports(link: EthernetLink, connected: Connected, place: str | None) -> Callable[[], TcpPort]:
    """What makes the ports of a link. Raises UsageError for TLS files that cannot be used."""
    if link.tls is None:
        return lambda: TcpPort(connected, place)
    credentials = load_credentials(link.tls, link.role)
    return lambda: TlsPort(connected, place, credentials, link.role)


class Listener:
    """Takes connections at an address. Raises UsageError for TLS files that cannot be used."""

    def __init__(self, link: EthernetLink, connected: Connected) -> None:
        self._link = link
        self._connected = connected
        self._port_of = _ports(link, self._accept, None)
        self._ports: set[TcpPort] = set()
        self._server: asyncio.Server | None = None
        self._closed = False
        self.port = link.port

    async def start(self) -> None:
        """Listens from now on; `port` is then the real one. Raises LinkError when the address cannot be had."""
        host, port = self._link.host, self._link.port
        try:
            self._server = await asyncio.get_running_loop().create_server(self._port_of, host, port, backlog=_BACKLOG)
        except OSError as error:
            raise _cannot_listen(error, address_text(host, port)) from error
        self.port = self._server.sockets[0].getsockname()[1]

    def _accept(self, port: TcpPort, place: str) -> Connection:
        connection = self._connected(port, place)
        if self._closed:
            connection.end(_closed())
        else:
            self._ports.add(port)
            port.gone.add_done_callback(lambda _: self._ports.discard(port))
        return connection

    async def close(self) -> None:
        """Listens no more; returns when all connections, which it ends, are gone."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        if ports := tuple(self._ports):
            for port in ports:
                port.connection.end(_closed())
            await asyncio.wait([port.gone for port in ports])


class Dialler:
    """Connects to an address again and again, one connection at a time. Raises UsageError like `Listener`."""

    def __init__(self, link: EthernetLink, connected: Connected, unreachable: Callable[[LinkError], None]) -> None:
        self._link = link
        self._unreachable = unreachable
        self._port_of = _ports(link, connected, address_text(link.host, link.port))
        self._backoff = Backoff(link.timing, link.seed)
        self._task: asyncio.Task[None] | None = None
        self.port = link.port

    async def start(self) -> None:
        """Begins to dial; what goes wrong is told to `unreachable`."""
        self._task = asyncio.create_task(self._keep_dialling())

    async def _keep_dialling(self) -> None:
        while True:
            port = await self._dial()
            if port is not None:
                try:
                    await asyncio.wait([port.gone])
                finally:
                    if not port.gone.done():
                        port.connection.end(_closed())
                        await asyncio.wait([port.gone])
                if port.connection.session.peer is not None:
                    self._backoff.reset()
            await asyncio.sleep(self._backoff.next_s())

    async def _dial(self) -> TcpPort | None:
        link, within_s = self._link, self._link.timing.handshake_s
        place = address_text(link.host, link.port)
        try:
            async with asyncio.timeout(within_s):
                _, port = await asyncio.get_running_loop().create_connection(self._port_of, link.host, link.port)
        except OSError as error:  # TimeoutError is one
            self._unreachable(_cannot_reach(error, place, within_s))
            return None
        return port

    async def close(self) -> None:
        """Dials no more; returns when the connection, which it ends, is gone."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task


class Backoff:
    """Pauses that double up to the last, each between half and all of that, the same for the same seed."""

    def __init__(self, timing: LinkTiming, seed: int) -> None:
        self._timing = timing
        self._random = random.Random(seed)
        self._attempts = 0

    def next_s(self) -> float:
        """Seconds until the next attempt."""
        longest = min(self._timing.last_retry_s, self._timing.first_retry_s * 2.0**self._attempts)
        self._attempts = min(self._attempts + 1, 30)
        return longest * self._random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """The last attempt was a success."""
        self._attempts = 0


def _closed() -> LinkDown:
    return LinkDown("link: closed by this controller.")


def _cannot_listen(error: OSError, place: str) -> LinkError:
    if error.errno == errno.EADDRINUSE:
        taken = f"link: {place} is taken by another program."
        return LinkError(taken, next_step="Choose another port, or end that program.")
    if error.errno == errno.EADDRNOTAVAIL:
        return LinkError(f"link: {place} is no address of this machine.", next_step="Correct the address.")
    return LinkError(f"link: cannot listen on {place}: {_why(error)}.", next_step="Choose another address.")


def _cannot_reach(error: OSError, place: str, within_s: float) -> LinkError:
    if isinstance(error, ConnectionRefusedError):
        nobody = f"link: nobody listens on {place}."
        return LinkError(nobody, next_step="Start the other controller, or correct the address.")
    if isinstance(error, TimeoutError):
        mute = f"link: {place} does not answer within {within_s:g} s."
        return LinkError(mute, next_step="Check the cable and the address.")
    return LinkError(f"link: cannot reach {place}: {_why(error)}.", next_step="Check the address.")


def _why(error: OSError) -> str:
    # gaierror counts its own numbers; the loop's own texts repeat the address.
    if isinstance(error, socket.gaierror) or error.errno is None:
        return str(error.strerror or error).rstrip(".")
    return os.strerror(error.errno)
