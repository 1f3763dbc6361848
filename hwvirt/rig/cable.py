"""The Ethernet cable of a rig that will be cut: a relay between the two controllers, in the runner's hands."""

from __future__ import annotations

import asyncio

from hwvirt.trace import Trace

__all__ = ["Cable"]

_CHUNK_BYTES = 1 << 18


class Cable:
    """Passes bytes between whoever connects to `port` and 127.0.0.1:`far_port`. While cut it passes nothing on.

    A cut is silent, as a pulled cable: connections stay open and hear nothing until the cable heals; what was sent
    meanwhile is lost with the connections, which are reset then. It comes at the worst moment: requests that are just on
    their way still arrive at the far end, and their replies are lost.
    """

    def __init__(self, far_port: int, trace: Trace) -> None:
        self._far_port = far_port
        self._trace = trace
        self._server: asyncio.Server | None = None
        self._whole = asyncio.Event()
        self._whole.set()
        self._lines: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self) -> None:
        """Listens on a free port."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Ends all connections. Idempotent."""
        if self._server is not None:
            self._server.close()
        for line in tuple(self._lines):
            line.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)

    async def cut(self, for_s: float, fault: str) -> None:
        """Nothing passes for `for_s` seconds; then connections are possible again. `fault` names it in the trace."""
        self._trace.emit("fault.fired", fault=fault)
        self._whole.clear()
        try:
            await asyncio.sleep(for_s)  # the fault itself, not a wait
        finally:
            for line in tuple(self._lines):
                line.cancel()
            self._whole.set()
            self._trace.emit("fault.healed", fault=fault)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = asyncio.current_task()
        assert line is not None
        self._lines.add(line)
        try:
            await self._whole.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._far_port)
            try:
                await asyncio.gather(self._pass_requests(reader, far_writer), self._pass_replies(far_reader, writer))
            finally:
                far_writer.transport.abort()
        except (OSError, asyncio.CancelledError):
            pass  # one end is gone, or the cable was cut
        finally:
            self._lines.discard(line)
            writer.transport.abort()

    async def _pass_requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
            await self._whole.wait()
        raise ConnectionResetError("one end has closed")

    async def _pass_replies(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            await self._whole.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("one end has closed")
