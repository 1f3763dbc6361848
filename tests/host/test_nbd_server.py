"""The server over a real socket: batches, replies, limits, partings."""

from __future__ import annotations

import asyncio
import socket
import struct
from errno import EINVAL, EIO, ENOSPC, EPERM
from typing import cast

import pytest
import uvloop

from hwvirt.errors import ExitCode, InfrastructureError
from hwvirt.host.nbd import connection, server
from hwvirt.host.nbd.server import NbdServer
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.status import Status
from hwvirt.scsi.volume import Residency
from hwvirt.trace import Trace
from tests.host.ram_unit import READ_16, SYNCHRONIZE_CACHE_16, UNMAP, WRITE_16, RamUnit, check_condition
from tests.host.raw_client import HELLO, opened, opened_structured, option, raw, request, serving

READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO = 1, 2, 4, 8, 16
DONE = 1
BLOCK = 4096


def test_what_arrives_in_one_read_is_one_batch_for_each_class() -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        async with serving([unit.export()]) as served, opened(served.port) as client:
            client.send(
                request(READ, 1, 0, BLOCK),
                request(WRITE, 2, BLOCK, BLOCK, b"a" * BLOCK),
                request(FLUSH, 3),
                request(READ, 4, 2 * BLOCK, BLOCK),
                request(WRITE, 5, 3 * BLOCK, BLOCK, b"b" * BLOCK),
                request(TRIM, 6, 5 * BLOCK, BLOCK),
            )
            replies = await client.take(6 * 16 + 2 * BLOCK)
            assert len(replies) == 6 * 16 + 2 * BLOCK
            assert unit.batches == [
                [READ_16, READ_16],
                [WRITE_16, WRITE_16],
                [UNMAP],
                [SYNCHRONIZE_CACHE_16],
            ]

    uvloop.run(scenario())


@pytest.mark.parametrize("cut_off", [True, False])
def test_reads_of_what_is_out_of_reach_keep_no_others_waiting(cut_off: bool) -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        unit.where[3] = Residency.REDIRECTED
        unit.where[5] = Residency.ZERO
        async with serving([unit.export(cut_off=cut_off)]) as served, opened(served.port) as client:
            client.send(*(request(READ, lba, lba * BLOCK, BLOCK) for lba in range(8)), request(READ, 9, 4095 * 4, BLOCK))
            assert len(await client.take(9 * (16 + BLOCK))) == 9 * (16 + BLOCK)
        # The last one begins in block 3, with the last four bytes of it.
        assert [len(batch) for batch in unit.batches] == ([7, 2] if cut_off else [9])

    uvloop.run(scenario())


def test_data_written_is_read_back() -> None:
    async def scenario() -> None:
        unit = RamUnit(1024)
        data = bytes(range(256)) * 16 * 300  # more than one arena
        async with serving([unit.export()]) as served, opened(served.port) as client:
            client.send(request(WRITE, 1, BLOCK, len(data), data))
            assert await client.simple() == (1, 0, b"")
            client.send(request(READ, 2, BLOCK, len(data)))
            assert await client.simple(len(data)) == (2, 0, data)

    uvloop.run(scenario())


def test_it_also_runs_on_the_loop_of_the_standard_library() -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        async with serving([unit.export()]) as served, opened(served.port) as client:
            client.send(request(WRITE, 1, 0, BLOCK, b"x" * BLOCK), request(FLUSH, 2))
            assert sorted([await client.simple(), await client.simple()]) == [(1, 0, b""), (2, 0, b"")]
            client.send(request(READ, 3, 0, BLOCK))
            assert await client.simple(BLOCK) == (3, 0, b"x" * BLOCK)

    asyncio.run(scenario())


def test_a_read_of_part_of_a_block_gets_just_that_part() -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        unit.content[: 2 * BLOCK] = bytes(range(256)) * 32
        async with serving([unit.export()]) as served, opened(served.port) as client:
            client.send(request(READ, 1, 4090, 12))
            assert await client.simple(12) == (1, 0, bytes(unit.content[4090:4102]))

    uvloop.run(scenario())


