"""Ten thousand bad clients: each is closed with an event, nothing grows, and a good client does not notice."""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import uvloop

from hwvirt.host.initiator import Answer, Op
from hwvirt.host.nbd.client import NbdInitiator
from tests.host.ram_unit import RamUnit
from tests.host.raw_client import HELLO, named, option, request, serving

INPUTS = 10_000
WARM_UP = 1_000
AT_ONCE = 16
BLOCK = 4096
MOST_GROWTH_BYTES = 12 << 20
MOST_GROWTH_OBJECTS = 500

HANDSHAKE = HELLO + option(3) + option(8) + option(10, named("disk") + b"\0\0\0\0") + option(7, named("disk") + b"\0\0")
REQUESTS = (
    request(0, 1, 0, BLOCK)
    + request(1, 2, BLOCK, BLOCK, b"g" * BLOCK)
    + request(3, 3)
    + request(4, 4, 0, 2 * BLOCK)
    + request(6, 5, 0, 2 * BLOCK, flags=2)
    + request(7, 6, 0, BLOCK)
    + request(5, 7, 0, BLOCK)
)


def bad_inputs(rng: random.Random) -> Iterator[bytes]:
    """Noise before and after a proper handshake, and proper sessions with bytes changed, lost, doubled or cut off."""
    while True:
        yield rng.randbytes(rng.randrange(1, 200))
        yield HELLO + rng.randbytes(rng.randrange(1, 200))
        yield HELLO + b"".join(option(rng.randrange(12), rng.randbytes(rng.randrange(40))) for _ in range(4))
        yield HANDSHAKE + rng.randbytes(rng.randrange(1, 200))
        session = bytearray(HANDSHAKE + REQUESTS)
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(session))
            match rng.randrange(4):
                case 0:
                    session[at] = rng.randrange(256)
                case 1:
                    del session[at : at + rng.randrange(1, 9)]
                case 2:
                    session[at:at] = session[at : at + rng.randrange(1, 40)]
                case _:
                    session[at] ^= 1 << rng.randrange(8)
        yield bytes(session[: rng.randint(1, len(session))])


class BadClient(asyncio.Protocol):
    """Says one thing, then listens until it is hung up on."""

    def __init__(self, what: bytes) -> None:
        self.what = what
        self.gone = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        talking = cast(asyncio.Transport, transport)
        talking.write(self.what)
        talking.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set_result(None)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_ten_thousand_bad_clients_harm_nobody() -> None:
    async def scenario() -> None:
        unit, spoilt = RamUnit(256), RamUnit(256)
        inputs = bad_inputs(random.Random(2))
        async with serving([spoilt.export(), unit.export("good")]) as served:
            counts: dict[str, int] = {}
            enough = asyncio.Event()
            good = await NbdInitiator.connect("127.0.0.1", served.port, "good")

            async def suffer(inputs_each: int) -> None:
                loop = asyncio.get_running_loop()
                for _ in range(inputs_each):
                    await suffer_once(loop, BadClient(next(inputs)))

            async def suffer_once(loop: asyncio.AbstractEventLoop, client: BadClient) -> None:
                await loop.create_connection(lambda: client, "127.0.0.1", served.port)
                async with asyncio.timeout(10):
                    await client.gone
                count()

            async def ask(op: Op, lba: int, *data: bytes) -> Answer:
                answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
                good.submit(op, lba, 1, data, answered.set_result)
                return await answered

            async def work() -> None:
                """A good client, on an export that no bad one opens."""
                rounds = 0
                while not enough.is_set():
                    lba, data = rounds % 256, bytes([rounds % 251]) * BLOCK
                    assert await ask(Op.WRITE, lba, data) == Answer(0)
                    answer = await ask(Op.READ, lba)
                    assert (answer.error, b"".join(answer.data)) == (0, data)
                    unit.forget()
                    spoilt.forget()
                    rounds += 1

            def count() -> None:
                for event in served.events:
                    counts[event.name] = counts.get(event.name, 0) + 1
                served.events.clear()

            working = asyncio.ensure_future(work())
            try:
                await asyncio.gather(*(suffer(WARM_UP // AT_ONCE) for _ in range(AT_ONCE)))
                gc.collect()
                objects, resident = len(gc.get_objects()), resident_bytes()
                await asyncio.gather(*(suffer((INPUTS - WARM_UP) // AT_ONCE + 1) for _ in range(AT_ONCE)))
                gc.collect()
                assert len(gc.get_objects()) - objects < MOST_GROWTH_OBJECTS
                assert resident_bytes() - resident < MOST_GROWTH_BYTES
                assert not working.done(), "the good client was harmed"
            finally:
                enough.set()
                await working
            assert counts["nbd.connected"] == counts["nbd.disconnected"] + 1 >= INPUTS
            assert counts["nbd.dropped"] > INPUTS // 4
            assert "nbd.failed" not in counts
            await good.close()

    uvloop.run(scenario())
