"""The initiator: against our server, against scripted servers, and against servers of others."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from errno import ECONNRESET, EINVAL, EIO, ENOSPC, ENOTCONN, EPERM
from functools import partial
from pathlib import Path

import pytest
import uvloop

from hwvirt.buffers import Pieces, joined
from hwvirt.errors import InfrastructureError
from hwvirt.host.initiator import Answer, Initiator, Op
from hwvirt.host.nbd import client as client_module
from hwvirt.host.nbd.client import NbdInitiator
from hwvirt.scsi.volume import Residency
from tests.host.ram_unit import READ_16, WRITE_16, RamUnit, check_condition
from tests.host.raw_client import serving

BLOCK = 4096
SECONDS = 10


async def ask(
    initiator: Initiator, op: Op, lba: int = 0, blocks: int = 0, data: Pieces = (), *, fua: bool = False
) -> Answer:
    """One request and its answer."""
    answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    initiator.submit(op, lba, blocks, data, answered.set_result, fua=fua)
    async with asyncio.timeout(SECONDS):
        return await answered


@asynccontextmanager
async def connected(port: int, export: str = "disk", contexts: Sequence[str] = ()) -> AsyncIterator[NbdInitiator]:
    initiator = await NbdInitiator.connect("127.0.0.1", port, export, contexts)
    try:
        yield initiator
    finally:
        await initiator.close()


def test_the_initiator_knows_the_shape_of_the_export() -> None:
    async def scenario() -> None:
        async with serving([RamUnit(64).export(), RamUnit(100, 512).export("ro", read_only=True)]) as served:
            async with connected(served.port) as initiator:
                assert (initiator.block_bytes, initiator.blocks, initiator.read_only) == (4096, 64, False)
            async with connected(served.port, "ro") as initiator:
                assert (initiator.block_bytes, initiator.blocks, initiator.read_only) == (512, 100, True)
                assert (await ask(initiator, Op.WRITE, 0, 1, (bytes(512),))).error == EPERM

    uvloop.run(scenario())


@pytest.mark.parametrize("contexts", [(), ("base:allocation",)])
def test_every_operation_does_what_it_says(contexts: tuple[str, ...]) -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        async with serving([unit.export()]) as served, connected(served.port, contexts=contexts) as initiator:
            data = os.urandom(3 * BLOCK)
            assert await ask(initiator, Op.WRITE, 1, 3, (data[:100], data[100:])) == Answer(0)
            answer = await ask(initiator, Op.READ, 0, 5)
            assert (answer.error, joined(answer.data)) == (0, bytes(BLOCK) + data + bytes(BLOCK))
            assert await ask(initiator, Op.UNMAP, 1, 1) == Answer(0)
            assert await ask(initiator, Op.ZERO, 2, 1, fua=True) == Answer(0)
            assert await ask(initiator, Op.FLUSH) == Answer(0)
            assert unit.content[: 5 * BLOCK] == bytes(3 * BLOCK) + data[2 * BLOCK :] + bytes(BLOCK)
            assert unit.where[:4] == [Residency.FIRST, Residency.ZERO, Residency.ZERO, Residency.REDIRECTED]
            assert await ask(initiator, Op.WRITE, 0, 1, (bytes(BLOCK),), fua=True) == Answer(0)
            assert unit.commands[-1].cdb[1] & 0x08

    uvloop.run(scenario())


@pytest.mark.parametrize("contexts", [(), ("base:allocation",)])
def test_errors_come_back_as_errno_and_the_path_lives_on(contexts: tuple[str, ...]) -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        bad = check_condition(3, 0x11)
        unit.fault = lambda command: bad if command.cdb[0] == READ_16 else None
        async with serving([unit.export()]) as served, connected(served.port, contexts=contexts) as initiator:
            assert await ask(initiator, Op.READ, 0, 1) == Answer(EIO)
            assert await ask(initiator, Op.READ, 64, 1) == Answer(EINVAL)
            assert await ask(initiator, Op.WRITE, 64, 1, (bytes(BLOCK),)) == Answer(ENOSPC)
            assert await ask(initiator, Op.WRITE, 63, 1, (bytes(BLOCK),)) == Answer(0)

    uvloop.run(scenario())


def test_what_is_submitted_in_one_step_is_one_batch_at_the_other_end() -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        async with serving([unit.export()]) as served, connected(served.port) as initiator:
            answers: list[int] = []
            all_in = asyncio.Event()

            def done(answer: Answer) -> None:
                answers.append(answer.error)
                if len(answers) == 16:
                    all_in.set()

            for lba in range(8):
                initiator.submit(Op.WRITE, lba, 1, (bytes([lba]) * BLOCK,), done)
                initiator.submit(Op.READ, 32 + lba, 1, (), done)
            assert answers == []
            async with asyncio.timeout(SECONDS):
                await all_in.wait()
            assert unit.batches == [[READ_16] * 8, [WRITE_16] * 8]

    uvloop.run(scenario())


def test_data_that_does_not_fit_the_request_is_refused_here() -> None:
    async def scenario() -> None:
        async with serving([RamUnit(64).export()]) as served, connected(served.port) as initiator:
            with pytest.raises(ValueError, match=r"^write of 2 blocks with 4096 bytes of data$"):
                initiator.submit(Op.WRITE, 0, 2, (bytes(BLOCK),), lambda answer: None)
            with pytest.raises(ValueError, match=r"^read of 1 blocks with 4096 bytes of data$"):
                initiator.submit(Op.READ, 0, 1, (bytes(BLOCK),), lambda answer: None)
            with pytest.raises(ValueError, match=r"^unmap of 8193 blocks, more than the 33554432 bytes that"):
                initiator.submit(Op.UNMAP, 0, 8193, (), lambda answer: None)

    uvloop.run(scenario())


def test_a_callback_may_submit_the_next_request() -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        async with serving([unit.export()]) as served, connected(served.port) as initiator:
            finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            left = list(range(100))

            def done(answer: Answer) -> None:
                assert answer.error == 0
                if left:
                    initiator.submit(Op.WRITE, left.pop() % 64, 1, (b"z" * BLOCK,), done)
                elif not finished.done():
                    finished.set_result(None)

            done(Answer(0))
            async with asyncio.timeout(SECONDS):
                await finished
            assert unit.content == b"z" * 64 * BLOCK

    uvloop.run(scenario())


def test_reads_and_writes_of_many_sizes_are_those_of_a_model() -> None:
    async def scenario() -> None:
        rng = random.Random(7)
        unit, model = RamUnit(2048), bytearray(2048 * BLOCK)
        async with serving([unit.export()]) as served, connected(served.port) as initiator:
            for _ in range(60):
                blocks = rng.choice((1, 2, 17, 64, 65, 300))
                lba = rng.randrange(2048 - blocks)
                span = slice(lba * BLOCK, (lba + blocks) * BLOCK)
                if rng.random() < 0.6:
                    model[span] = data = rng.randbytes(blocks * BLOCK)
                    assert (await ask(initiator, Op.WRITE, lba, blocks, (data,))).error == 0
                else:
                    assert joined((await ask(initiator, Op.READ, lba, blocks)).data) == model[span]

    uvloop.run(scenario())


def test_block_status_covers_the_extent_in_runs() -> None:
    async def scenario() -> None:
        unit = RamUnit(200_000, 512)
        unit.where[10:30] = [Residency.REDIRECTED] * 20
        unit.where[30:31] = [Residency.ZERO]
        contexts = ("base:allocation", "hwvirt:residency")
        async with serving([unit.export()]) as served, connected(served.port, contexts=contexts) as initiator:
            assert await initiator.block_status("hwvirt:residency", 5, 45) == [(5, 0), (20, 1), (1, 2), (19, 0)]
            assert await initiator.block_status("base:allocation", 5, 45) == [(25, 0), (1, 3), (19, 0)]
            runs = await initiator.block_status("base:allocation", 0, 200_000)
            assert sum(blocks for blocks, _ in runs) == 200_000
            with pytest.raises(InfrastructureError, match=r"^the NBD server tells no x:y"):
                await initiator.block_status("x:y", 0, 1)
        async with serving([unit.export()]) as served, connected(served.port) as initiator:
            with pytest.raises(InfrastructureError, match=r"^the NBD server tells no base:allocation"):
                await initiator.block_status("base:allocation", 0, 1)

    uvloop.run(scenario())


def test_an_export_that_does_not_exist_is_refused_with_the_next_step() -> None:
    async def scenario() -> None:
        async with serving([RamUnit(64).export()]) as served:
            with pytest.raises(InfrastructureError) as caught:
                await NbdInitiator.connect("127.0.0.1", served.port, "nope")
            assert str(caught.value) == (
                "the NBD server refused GO: ERR_UNKNOWN no export 'nope'. List what it offers with nbdinfo --list."
            )

    uvloop.run(scenario())


def test_nobody_at_the_port_is_told_with_the_next_step() -> None:
    async def scenario() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            with pytest.raises(InfrastructureError) as caught:
                await NbdInitiator.connect("127.0.0.1", port, "disk")
        assert str(caught.value).startswith(f"no NBD server at 127.0.0.1 port {port}: ")
        assert str(caught.value).endswith(" Start it, or correct the address.")

    uvloop.run(scenario())


# -- servers that misbehave

OFFER = b"NBDMAGICIHAVEOPT\0\3" + struct.pack(">QIIIHQH", 0x3E889045565A9, 7, 3, 12, 0, 64 * BLOCK, 0x6D)
OFFER += struct.pack(">QIIIHIII", 0x3E889045565A9, 7, 3, 14, 3, BLOCK, BLOCK, 32 << 20)
OFFER += struct.pack(">QIII", 0x3E889045565A9, 7, 1, 0)
ASKED = 4 + 16 + 4 + len("disk") + 2 + 2

Conduct = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def scripted(conduct: Conduct, offer: bytes = OFFER) -> AsyncIterator[int]:
    """A server that makes its offer, hears the client out and then behaves as it is told; gives its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(offer)
        try:
            await reader.readexactly(ASKED)
            await conduct(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        yield listener.sockets[0].getsockname()[1]


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(28)


def test_a_lost_connection_leaves_every_request_in_doubt() -> None:
    async def scenario() -> None:
        async with scripted(hang_up) as port, connected(port) as initiator:
            write = ask(initiator, Op.WRITE, 0, 1, (bytes(BLOCK),))
            answers = await asyncio.gather(write, ask(initiator, Op.READ, 0, 1), ask(initiator, Op.FLUSH))
            assert set(answers) == {Answer(ECONNRESET, in_doubt=True)}
            assert await ask(initiator, Op.READ, 0, 1) == Answer(ENOTCONN), "never sent, so in no doubt"

    uvloop.run(scenario())


def test_closing_leaves_what_has_no_answer_in_doubt() -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        async with serving([unit.export()]) as served, connected(served.port) as initiator:
            unit.gate.clear()
            asking = asyncio.ensure_future(ask(initiator, Op.WRITE, 0, 1, (bytes(BLOCK),)))
            await unit.begun.wait()
            await initiator.close()
            assert await asking == Answer(ECONNRESET, in_doubt=True)
            unit.gate.set()

    uvloop.run(scenario())


def reply_with(reply: bytes) -> Conduct:
    async def conduct(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(28)
        writer.write(reply)
        await reader.read()

    return conduct


def test_a_callback_that_raises_keeps_no_answer_from_others() -> None:
    async def two_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(4 * 28)
        writer.write(b"".join(simple(cookie) for cookie in (1, 2)))
        await reader.readexactly(28)  # the path lives on; then it is lost

    async def scenario() -> None:
        answers: list[tuple[int, Answer]] = []
        raised: list[str] = []
        all_in = asyncio.Event()

        def answered(number: int, answer: Answer) -> None:
            answers.append((number, answer))
            if len(answers) == 2:
                initiator.submit(Op.FLUSH, 0, 0, (), partial(answered, 5))
            elif len(answers) == 5:
                all_in.set()
            if number % 2:
                raise RuntimeError(f"callback {number}")

        asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(str(context["exception"])))
        async with scripted(two_answers) as port, connected(port) as initiator:
            for number in range(1, 5):
                initiator.submit(Op.FLUSH, 0, 0, (), partial(answered, number))
            async with asyncio.timeout(SECONDS):
                await all_in.wait()
        lost = Answer(ECONNRESET, in_doubt=True)
        assert answers == [(1, Answer(0)), (2, Answer(0)), (3, lost), (4, lost), (5, lost)]
        assert raised == ["callback 1", "callback 3", "callback 5"]

    uvloop.run(scenario())


def simple(cookie: int, error: int = 0) -> bytes:
    return struct.pack(">IIQ", 0x67446698, error, cookie)


def chunk(cookie: int, flags: int, kind: int, payload: bytes) -> bytes:
    return struct.pack(">IHHQI", 0x668E33EF, flags, kind, cookie, len(payload)) + payload


HALF = BLOCK // 2


@pytest.mark.parametrize(
    "reply",
    [
        bytes(16),
        simple(99),
        chunk(1, 1, 0, b""),
        chunk(1, 1, 9, b""),
        chunk(1, 1, 1, b"short"),
        chunk(1, 1, 1, struct.pack(">Q", HALF) + bytes(HALF)),
        chunk(1, 1, 1, struct.pack(">Q", BLOCK) + bytes(BLOCK)),
        chunk(1, 1, 1, struct.pack(">Q", 0) + bytes(BLOCK + 1)),
        chunk(1, 1, 2, struct.pack(">QI", 0, 0xFFFFFFFF)),
        chunk(1, 1, 2, bytes(11)),
        chunk(1, 1, 0x8001, b""),
        struct.pack(">IHHQI", 0x668E33EF, 1, 1, 1, 1 << 31),
    ],
)
def test_a_server_that_breaks_the_protocol_is_left_and_the_request_in_doubt(reply: bytes) -> None:
    async def scenario() -> None:
        async with scripted(reply_with(reply)) as port, connected(port) as initiator:
            assert await ask(initiator, Op.READ, 0, 1) == Answer(ECONNRESET, in_doubt=True)

    uvloop.run(scenario())


def test_chunks_of_a_read_are_put_in_order() -> None:
    second = chunk(1, 0, 1, struct.pack(">Q", HALF) + b"2" * HALF)
    first = chunk(1, 0, 2, struct.pack(">QI", 0, HALF))

    async def scenario() -> None:
        async with scripted(reply_with(second + first + chunk(1, 1, 0, b""))) as port, connected(port) as initiator:
            answer = await ask(initiator, Op.READ, 0, 1)
            assert (answer.error, joined(answer.data)) == (0, bytes(HALF) + b"2" * HALF)

    uvloop.run(scenario())


def test_an_error_chunk_makes_the_data_worthless() -> None:
    data = chunk(1, 0, 1, struct.pack(">Q", 0) + bytes(BLOCK))
    error = chunk(1, 0, 0x8002, struct.pack(">IHQ", ENOSPC, 0, 0)) + chunk(1, 1, 0x8001, struct.pack(">IH", EIO, 0))

    async def scenario() -> None:
        async with scripted(reply_with(data + error)) as port, connected(port) as initiator:
            assert await ask(initiator, Op.READ, 0, 1) == Answer(ENOSPC)

    uvloop.run(scenario())


@pytest.mark.parametrize("size", [1, 3, 16, 1000])
def test_replies_in_morsels_are_understood(size: int) -> None:
    replies = simple(2) + simple(1) + b"d" * BLOCK + simple(3, EIO)

    async def conduct(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(3 * 28)
        for at in range(0, len(replies), size):
            writer.write(replies[at : at + size])
            await writer.drain()
        await reader.read()

    async def scenario() -> None:
        async with scripted(conduct) as port, connected(port) as initiator:
            answers = await asyncio.gather(
                ask(initiator, Op.READ, 0, 1), ask(initiator, Op.FLUSH), ask(initiator, Op.READ, 1, 1)
            )
            assert [(answer.error, b"".join(answer.data)) for answer in answers] == [
                (0, b"d" * BLOCK),
                (0, b""),
                (EIO, b""),
            ]

    uvloop.run(scenario())


@pytest.mark.parametrize(
    ("offer", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n", "the other end is no NBD server of the fixed newstyle"),
        (b"NBDMAGICIHAVEOPT\0\0", "the other end is no NBD server of the fixed newstyle"),
        (OFFER[:18] + bytes(20), "the server answered option GO with something else"),
        (OFFER[:18] + OFFER[-20:], "the server did not tell the size of the export"),
        (OFFER[:18] + struct.pack(">QIIIH", 0x3E889045565A9, 7, 3, 2, 0) + OFFER[-20:], "a message does not have its form"),
        (b"NBDMAGIC", "the NBD server ended the connection"),
    ],
)
def test_a_peer_that_is_no_proper_server_is_told_so(offer: bytes, reason: str) -> None:
    async def scenario() -> None:
        async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(offer) == 18:
                await reader.read()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(offer)
            await writer.drain()
            await leave(reader, writer)
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
            with pytest.raises(InfrastructureError, match=f"^{reason}"):
                await NbdInitiator.connect("127.0.0.1", listener.sockets[0].getsockname()[1], "disk")

    uvloop.run(scenario())


def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_CONNECT_SECONDS", 0.05)

    async def scenario() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
            port = listener.sockets[0].getsockname()[1]
            with pytest.raises(InfrastructureError, match=f"^the NBD server at 127.0.0.1 port {port} does not answer.$"):
                await NbdInitiator.connect("127.0.0.1", port, "disk")

    uvloop.run(scenario())


# -- servers of others


@asynccontextmanager
async def foreign(*arguments: str) -> AsyncIterator[int]:
    """A server of others that is told its port as {port}."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(*(argument.format(port=port) for argument in arguments))
    try:
        async with asyncio.timeout(SECONDS):
            while True:
                assert process.returncode is None
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.01)
                    continue
                writer.close()
                break
        yield port
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def exercise(port: int, export: str, contexts: Sequence[str] = ()) -> None:
    """Writes, reads back, zeroes, unmaps and flushes; the export is zero at first, of at least 1 MiB."""
    async with connected(port, export, contexts) as initiator:
        size = initiator.block_bytes
        data = random.Random(3).randbytes(8 * size)
        assert initiator.blocks * size >= 1 << 20
        assert await ask(initiator, Op.WRITE, 8, 8, (data,), fua=True) == Answer(0)
        assert joined((await ask(initiator, Op.READ, 8, 8)).data) == data
        answer = await ask(initiator, Op.READ, 0, 32)
        assert b"".join(answer.data) == bytes(8 * size) + data + bytes(16 * size)
        assert (await ask(initiator, Op.ZERO, 9, 1)).error == 0
        assert (await ask(initiator, Op.UNMAP, 10, 2)).error == 0
        assert (await ask(initiator, Op.FLUSH)).error == 0
        assert joined((await ask(initiator, Op.READ, 8, 2)).data) == data[:size] + bytes(size)
        assert (await ask(initiator, Op.READ, initiator.blocks, 1)).error == EINVAL


@pytest.mark.skipif(shutil.which("nbdkit") is None, reason="nbdkit is not installed")
@pytest.mark.parametrize("contexts", [(), ("base:allocation",)])
def test_against_nbdkit(contexts: tuple[str, ...]) -> None:
    async def scenario() -> None:
        async with foreign("nbdkit", "-f", "-i", "127.0.0.1", "-p", "{port}", "memory", "4M") as port:
            await exercise(port, "", contexts)

    uvloop.run(scenario())


@pytest.mark.skipif(shutil.which("qemu-nbd") is None, reason="qemu-nbd is not installed")
@pytest.mark.parametrize("contexts", [(), ("base:allocation",)])
def test_against_qemu_nbd(contexts: tuple[str, ...], tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"")
    os.truncate(image, 4 << 20)

    async def scenario() -> None:
        place = ("-b", "127.0.0.1", "-p", "{port}", "-x", "disk")
        async with foreign("qemu-nbd", "-t", "-e", "4", *place, "-f", "raw", "--discard=unmap", str(image)) as port:
            await exercise(port, "disk", contexts)
            if contexts:
                async with connected(port, "disk", contexts) as initiator:
                    runs = await initiator.block_status("base:allocation", 0, initiator.blocks)
                    assert sum(blocks for blocks, _ in runs) == initiator.blocks

    uvloop.run(scenario())