def test_a_write_of_part_of_a_block_is_refused_and_changes_nothing() -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        async with serving([unit.export()]) as served, opened(served.port) as client:
            client.send(request(WRITE, 1, 512, 512, b"x" * 512), request(READ, 2, 0, BLOCK))
            assert await client.simple() == (1, EINVAL, b"")
            assert await client.simple(BLOCK) == (2, 0, bytes(BLOCK))

    uvloop.run(scenario())


def test_a_write_to_a_read_only_export_is_refused_and_the_next_request_is_understood() -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        async with serving([unit.export(read_only=True)]) as served, opened(served.port) as client:
            client.send(request(WRITE, 1, 0, BLOCK, b"x" * BLOCK), request(READ, 2, 0, BLOCK))
            assert await client.simple() == (1, EPERM, b"")
            assert await client.simple(BLOCK) == (2, 0, bytes(BLOCK))
            assert unit.batches == [[READ_16]]

    uvloop.run(scenario())


def test_a_flush_is_not_answered_before_the_unit_has_flushed() -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        async with serving([unit.export()]) as served, opened(served.port) as client:
            client.send(request(WRITE, 1, 0, BLOCK, b"x" * BLOCK))
            await client.simple()
            unit.gate.clear()
            unit.begun.clear()
            client.send(request(FLUSH, 2))
            await unit.begun.wait()
            client.send(request(CACHE, 3, 0, BLOCK))  # answered at once: whatever comes first overtook the flush
            assert await client.simple() == (3, 0, b"")
            unit.gate.set()
            assert await client.simple() == (2, 0, b"")
            assert unit.batches[-1] == [SYNCHRONIZE_CACHE_16]

    uvloop.run(scenario())


def test_fua_of_trim_and_zeroes_is_a_flush_behind_them_and_of_write_a_bit() -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        async with serving([unit.export()]) as served, opened(served.port) as client:
            client.send(
                request(TRIM, 1, 0, BLOCK, flags=FUA),
                request(ZEROES, 2, BLOCK, BLOCK, flags=FUA | NO_HOLE),
            )
            assert [await client.simple(), await client.simple()] == [(1, 0, b""), (2, 0, b"")]
            assert unit.batches == [[UNMAP, WRITE_16], [SYNCHRONIZE_CACHE_16]]
            client.send(request(WRITE, 3, 0, BLOCK, bytes(BLOCK), FUA))
            await client.simple()
            assert unit.commands[-1].cdb[1] & 0x08

    uvloop.run(scenario())


def test_zeroes_that_are_longer_than_a_transfer_are_written_one_after_the_other() -> None:
    async def scenario() -> None:
        unit = RamUnit(72 << 8)
        unit.content[:] = b"x" * len(unit.content)
        async with serving([unit.export()]) as served, opened(served.port) as client:
            client.send(request(ZEROES, 1, BLOCK, (72 << 20) - 2 * BLOCK, flags=FUA | NO_HOLE), request(TRIM, 2, 0, 1))
            assert [await client.simple(), await client.simple()] == [(1, 0, b""), (2, 0, b"")]
            assert unit.batches == [[WRITE_16], [WRITE_16], [WRITE_16], [SYNCHRONIZE_CACHE_16]]
            assert unit.content == b"x" * BLOCK + bytes((72 << 20) - 2 * BLOCK) + b"x" * BLOCK

    uvloop.run(scenario())


def test_zeroes_end_with_the_first_transfer_that_fails() -> None:
    async def scenario() -> None:
        unit = RamUnit(72 << 8)
        failed = check_condition(3, 0x0C)
        unit.fault = lambda command: failed if len(unit.commands) == 2 else None
        async with serving([unit.export()]) as served, opened(served.port) as client:
            client.send(request(ZEROES, 1, 0, 72 << 20, flags=FUA | NO_HOLE))
            assert await client.simple() == (1, EIO, b"")
            assert unit.batches == [[WRITE_16], [WRITE_16]]

    uvloop.run(scenario())


