"""Joins two addresses of a guest: `python -m hwvirt.lab.guest.relay LISTEN CONNECT`.

An address is the path of a unix socket, or HOST:PORT; LISTEN may be "-", standard input and output, for one connection. So a
control socket of one kernel can be reached from another kernel over their Ethernet, and from the launcher over a job's line.
Once it listens, or is connected, it prints a line.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

__all__ = ["main"]

_CHUNK_BYTES = 1 << 16
_STDIO = "-"
_Serve: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if "/" in address:
        return await asyncio.open_unix_connection(address)
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def _listen(address: str, serve: _Serve) -> asyncio.Server:
    if "/" in address:
        return await asyncio.start_unix_server(serve, address)
    host, _, port = address.rpartition(":")
    return await asyncio.start_server(serve, host, int(port))


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Until either side ends; then the target learns it."""
    try:
        while data := await source.read(_CHUNK_BYTES):
            target.write(data)
            await target.drain()
        if target.can_write_eof():
            target.write_eof()
    except OSError:
        target.close()


async def _stdio(address: str) -> None:
    loop = asyncio.get_running_loop()
    reader, writer = await _connect(address)
    print("connected", flush=True)
    loop.add_reader(0, lambda: writer.write(os.read(0, _CHUNK_BYTES)))
    while data := await reader.read(_CHUNK_BYTES):
        os.write(1, data)


async def _relay(listen: str, connect: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await _connect(connect)
        except OSError as error:
            print(f"{connect}: {error}", file=sys.stderr)
            writer.close()
            return
        await asyncio.gather(_carry(reader, far_writer), _carry(far_reader, writer))
        far_writer.close()
        writer.close()

    server = await _listen(listen, serve)
    print("listening", flush=True)
    async with server:
        await server.serve_forever()


def main(argv: Sequence[str]) -> int:
    """Runs until it is killed, or until the one connection of standard input and output ends."""
    _, listen, connect = argv
    asyncio.run(_stdio(connect) if listen == _STDIO else _relay(listen, connect))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
