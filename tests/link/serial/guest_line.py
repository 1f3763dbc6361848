"""Runs inside a kernel of the lab: one end of a serial line. `a` writes to `b` and tells what it took, one line of JSON.

python -m tests.link.serial.guest_line (a|b) BAUD [WRITES]
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time

import uvloop

from hwvirt.digest import block_digests
from hwvirt.link import messages as m
from hwvirt.link.baud import line_s
from hwvirt.link.config import Identity, Role, SerialLink
from hwvirt.link.endpoint import Endpoint
from hwvirt.link.errors import LinkDown
from hwvirt.trace import Trace
from hwvirt.units import FOREVER, Deadline
from tests.link.link_rig import echo
from tests.link.pair import SECRET

BLOCK = 4096


def write_of(data: bytes) -> m.Write:
    return m.Write(0, 0, [m.Slice(0, 1, 1)], [data], block_digests([data], BLOCK))


async def writes_per_s(endpoint: Endpoint, writes: list[m.Write], depth: int) -> float:
    left = iter(writes)

    async def one_after_the_other() -> None:
        for write in left:
            assert isinstance(await endpoint.request(write), m.Written)

    began = time.monotonic()
    await asyncio.gather(*(one_after_the_other() for _ in range(depth)))
    return len(writes) / (time.monotonic() - began)


def wire_bytes(endpoint: Endpoint) -> int:
    assert endpoint.line is not None
    return endpoint.line.sent_bytes + endpoint.line.received_bytes


async def measure(endpoint: Endpoint, baud: int) -> None:
    chance, byte_s = random.Random(1), line_s(1, baud)
    alone, deep = [], 0.0
    for _ in range(3):
        before = wire_bytes(endpoint)
        rate = await writes_per_s(endpoint, [write_of(chance.randbytes(BLOCK))], 1)
        alone.append(1 / rate / ((wire_bytes(endpoint) - before) * byte_s))
    for _ in range(3):  # other programs take the processor away
        if deep * BLOCK * byte_s < 0.93:
            deep = max(deep, await writes_per_s(endpoint, [write_of(chance.randbytes(BLOCK)) for _ in range(24)], 8))
    zeros = await writes_per_s(endpoint, [write_of(bytes(BLOCK))] * 100, 8)
    found = {"alone": sorted(alone)[1], "deep": deep * BLOCK * byte_s, "zeros": zeros * BLOCK * byte_s}
    print(json.dumps(found | {"reconnects": endpoint.statistics.reconnects}), flush=True)


async def write_for_ever(endpoint: Endpoint) -> None:
    chance = random.Random(2)
    while True:
        await endpoint.wait_up(FOREVER)
        try:
            await endpoint.request(write_of(chance.randbytes(BLOCK)))
            print("answered", flush=True)
        except LinkDown:
            print("down", flush=True)


async def main(baud: int, task: str) -> None:
    name, role = ("b", Role.LISTEN) if task == "answer" else ("a", Role.CONNECT)
    trace = Trace(name)
    trace.subscribe(lambda event: print(event.line(), file=sys.stderr, flush=True))
    endpoint = Endpoint(Identity(name, time.time_ns()), SerialLink(role, "/dev/ttyS0", baud, SECRET), trace)
    endpoint.on_request = echo
    await endpoint.start()
    print("ready", flush=True)
    if task == "answer":
        await asyncio.get_running_loop().create_future()  # until the power is cut
    await endpoint.wait_up(Deadline.after(60))
    if task == "write":
        await write_for_ever(endpoint)
    await measure(endpoint, baud)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