def test_a_failed_flush_fails_every_request_that_needed_it_and_no_other() -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        failed = check_condition(3, 0x0C)
        unit.fault = lambda command: failed if command.cdb[0] == SYNCHRONIZE_CACHE_16 else None
        async with serving([unit.export()]) as served, opened(served.port) as client:
            client.send(request(TRIM, 1, 0, BLOCK), request(TRIM, 2, 0, BLOCK, flags=FUA), request(FLUSH, 3))
            replies = [await client.simple() for _ in range(3)]
            assert replies == [(1, 0, b""), (2, EIO, b""), (3, EIO, b"")]

    uvloop.run(scenario())


def test_a_good_flush_does_not_hide_that_the_request_before_it_failed() -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        failed = check_condition(3, 0x0C)
        unit.fault = lambda command: failed if command.cdb[0] == UNMAP else None
        async with serving([unit.export()]) as served, opened(served.port) as client:
            client.send(request(TRIM, 1, 0, BLOCK, flags=FUA), request(FLUSH, 2))
            assert [await client.simple() for _ in range(2)] == [(1, EIO, b""), (2, 0, b"")]

    uvloop.run(scenario())


@pytest.mark.parametrize(
    ("completion", "error"),
    [
        (check_condition(3, 0x11), EIO),  # MEDIUM ERROR, unrecovered read error
        (check_condition(7, 0x27, 0x07), ENOSPC),  # DATA PROTECT, space allocation failed write protect
        (check_condition(7, 0x27), EPERM),  # DATA PROTECT, write protected
        (Completion(Status.TASK_SET_FULL), EIO),
    ],
)
def test_sense_becomes_an_errno(completion: Completion, error: int) -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        unit.fault = lambda command: completion
        async with serving([unit.export()]) as served, opened(served.port) as client:
            client.send(request(WRITE, 1, 0, BLOCK, bytes(BLOCK)))
            assert await client.simple() == (1, error, b"")

    uvloop.run(scenario())


def test_one_bad_request_does_not_spoil_its_batch() -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        bad = check_condition(3, 0x11)
        unit.fault = lambda command: bad if command.cdb[2:10] == (1).to_bytes(8, "big") else None
        async with serving([unit.export()]) as served, opened(served.port) as client:
            client.send(*(request(READ, cookie, cookie * BLOCK, BLOCK) for cookie in range(3)))
            assert await client.simple(BLOCK) == (0, 0, bytes(BLOCK))
            assert await client.simple(BLOCK) == (1, EIO, b"")
            assert await client.simple(BLOCK) == (2, 0, bytes(BLOCK))

    uvloop.run(scenario())


def test_a_unit_attention_is_met_by_sending_the_command_again() -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        attentions = [check_condition(6, 0x29), check_condition(6, 0x2A, 0x01)]
        unit.fault = lambda command: attentions.pop() if attentions and command.cdb[0] == WRITE_16 else None
        async with serving([unit.export()]) as served, opened(served.port) as client:
            client.send(request(WRITE, 1, 0, BLOCK, b"x" * BLOCK))
            assert await client.simple() == (1, 0, b"")
            assert unit.batches == [[WRITE_16]] * 3
            assert unit.content[0] == ord("x")

    uvloop.run(scenario())


def test_a_unit_attention_that_does_not_end_is_an_error() -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        unit.fault = lambda command: check_condition(6, 0x29)
        async with serving([unit.export()]) as served, opened(served.port) as client:
            client.send(request(READ, 1, 0, BLOCK))
            assert (await client.simple(BLOCK))[:2] == (1, EIO)

    uvloop.run(scenario())


def test_a_unit_that_raises_costs_an_error_and_not_the_connection() -> None:
    async def scenario() -> None:
        unit = RamUnit(64)

        def fault(command: Command) -> Completion | None:
            if command.cdb[0] == WRITE_16:
                raise RuntimeError("out of order")
            return None

        unit.fault = fault
        async with serving([unit.export()]) as served, opened(served.port) as client:
            client.send(request(WRITE, 1, 0, BLOCK, bytes(BLOCK)))
            assert await client.simple() == (1, EIO, b"")
            client.send(request(READ, 2, 0, BLOCK))
            assert await client.simple(BLOCK) == (2, 0, bytes(BLOCK))
            (failed,) = await served.until("nbd.failed")
            assert failed.fields["reason"] == "RuntimeError('out of order')"

    uvloop.run(scenario())


