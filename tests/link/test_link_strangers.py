"""Whoever reaches the port and is not the peer: bounded, and without effect on the peer."""

from __future__ import annotations

import asyncio
import gc
import random
import socket
import struct
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from hwvirt.link import messages as m
from hwvirt.link.codec import encode
from hwvirt.link.config import LinkTiming, Role
from hwvirt.link.endpoint import Endpoint
from hwvirt.link.ethernet import Listener
from hwvirt.link.ports import TcpPort
from hwvirt.link.wire import write_frame
from tests.link.link_rig import LinkRig, play, soon, until
from tests.link.link_samples import MESSAGES


@asynccontextmanager
async def _stranger(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def _throw(port: int, data: bytes) -> None:
    """Connects, says it, and waits until the other side has hung up."""
    async with _stranger(port) as (reader, writer):
        writer.write(data)
        with suppress(ConnectionError):
            writer.write_eof()
            await reader.read()


def test_garbage_at_the_port_leaves_a_good_session_unharmed() -> None:
    chance = random.Random(42)
    hello = b"".join(write_frame(0, 0, 0, encode(MESSAGES[0])))

    def garbage() -> bytes:
        match chance.randrange(3):
            case 0:
                return chance.randbytes(chance.randrange(1, 2000))
            case 1:
                return hello + chance.randbytes(chance.randrange(200))
            case _:
                return hello[: chance.randrange(len(hello))] + chance.randbytes(40)

    async def story(rig: LinkRig) -> None:
        a, b = await rig.pair()
        for _ in range(60):
            await asyncio.gather(*(_throw(b.port, garbage()) for _ in range(10)), a.request(m.Flush(1)))
        assert b.statistics.refused_peers > 400
        assert (b.statistics.reconnects, b.statistics.corrupt) == (0, 0)
        assert await a.request(m.Flush(2)) == m.Flushed(2)

    rig = play(story)
    assert len(rig.told("link.refused")) < 20


def test_strangers_cost_no_memory_once_they_are_gone() -> None:
    async def story(rig: LinkRig) -> None:
        b = await rig.endpoint(Role.LISTEN)
        tracemalloc.start()
        try:
            await asyncio.gather(*(_throw(b.port, b"junk" * 100) for _ in range(50)))
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(4):
                await asyncio.gather(*(_throw(b.port, b"junk" * 100) for _ in range(50)))
            gc.collect()
            assert tracemalloc.get_traced_memory()[0] - before < 100_000
        finally:
            tracemalloc.stop()

    play(story)


def test_silent_connection_is_closed_at_the_deadline() -> None:
    async def story(rig: LinkRig) -> None:
        b = await rig.endpoint(Role.LISTEN)
        async with _stranger(b.port) as (reader, _):
            assert await reader.read() == b""
        assert b.last_error is not None
        assert b.last_error.reason.endswith("did not prove itself within 0.3 s.")

    play(story)


def test_many_silent_connections_do_not_keep_the_peer_out() -> None:
    async def story(rig: LinkRig) -> None:
        b = await rig.endpoint(Role.LISTEN, timing=LinkTiming(handshake_s=60))
        async with AsyncExitStack() as stack:
            strangers = [await stack.enter_async_context(_stranger(b.port)) for _ in range(40)]
            a = await rig.endpoint(Role.CONNECT, b.port)
            await asyncio.gather(a.wait_up(soon()), b.wait_up(soon()))
            for reader, _ in strangers[:20]:
                assert await reader.read() == b""

    play(story)


_SAYINGS = {"nothing": b"", "half a header": b"HWVL\x01\x01", "a hello": b"".join(write_frame(0, 0, 0, encode(MESSAGES[0])))}
_PATIENT = LinkTiming(handshake_s=60)


async def _come(port: int, said: bytes) -> socket.socket:
    """A stranger who connects, says something and waits. He is a socket only, and reads nothing."""
    stranger = socket.socket()
    stranger.setblocking(False)
    with suppress(ConnectionError):
        await asyncio.get_running_loop().sock_connect(stranger, ("127.0.0.1", port))
        await asyncio.get_running_loop().sock_sendall(stranger, said)
    return stranger


@pytest.mark.parametrize("said", _SAYINGS)
def test_a_thousand_strangers_at_once_disturb_nobody_and_cost_little(said: str) -> None:
    async def story(rig: LinkRig) -> None:
        a, b = await rig.pair(timing=_PATIENT)
        crowd = [await _come(b.port, _SAYINGS[said]) for _ in range(50)]
        gc.collect()
        tracemalloc.start()
        try:
            for batch in range(19):
                coming = asyncio.gather(*(_come(b.port, _SAYINGS[said]) for _ in range(50)))
                assert await a.request(m.Flush(batch)) == m.Flushed(batch)
                crowd += await coming
            await until(lambda: len(_ports(b)) <= 17)
            gc.collect()
            assert tracemalloc.get_traced_memory()[0] < 1 << 20
        finally:
            tracemalloc.stop()
        assert len(crowd) == 1000
        assert (b.statistics.reconnects, b.statistics.corrupt, b.peer) == (0, 0, b.peer)
        await a.close()
        again = await rig.endpoint(Role.CONNECT, b.port, timing=_PATIENT)
        await again.wait_up(soon())
        for stranger in crowd:
            stranger.close()

    play(story)


def _ports(endpoint: Endpoint) -> set[TcpPort]:
    """Its TCP connections."""
    transport = endpoint._transport
    assert isinstance(transport, Listener)
    return transport._ports


@pytest.mark.parametrize("said", _SAYINGS)
def test_strangers_who_never_cease_to_come_do_not_keep_the_peer_out(said: str) -> None:
    async def story(rig: LinkRig) -> None:
        b = await rig.endpoint(Role.LISTEN, timing=_PATIENT)
        crowd: list[socket.socket] = []
        a_is_in = asyncio.Event()

        async def come_and_come() -> None:
            while not a_is_in.is_set():
                crowd.append(await _come(b.port, _SAYINGS[said]))
                if len(crowd) > 100:
                    crowd.pop(0).close()

        flood = [asyncio.create_task(come_and_come()) for _ in range(4)]
        await until(lambda: len(_ports(b)) >= 16)
        a = await rig.endpoint(Role.CONNECT, b.port)
        try:
            await a.wait_up(soon())
            assert await a.request(m.Flush(1)) == m.Flushed(1)
        finally:
            a_is_in.set()
            await asyncio.gather(*flood)
        for stranger in crowd:
            stranger.close()

    play(story)


def test_stranger_who_has_hung_up_before_he_is_looked_at_raises_nothing() -> None:
    async def story(rig: LinkRig) -> None:
        unhandled: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: unhandled.append(context))
        a, b = await rig.pair()
        for _ in range(20):
            for stranger in await asyncio.gather(*(_come(b.port, b"") for _ in range(20))):
                stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                stranger.close()
            assert await a.request(m.Flush(1)) == m.Flushed(1)
        await until(lambda: len(_ports(b)) == 1)
        assert unhandled == []

    play(story)
    play(story, asyncio.run)


def test_stranger_who_speaks_slowly_is_closed_at_the_deadline() -> None:
    async def story(rig: LinkRig) -> None:
        b = await rig.endpoint(Role.LISTEN)
        async with _stranger(b.port) as (reader, writer):
            hung_up = asyncio.create_task(reader.read())
            with suppress(ConnectionError):
                for byte in _SAYINGS["a hello"]:
                    if hung_up.done():
                        break
                    writer.write(bytes([byte]))
                    await asyncio.wait([hung_up], timeout=0.02)
            with suppress(ConnectionError):  # what he still said may have been in the way of a quiet end
                assert await hung_up == b""
        assert b.last_error is not None
        assert b.last_error.reason.endswith("did not prove itself within 0.3 s.")

    play(story)


def test_port_is_free_again_after_close() -> None:
    async def story(rig: LinkRig) -> None:
        a, b = await rig.pair()
        await b.close()
        again = await rig.endpoint(Role.LISTEN, b.port)
        await asyncio.gather(a.wait_up(soon()), again.wait_up(soon()))

    play(story)
