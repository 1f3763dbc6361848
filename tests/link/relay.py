"""A cable between two TCP ports of this machine, in the hands of somebody who sees every byte and may change it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import cast

__all__ = ["BACK", "THERE", "Carry", "impostor", "relay", "talk"]

THERE, BACK = 0, 1

Carry = Callable[[bytes, int], bytes]
"""What becomes of bytes as they pass; the number says whether they go THERE, to the listener, or BACK."""


@asynccontextmanager
async def relay(far_port: int, carry: Carry) -> AsyncIterator[int]:
    """The port of a cable to `far_port`. Whoever uses it has closed his connections when this ends."""
    carrying: set[asyncio.Future[tuple[None, None]]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: int) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(carry(data, way))
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", far_port)
        except ConnectionError:
            writer.close()
            return
        carrying.add(asyncio.gather(pump(reader, far_writer, THERE), pump(far_reader, writer, BACK)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*carrying)


async def talk(port: int, *said: bytes) -> bytes:
    """What a stranger hears who connects and says all this, one piece after the other, and then waits for the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        with suppress(ConnectionError):
            for piece in said:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            return await reader.read()
    finally:
        writer.close()
    return b""


class _Impostor(asyncio.Protocol):
    def __init__(self, told: bytes, heard: bytearray) -> None:
        self._told, self._heard = told, heard

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._told)  # uvloop's transports are not asyncio's subclasses

    def data_received(self, data: bytes) -> None:
        self._heard.extend(data)


@asynccontextmanager
async def impostor(told: bytes, heard: bytearray) -> AsyncIterator[int]:
    """The port of somebody who tells everybody `told`, at once, and keeps all that he hears, also when he is cut off."""
    server = await asyncio.get_running_loop().create_server(lambda: _Impostor(told, heard), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
