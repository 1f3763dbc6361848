"""What a serial line's rate leaves for the floors above, measured on real lines and in real time.

    .venv/bin/python tools/serial_speed.py [--rounds 3]

Two lines: 115,200 baud between two kernels of the lab, and 3,000,000 baud between two ptys behind a cable that paces to the
line rate. In both of them one controller's end of the link writes blocks of 4 KiB to the other. The figures are payload as a
share of the line rate (random data, text, zeroes; eight writes at a time), and how long one write alone takes beside the
time of its bytes on the wire. The best of some rounds counts: other programs take the processor away.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import uvloop

from hwvirt.digest import block_digests
from hwvirt.errors import HwvirtError
from hwvirt.lab.cables import SerialCable
from hwvirt.lab.kernel import Kernel
from hwvirt.link import messages as m
from hwvirt.link.baud import line_s
from hwvirt.link.config import Identity, Role, SerialLink
from hwvirt.link.endpoint import Endpoint, Responder
from hwvirt.rig.pty_line import PtyLine
from hwvirt.trace import Trace
from hwvirt.units import Deadline

BLOCK = 4096
DEPTH = 8
SECRET = b"measured"
UP_S = 60.0
LAB_BAUD, PTY_BAUD = 115_200, 3_000_000
PTY_BYTES = 3400
WORDS = b"the position comes back in a message from a machine that may crash by itself; "


def write_of(data: bytes) -> m.Write:
    """One block for the other end."""
    return m.Write(0, 0, [m.Slice(0, 1, 1)], [data], block_digests([data], BLOCK))


def written(request: m.Request, responder: Responder) -> None:
    """The other end: every block has found a place at once."""
    assert isinstance(request, m.Write)
    responder.reply(m.Written(1, [m.Placement(0, 1, len(request.digests))]))


async def seconds_for(endpoint: Endpoint, blocks: list[bytes], depth: int) -> float:
    """How long so many writes take."""
    left = iter([write_of(data) for data in blocks])

    async def one_after_the_other() -> None:
        for write in left:
            assert isinstance(await endpoint.request(write), m.Written)

    began = time.monotonic()
    await asyncio.gather(*(one_after_the_other() for _ in range(depth)))
    return time.monotonic() - began


async def measure(endpoint: Endpoint, baud: int, rounds: int) -> dict[str, float]:
    """Payload as a share of the line rate, by what is written; and time beside line time of one write."""
    chance, byte_s = random.Random(1), line_s(1, baud)
    text = [(WORDS[number % 70 :] + WORDS * 60)[:BLOCK] for number in range(100)]
    many = max(24, baud // 12_000)
    payloads: dict[str, Callable[[], list[bytes]]] = {
        "random": lambda: [chance.randbytes(BLOCK) for _ in range(many)],
        "text": lambda: text * max(1, baud // 300_000),
        "zeroes": lambda: [bytes(BLOCK)] * (4 * many),
    }
    found = dict.fromkeys(payloads, 0.0)
    for _ in range(rounds):
        for name, blocks in payloads.items():
            made = blocks()
            share = len(made) * BLOCK * byte_s / await seconds_for(endpoint, made, DEPTH)
            found[name] = max(found[name], share)
    alone = []
    assert endpoint.line is not None
    for _ in range(3 * rounds):
        before = endpoint.line.sent_bytes + endpoint.line.received_bytes
        seconds = await seconds_for(endpoint, [chance.randbytes(BLOCK)], 1)
        wire_bytes = endpoint.line.sent_bytes + endpoint.line.received_bytes - before
        alone.append(seconds / (wire_bytes * byte_s))
    alone.sort()
    return found | {"alone": alone[len(alone) // 2], "alone, best": alone[0], "again": float(endpoint.line.resent_segments)}


async def end_of_line(task: str, device: str, baud: int, rounds: int) -> None:
    """One end, in a process of its own: answers until it is killed, or measures and prints what it found."""
    name, role = ("b", Role.LISTEN) if task == "answer" else ("a", Role.CONNECT)
    link = SerialLink(role, device, baud, SECRET, receive_buffer_bytes=PTY_BYTES)
    endpoint = Endpoint(Identity(name, time.time_ns()), link, Trace(name))
    endpoint.on_request = written
    await endpoint.start()
    print("ready", flush=True)
    if task == "answer":
        await asyncio.get_running_loop().create_future()
    await endpoint.wait_up(Deadline.after(UP_S))
    print(json.dumps(await measure(endpoint, baud, rounds)), flush=True)
    await endpoint.close()


def command(task: str, device: str, baud: int, rounds: int) -> list[str]:
    """What runs one end."""
    return [sys.executable, str(Path(__file__).resolve()), "--end", task, device, str(baud), "--rounds", str(rounds)]


def between_kernels(rounds: int) -> dict[str, float]:
    """The line of two kernels of the lab."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hwvirt-speed-")))
        cable = stack.enter_context(SerialCable(LAB_BAUD))
        a, b = (
            stack.enter_context(Kernel(name, place / name, cables=[end])) for name, end in zip("ab", cable.ends, strict=True)
        )
        assert b.start(command("answer", "/dev/ttyS0", LAB_BAUD, rounds)).line(Deadline.after(UP_S)) == "ready"
        job = a.start(command("measure", "/dev/ttyS0", LAB_BAUD, rounds))
        assert job.line(Deadline.after(UP_S)) == "ready"
        line = job.line(Deadline.after(UP_S * (rounds + 1)))
        assert line is not None, a.console.read_text()
        found: dict[str, float] = json.loads(line)
        return found


async def line_of(process: asyncio.subprocess.Process) -> bytes:
    """The next line of its output."""
    assert process.stdout is not None
    return await process.stdout.readline()


async def between_ptys(rounds: int) -> dict[str, float]:
    """Two ptys behind a cable that lets through what the line does."""
    cable = PtyLine("a", "b", (), 1, PTY_BAUD)
    await cable.start()
    ends: list[asyncio.subprocess.Process] = []
    try:
        for task, name in (("answer", "b"), ("measure", "a")):
            argv = command(task, cable.devices[name], PTY_BAUD, rounds)
            ends.append(await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE))
            assert await line_of(ends[-1]) == b"ready\n"
        found: dict[str, float] = json.loads(await line_of(ends[-1]))
        return found
    finally:
        for end in ends:
            if end.returncode is None:
                end.kill()
            await end.wait()
        await cable.close()


def show(line: str, found: dict[str, float]) -> None:
    """One row of the table."""
    shares = "".join(f"{found[name]:>10.1%}" for name in ("random", "text", "zeroes"))
    print(f"{line:<28}{shares}{found['alone']:>9.3f}{found['alone, best']:>9.3f}{found['again']:>9.0f}")


def main() -> int:
    """Prints the table, or plays one end of a line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--end", nargs=3, metavar=("TASK", "DEVICE", "BAUD"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.end is not None:
        task, device, baud = options.end
        uvloop.run(end_of_line(task, device, int(baud), options.rounds))
        return 0
    print(f"{'line':<28}{'random':>10}{'text':>10}{'zeroes':>10}{'alone':>9}{'best':>9}{'again':>9}")
    try:
        show(f"{PTY_BAUD:,} baud, two ptys", uvloop.run(between_ptys(options.rounds)))
        show(f"{LAB_BAUD:,} baud, two kernels", between_kernels(options.rounds))
    except HwvirtError as error:
        print(f"serial_speed: {error}", file=sys.stderr)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