def test_a_unit_that_sends_too_little_costs_an_error() -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        unit.fault = lambda command: Completion(Status.GOOD, (b"short",), residual=BLOCK - 5)
        async with serving([unit.export()]) as served, opened(served.port) as client:
            client.send(request(READ, 1, 0, BLOCK))
            assert await client.simple(BLOCK) == (1, EIO, b"")

    uvloop.run(scenario())


def test_structured_replies_carry_offset_and_the_words_of_an_error() -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        unit.content[BLOCK : 2 * BLOCK] = b"y" * BLOCK
        async with serving([unit.export()]) as served, opened_structured(served.port) as client:
            client.send(request(READ, 7, BLOCK, BLOCK, flags=DF))
            assert await client.chunk() == (7, DONE, 1, struct.pack(">Q", BLOCK) + b"y" * BLOCK)
            client.send(request(WRITE, 8, 0, BLOCK, bytes(BLOCK)))
            assert await client.simple() == (8, 0, b"")
            unit.fault = lambda command: check_condition(3, 0x11)
            client.send(request(READ, 9, 0, BLOCK))
            cookie, flags, kind, payload = await client.chunk()
            assert (cookie, flags, kind) == (9, DONE, 0x8001)
            error, size = struct.unpack_from(">IH", payload)
            assert error == EIO
            assert len(payload) == 6 + size > 6
            client.send(request(READ, 10, 64 * BLOCK, 1))
            assert await client.chunk() == (
                10,
                DONE,
                0x8001,
                struct.pack(">IH", EINVAL, 36) + b"the request does not fit this export",
            )

    uvloop.run(scenario())


def test_block_status_tells_allocation_and_residency() -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        first, redirected, zero = Residency.FIRST, Residency.REDIRECTED, Residency.ZERO
        unit.where[:6] = [first, redirected, redirected, zero, zero, first]
        async with serving([unit.export()]) as served:
            async with opened_structured(served.port, "base:allocation", "hwvirt:residency") as client:
                client.send(request(STATUS, 1, 0, 6 * BLOCK))
                runs = struct.pack(">I6I", 1, 3 * BLOCK, 0, 2 * BLOCK, 3, BLOCK, 0)
                assert await client.chunk() == (1, 0, 5, runs)
                runs = struct.pack(">I8I", 2, BLOCK, 0, 2 * BLOCK, 1, 2 * BLOCK, 2, BLOCK, 0)
                assert await client.chunk() == (1, 0, 5, runs)
                assert await client.chunk() == (1, DONE, 0, b"")
                client.send(request(STATUS, 2, 0, 6 * BLOCK, flags=REQ_ONE))
                assert await client.chunk() == (2, 0, 5, struct.pack(">I2I", 1, 3 * BLOCK, 0))
                assert await client.chunk() == (2, 0, 5, struct.pack(">I2I", 2, BLOCK, 0))
                assert await client.chunk() == (2, DONE, 0, b"")
            async with opened_structured(served.port) as client:
                client.send(request(STATUS, 3, 0, BLOCK))
                cookie, _, kind, payload = await client.chunk()
                assert (cookie, kind, payload[:4]) == (3, 0x8001, struct.pack(">I", EINVAL))

    uvloop.run(scenario())


def test_goodbye_waits_for_the_requests_in_flight() -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        unit.gate.clear()
        async with serving([unit.export()]) as served, opened(served.port) as client:
            client.send(request(WRITE, 1, 0, BLOCK, b"x" * BLOCK), request(DISC, 2), request(READ, 3, 0, BLOCK))
            await unit.begun.wait()
            unit.gate.set()
            assert await client.end() == struct.pack(">IIQ", 0x67446698, 0, 1)
            (left,) = await served.until("nbd.disconnected")
            assert left.fields["reason"] == "the client said goodbye"
            assert unit.batches == [[WRITE_16]]

    uvloop.run(scenario())


