"""A client that says exactly what a test wants, and a server for it to say it to."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from hwvirt.host.nbd.export import Export
from hwvirt.host.nbd.server import NbdServer
from hwvirt.trace import Event, Trace

HELLO = struct.pack(">I", 3)
SECONDS = 10


def option(kind: int, data: bytes = b"") -> bytes:
    return b"IHAVEOPT" + struct.pack(">II", kind, len(data)) + data


def named(name: str) -> bytes:
    return struct.pack(">I", len(name)) + name.encode()


def request(kind: int, cookie: int, offset: int = 0, length: int = 0, data: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack(">IHHQQI", 0x25609513, flags, kind, cookie, offset, length) + data


class Served:
    """A server on a free port, and every event of its trace."""

    def __init__(self, server: NbdServer, port: int, events: list[Event]) -> None:
        self.server, self.port, self.events = server, port, events
        self.happened = asyncio.Event()

    async def until(self, name: str, count: int = 1) -> list[Event]:
        """Waits for the `count`th event of this name."""
        async with asyncio.timeout(SECONDS):
            while len(found := [event for event in self.events if event.name == name]) < count:
                self.happened.clear()
                await self.happened.wait()
        return found


@asynccontextmanager
async def serving(exports: Sequence[Export]) -> AsyncIterator[Served]:
    trace = Trace("nbd")
    server = NbdServer(exports, trace)
    served = Served(server, await server.listen("127.0.0.1", 0), [])

    def note(event: Event) -> None:
        served.events.append(event)
        served.happened.set()

    trace.subscribe(note)
    try:
        yield served
    finally:
        await server.close()


class RawClient:
    """One connection, read and written by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *parts: bytes) -> None:
        """All parts leave in one write."""
        self.writer.write(b"".join(parts))

    async def take(self, size: int) -> bytes:
        async with asyncio.timeout(SECONDS):
            return await self.reader.readexactly(size)

    async def simple(self, data_bytes: int = 0) -> tuple[int, int, bytes]:
        """Cookie, error and data of one simple reply."""
        magic, error, cookie = struct.unpack(">IIQ", await self.take(16))
        assert magic == 0x67446698
        return cookie, error, await self.take(0 if error else data_bytes)

    async def chunk(self) -> tuple[int, int, int, bytes]:
        """Cookie, flags, type and payload of one chunk of a structured reply."""
        magic, flags, kind, cookie, size = struct.unpack(">IHHQI", await self.take(20))
        assert magic == 0x668E33EF
        return cookie, flags, kind, await self.take(size)

    async def end(self) -> bytes:
        """Whatever comes until the server closes."""
        async with asyncio.timeout(SECONDS):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""


@asynccontextmanager
async def raw(port: int) -> AsyncIterator[RawClient]:
    """Connected and greeted."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = RawClient(reader, writer)
    try:
        yield client
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def opened(port: int, export: str = "disk") -> AsyncIterator[RawClient]:
    """In transmission with simple replies."""
    async with raw(port) as client:
        await client.take(18)
        client.send(HELLO, option(1, export.encode()))
        await client.take(10)
        yield client


@asynccontextmanager
async def opened_structured(port: int, *contexts: str) -> AsyncIterator[RawClient]:
    """In transmission with structured replies, for export "disk"."""
    async with raw(port) as client:
        await client.take(18)
        client.send(HELLO, option(8))
        await client.take(20)
        if contexts:
            queries = struct.pack(">I", len(contexts)) + b"".join(map(named, contexts))
            client.send(option(10, named("disk") + queries))
            for name in contexts:
                await client.take(20 + 4 + len(name))
            await client.take(20)
        client.send(option(7, named("disk") + b"\0\0"))
        await client.take(20 + 12 + 20)
        yield client
