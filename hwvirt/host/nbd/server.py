"""Exports logical units to NBD clients. Ref: NetworkBlockDevice/nbd doc/proto.md."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from errno import EADDRINUSE

from hwvirt.errors import InfrastructureError
from hwvirt.host.nbd.connection import Connection
from hwvirt.host.nbd.export import Export
from hwvirt.trace import Trace

__all__ = ["Export", "NbdServer"]

_MAX_CONNECTIONS = 64
_GOODBYE_SECONDS = 5.0


class NbdServer:
    """Serves its exports to many clients at once; the first export is the default one."""

    def __init__(self, exports: Sequence[Export], trace: Trace) -> None:
        self._exports = tuple(exports)
        self._trace = trace
        self._server: asyncio.Server | None = None
        self._connections: dict[Connection, None] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    async def listen(self, host: str, port: int) -> int:
        """Listens, on a free port when `port` is 0; returns the port. Raises InfrastructureError when it cannot."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._connection, host, port)
        except OSError as error:
            if error.errno == EADDRINUSE:
                raise InfrastructureError(
                    f"NBD port {port} of {host} is taken.",
                    next_step=f"Stop what listens there (ss -ltnp 'sport = :{port}'), or give port 0 for a free one.",
                ) from error
            raise InfrastructureError(
                f"cannot listen for NBD on {host} port {port}: {error.strerror or error}.",
                next_step="Give an address of this machine and a port that you may use.",
            ) from error
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Takes no more requests, answers those in flight and closes; cuts off whoever holds that up. Idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in tuple(self._connections):
            connection.finish()
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self._empty.wait()
        except TimeoutError:
            for connection in tuple(self._connections):
                connection.drop("the server is closing")

    def entered(self, connection: Connection) -> None:
        """A client is there. With one too many goes the oldest that has opened nothing: silent ones keep nobody out."""
        self._connections[connection] = None
        self._empty.clear()
        if len(self._connections) > _MAX_CONNECTIONS:
            oldest = next(each for each in self._connections if each.shaking_hands)  # at the latest this one
            oldest.drop(f"more than {_MAX_CONNECTIONS} connections, and this one has opened no export yet")

    def left(self, connection: Connection) -> None:
        """The client is gone and none of its requests is in flight any more."""
        self._connections.pop(connection, None)
        if not self._connections:
            self._empty.set()

    def _connection(self) -> Connection:
        return Connection(self._exports, self._trace, self)