def test_a_request_is_carried_out_although_its_client_hung_up() -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        unit.gate.clear()
        async with serving([unit.export()]) as served:
            async with opened(served.port) as client:
                client.send(request(WRITE, 1, 0, BLOCK, b"x" * BLOCK))
                await unit.begun.wait()
                abrupt = client.writer.get_extra_info("socket")
                abrupt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await served.until("nbd.disconnected")
            unit.gate.set()
            await served.server.close()
            assert unit.content[:BLOCK] == b"x" * BLOCK

    uvloop.run(scenario())


def test_closing_answers_what_is_in_flight() -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        unit.gate.clear()
        async with serving([unit.export()]) as served, opened(served.port) as client:
            client.send(request(READ, 1, 0, BLOCK))
            await unit.begun.wait()
            closing = asyncio.ensure_future(served.server.close())
            await asyncio.sleep(0)
            unit.gate.set()
            await closing
            assert await client.simple(BLOCK) == (1, 0, bytes(BLOCK))
            assert await client.end() == b""

    uvloop.run(scenario())


def test_closing_cuts_off_a_client_that_holds_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_GOODBYE_SECONDS", 0.05)

    async def scenario() -> None:
        unit = RamUnit(64)
        unit.gate.clear()
        async with serving([unit.export()]) as served, opened(served.port) as client:
            client.send(request(READ, 1, 0, BLOCK))
            await unit.begun.wait()
            await served.server.close()
            assert await client.end() == b""
            (dropped,) = await served.until("nbd.dropped")
            assert dropped.fields["reason"] == "the server is closing"
            unit.gate.set()

    uvloop.run(scenario())


def test_closing_cuts_off_a_client_that_does_not_take_its_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_GOODBYE_SECONDS", 0.05)

    async def scenario() -> None:
        unit = RamUnit(8192)
        async with serving([unit.export()]) as served, opened(served.port) as client:
            cast(asyncio.Transport, client.writer.transport).pause_reading()
            client.send(*(request(READ, cookie, 0, 16 << 20) for cookie in range(4)))
            await unit.begun.wait()
            await served.server.close()
            (left,) = await served.until("nbd.disconnected")
            assert left.fields["reason"] == "the server is closing"

    uvloop.run(scenario())


def test_requests_beyond_the_limit_wait_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_MAX_REQUESTS", 4)

    async def scenario() -> None:
        unit = RamUnit(64)
        unit.gate.clear()
        async with serving([unit.export()]) as served, opened(served.port) as client:
            client.send(*(request(READ, cookie, 0, BLOCK) for cookie in range(10)))
            await unit.begun.wait()
            async with opened(served.port):  # the server has had every chance to take more
                assert unit.batches == [[READ_16] * 4]
            unit.gate.set()
            assert [(await client.simple(BLOCK))[:2] for _ in range(10)] == [(cookie, 0) for cookie in range(10)]
            assert unit.batches == [[READ_16] * 4, [READ_16] * 4, [READ_16] * 2]

    uvloop.run(scenario())


