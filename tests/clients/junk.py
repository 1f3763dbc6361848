"""What reaches a port that anybody can connect to: noise, and proper talk with bytes changed, lost, doubled or cut off."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator
from typing import cast

from hwvirt.link.codec import encode
from hwvirt.link.wire import write_frame
from tests.host.raw_client import HELLO, named, option, request
from tests.link.link_samples import MESSAGES
from tests.link.pair import LinkPair

AT_ONCE = 16
BLOCK = 4096
HANG_S = 20.0

_EXPORT = "lun0"
_TALK = HELLO + option(3) + option(8) + option(10, named(_EXPORT) + b"\0\0\0\0") + option(7, named(_EXPORT) + b"\0\0")
_REQUESTS = (
    request(0, 1, 0, BLOCK)
    + request(1, 2, BLOCK, BLOCK, b"g" * BLOCK)
    + request(4, 4, 0, 2 * BLOCK)
    + request(6, 5, 0, 2 * BLOCK, flags=2)
    + request(7, 6, 0, BLOCK)
    + request(5, 7, 0, BLOCK)
    + request(3, 3)
)


def nbd_junk(chance: random.Random) -> Iterator[bytes]:
    """For the NBD port. What is written by it is written to LUN 0, and never to another one."""
    while True:
        yield chance.randbytes(chance.randrange(1, 200))
        yield HELLO + chance.randbytes(chance.randrange(1, 200))
        yield HELLO + b"".join(option(chance.randrange(12), chance.randbytes(chance.randrange(40))) for _ in range(4))
        yield _TALK + chance.randbytes(chance.randrange(1, 200))
        yield _mutated(_TALK + _REQUESTS, chance)


def link_junk(chance: random.Random) -> Iterator[bytes]:
    """For the link port: noise, another pair's session said again, frames of every kind out of place."""
    overheard = b"".join(LinkPair.up().a.cable.seen)
    hello = b"".join(write_frame(0, 0, 0, encode(MESSAGES[0])))
    while True:
        frame = b"".join(write_frame(chance.randrange(3), chance.randrange(3), 0, encode(chance.choice(MESSAGES))))
        yield chance.randbytes(chance.randrange(1, 2000))
        yield overheard
        yield _mutated(overheard, chance)
        yield hello + frame
        yield _mutated(hello + frame, chance)


def control_junk(chance: random.Random) -> Iterator[bytes]:
    """Lines for the control socket."""
    words: list[object] = ["status", "map", "ledger", "flush", "lun", "verb", "", None, True, -1, 1.5, 1 << 70, [], {}, "é"]
    while True:
        asked = {str(chance.choice(words)): chance.choice(words) for _ in range(3)}
        verb = {"verb": chance.choice(["map", "ledger", "flush", "status", *words])}
        line = json.dumps(asked | verb if chance.random() < 0.8 else chance.choice(words)).encode()
        yield line + b"\n"
        yield _mutated(line, chance) + b"\n"
        yield chance.randbytes(chance.randrange(200)) + b"\n"


def _mutated(data: bytes, chance: random.Random) -> bytes:
    mutated = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        if not mutated:
            break
        at = chance.randrange(len(mutated))
        match chance.randrange(4):
            case 0:
                mutated[at] ^= 1 << chance.randrange(8)
            case 1:
                del mutated[at : at + chance.randrange(1, 9)]
            case 2:
                mutated[at:at] = mutated[at : at + chance.randrange(1, 40)]
            case _:
                mutated[at] = chance.randrange(256)
    return bytes(mutated[: chance.randint(0, len(mutated))] if chance.random() < 0.5 else mutated)


class _Thrower(asyncio.Protocol):
    """Says one thing, then listens until it is hung up on."""

    def __init__(self, what: bytes) -> None:
        self._what = what
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        talking = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses of it
        talking.write(self._what)
        talking.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set_result(None)


async def throw(port: int, junk: Iterator[bytes], count: int, check: Callable[[], None]) -> None:
    """Throws `count` pieces of junk at a port, several at once; each must be hung up on. `check` runs now and then."""

    async def one_after_another(pieces: int) -> None:
        loop = asyncio.get_running_loop()
        for number in range(pieces):
            talking, thrower = await loop.create_connection(lambda: _Thrower(next(junk)), "127.0.0.1", port)
            try:
                async with asyncio.timeout(HANG_S):
                    await thrower.gone
            finally:
                talking.abort()
            if number % 100 == 0:
                check()

    await asyncio.gather(*(one_after_another(count // AT_ONCE) for _ in range(AT_ONCE)))