@pytest.mark.parametrize("limit", [1, 3])
def test_requests_beyond_the_limit_that_are_answered_at_once_wait_for_nothing(
    monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(connection, "_MAX_REQUESTS", limit)
        unit = RamUnit(64)
        async with serving([unit.export()]) as served, opened(served.port) as client:
            client.send(*(request(READ, cookie, 0, BLOCK) for cookie in range(10)))
            assert [(await client.simple(BLOCK))[0] for _ in range(10)] == list(range(10))
        assert max(map(len, unit.batches)) <= limit

    uvloop.run(scenario())


def test_bytes_beyond_the_limit_wait_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_MAX_TRANSFERS_BYTES", 5 * BLOCK)

    async def scenario() -> None:
        unit = RamUnit(64)
        async with serving([unit.export()]) as served, opened(served.port) as client:
            client.send(*(request(READ, cookie, 0, 2 * BLOCK) for cookie in range(5)))
            assert [(await client.simple(2 * BLOCK))[0] for _ in range(5)] == list(range(5))
            assert unit.batches == [[READ_16] * 2, [READ_16] * 2, [READ_16]]

    uvloop.run(scenario())


def test_a_client_that_does_not_read_is_not_served_on() -> None:
    async def scenario() -> None:
        unit = RamUnit(8192)
        size = 16 << 20
        async with serving([unit.export()]) as served, opened(served.port) as client:
            reading = cast(asyncio.Transport, client.writer.transport)
            reading.pause_reading()
            client.send(*(request(READ, cookie, 0, size) for cookie in range(20)))
            await served.until("nbd.opened")
            async with opened(served.port) as other:
                other.send(request(READ, 1, 0, BLOCK))
                assert await other.simple(BLOCK) == (1, 0, bytes(BLOCK))
            in_memory = sum(map(len, unit.batches)) - 1
            assert in_memory <= 4 + 4, "what is in flight, and what waits to be sent"
            reading.resume_reading()
            for cookie in range(20):
                assert (await client.simple(size))[:2] == (cookie, 0)

    uvloop.run(scenario())


TOO_MANY = "more than 2 connections, and this one has opened no export yet"


def test_one_connection_too_many_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_MAX_CONNECTIONS", 2)

    async def scenario() -> None:
        unit = RamUnit(64)
        async with serving([unit.export()]) as served, opened(served.port) as first:
            async with opened(served.port), raw(served.port) as third:
                assert await third.end() == b""
                (dropped,) = await served.until("nbd.dropped")
                assert dropped.fields["reason"] == TOO_MANY
            await served.until("nbd.disconnected", 2)
            async with opened(served.port):
                first.send(request(FLUSH, 1))
                assert await first.simple() == (1, 0, b"")

    uvloop.run(scenario())


def test_the_oldest_in_its_handshake_goes_before_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_MAX_CONNECTIONS", 3)

    async def scenario() -> None:
        unit = RamUnit(64)
        async with serving([unit.export()]) as served, opened(served.port) as good, raw(served.port) as silent:
            assert len(await silent.take(18)) == 18
            async with raw(served.port) as slow, opened(served.port) as late:
                assert await silent.end() == b""
                (dropped,) = await served.until("nbd.dropped")
                assert dropped.fields["reason"] == TOO_MANY.replace("2", "3")
                slow.send(HELLO, option(1, b"disk"))
                await slow.take(18 + 10)
                for client in (good, slow, late):
                    client.send(request(FLUSH, 1))
                    assert await client.simple() == (1, 0, b"")

    uvloop.run(scenario())


def test_a_handshake_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_HANDSHAKE_SECONDS", 0.05)

    async def scenario() -> None:
        unit = RamUnit(64)
        async with serving([unit.export()]) as served, opened(served.port) as quick, raw(served.port) as slow:
            slow.send(HELLO, option(3))
            assert (await slow.end())[:8] == b"NBDMAGIC"
            (dropped,) = await served.until("nbd.dropped")
            assert dropped.fields["reason"] == "the handshake took too long"
            quick.send(request(FLUSH, 1))
            assert await quick.simple() == (1, 0, b""), "the time for a handshake ends with the handshake"

    uvloop.run(scenario())


def test_a_port_that_is_taken_is_refused_with_the_next_step() -> None:
    async def scenario() -> None:
        unit = RamUnit(64)
        async with serving([unit.export()]) as served:
            with pytest.raises(InfrastructureError) as caught:
                await NbdServer([unit.export()], Trace("b")).listen("127.0.0.1", served.port)
            assert str(caught.value) == (
                f"NBD port {served.port} of 127.0.0.1 is taken. "
                f"Stop what listens there (ss -ltnp 'sport = :{served.port}'), or give port 0 for a free one."
            )
            assert caught.value.exit_code is ExitCode.INFRASTRUCTURE

    uvloop.run(scenario())
    asyncio.run(scenario())


def test_an_address_of_another_machine_is_refused_with_the_next_step() -> None:
    async def scenario() -> None:
        with pytest.raises(InfrastructureError) as caught:
            await NbdServer([RamUnit(64).export()], Trace("b")).listen("192.0.2.1", 0)
        assert str(caught.value).startswith("cannot listen for NBD on 192.0.2.1 port 0: ")
        assert str(caught.value).endswith(" Give an address of this machine and a port that you may use.")

    uvloop.run(scenario())
