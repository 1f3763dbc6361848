"""READ and WRITE in all sizes, how a batch becomes calls of the volume, and what is refused."""

from __future__ import annotations

import pytest

from hwvirt.buffers import Buffer, joined
from hwvirt.scsi import opcodes
from hwvirt.scsi.cdb import read_16, synchronize_cache_16, write_16
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.opcodes import Cdb
from hwvirt.scsi.sense import (
    INVALID_FIELD_IN_CDB,
    LBA_OUT_OF_RANGE,
    POWER_ON_OCCURRED,
    RESET_OCCURRED,
    UNRECOVERED_READ_ERROR,
    WRITE_ERROR,
    WRITE_PROTECTED,
    SenseFormat,
    decode_sense,
)
from hwvirt.scsi.server import DeviceServer, run_now
from hwvirt.scsi.status import Status
from tests.scsi.memory_volume import MemoryVolume
from tests.scsi.scsikit import BLOCK, IDENTITY, Bench, block, blocks, sense_of

READS = [opcodes.READ_6, opcodes.READ_10, opcodes.READ_12, opcodes.READ_16]
WRITES = [opcodes.WRITE_6, opcodes.WRITE_10, opcodes.WRITE_12, opcodes.WRITE_16]
LONG_READS, LONG_WRITES = READS[1:], WRITES[1:]
GOOD = Completion(Status.GOOD)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def extent(row: Cdb, lba: int, count: int) -> bytes:
    """The CDB for an extent, whatever the size of the CDB."""
    if row in (opcodes.READ_6, opcodes.WRITE_6):
        return row.encode(lba_high=lba >> 16, lba_low=lba & 0xFFFF, blocks=count)
    return row.encode(lba=lba, blocks=count)


@pytest.mark.parametrize("write", WRITES, ids=lambda row: row.name)
@pytest.mark.parametrize("read", READS, ids=lambda row: row.name)
def test_what_is_written_is_read(bench: Bench, write: Cdb, read: Cdb) -> None:
    assert bench.send(extent(write, 61, 3), (blocks(1, 2), block(3))) == GOOD
    assert bench.volume.bytes_of(60, 4) == bytes(BLOCK) + blocks(1, 2, 3)
    completion = bench.send(extent(read, 62, 2), (), 2 * BLOCK)
    assert (completion.status, completion.residual, bytes(joined(completion.data))) == (Status.GOOD, 0, blocks(2, 3))


@pytest.mark.parametrize(("row", "lba", "flag"), [(opcodes.READ_6, 0x1FFFFF, "read"), (opcodes.WRITE_6, 0x1FFFFF, "write")])
def test_six_byte_commands_have_21_bits_of_lba_and_no_flags(row: Cdb, lba: int, flag: str) -> None:
    volume = MemoryVolume(lba + 1, 1)
    server = DeviceServer(volume, IDENTITY)
    (completion,) = run_now(
        server.execute([Command(extent(row, lba, 1), (b"x",) if flag == "write" else (), flag == "read")])
    )
    assert completion.good
    assert volume.calls == [(flag, 1)], "no LBA bit is taken for FUA"


def test_zero_in_a_six_byte_command_is_256_blocks() -> None:
    bench = Bench(300)
    assert len(joined(bench.send(opcodes.READ_6.encode(lba_low=44), (), 256 * BLOCK).data)) == 256 * BLOCK
    assert bench.sense(opcodes.READ_6, lba_low=45) == LBA_OUT_OF_RANGE


@pytest.mark.parametrize("row", LONG_READS + LONG_WRITES, ids=lambda row: row.name)
def test_transfer_of_no_blocks_is_good_and_touches_nothing(bench: Bench, row: Cdb) -> None:
    assert bench.send(row.encode(lba=64)) == GOOD
    assert bench.sense(row, lba=65) == LBA_OUT_OF_RANGE
    assert bench.volume.calls == []


@pytest.mark.parametrize("row", READS + WRITES, ids=lambda row: row.name)
def test_extent_beyond_the_capacity_is_refused(bench: Bench, row: Cdb) -> None:
    data = (blocks(1, 2),)
    assert sense_of(bench.send(extent(row, 63, 2), data, 2 * BLOCK)) == LBA_OUT_OF_RANGE
    assert sense_of(bench.send(extent(row, 64, 1), data, BLOCK)) == LBA_OUT_OF_RANGE
    assert bench.volume.calls == []


def test_lba_near_the_end_of_64_bits_does_not_wrap(bench: Bench) -> None:
    assert bench.sense(opcodes.READ_16, lba=(1 << 64) - 1, blocks=2) == LBA_OUT_OF_RANGE


@pytest.mark.parametrize("row", LONG_READS + LONG_WRITES, ids=lambda row: row.name)
def test_protection_information_is_refused(bench: Bench, row: Cdb) -> None:
    assert bench.sense(row, (block(1),), protect=1, lba=0, blocks=1) == INVALID_FIELD_IN_CDB


@pytest.mark.parametrize("row", LONG_READS, ids=lambda row: row.name)
def test_hints_are_accepted(bench: Bench, row: Cdb) -> None:
    cdb = row.encode(dpo=1, fua=1, rarc=1, group=31, lba=0, blocks=1)
    assert bench.send(cdb, (), BLOCK).good


def test_longer_transfer_than_the_limit_is_refused() -> None:
    bench = Bench(200_000)
    most = (64 << 20) // BLOCK
    assert bench.sense(opcodes.READ_16, lba=0, blocks=most + 1) == INVALID_FIELD_IN_CDB
    assert bench.send(read_16(0, most), (), most * BLOCK).good


def test_fua_is_durable_and_others_are_not(bench: Bench) -> None:
    for row in LONG_WRITES:
        bench.do(row, (block(1),), fua=1, lba=0, blocks=1)
        bench.do(row, (block(1),), dpo=1, lba=0, blocks=1)
    assert bench.volume.calls == [("write durable", 1), ("write", 1)] * 3


def test_consecutive_transfers_of_one_kind_are_one_call(bench: Bench) -> None:
    data = (block(7),)
    bench.batch(
        Command(read_16(1, 1), (), BLOCK),
        Command(opcodes.READ_10.encode(lba=2, blocks=1), (), BLOCK),
        Command(read_16(64, 1), (), BLOCK),
        Command(read_16(3, 0)),
        Command(read_16(4, 1), (), BLOCK),
        Command(write_16(1, 1), data),
        Command(opcodes.WRITE_12.encode(lba=2, blocks=1), data),
        Command(write_16(3, 1, fua=True), data),
        Command(write_16(4, 1, fua=True), data),
        Command(write_16(5, 1), data),
        Command(synchronize_cache_16()),
        Command(write_16(6, 1), data),
    )
    expected = [("read", 3), ("write", 2), ("write durable", 2), ("write", 1), ("flush", 0), ("write", 1)]
    assert bench.volume.calls == expected


def test_answers_come_in_the_order_of_the_batch(bench: Bench) -> None:
    bench.do(opcodes.WRITE_16, (blocks(0, 1, 2),), lba=0, blocks=3)
    answers = bench.batch(
        Command(read_16(2, 1), (), BLOCK),
        Command(read_16(64, 1), (), BLOCK),
        Command(read_16(0, 1), (), BLOCK),
        Command(opcodes.TEST_UNIT_READY.encode()),
        Command(write_16(1, 1), (block(9),)),
        Command(read_16(1, 1), (), BLOCK),
    )
    assert [bytes(joined(answer.data)) for answer in answers] == [block(2), b"", block(0), b"", b"", block(9)]
    assert [answer.good for answer in answers] == [True, False, True, True, True, True]


def test_later_write_of_a_batch_wins(bench: Bench) -> None:
    bench.batch(Command(write_16(5, 1), (block(1),)), Command(write_16(5, 1), (block(2),)))
    assert bench.volume.bytes_of(5) == block(2)


@pytest.mark.parametrize("row", WRITES, ids=lambda row: row.name)
def test_less_data_than_the_cdb_says_is_refused_and_nothing_is_written(bench: Bench, row: Cdb) -> None:
    short: tuple[Buffer, ...]
    for short in ((), (b"",), (block(1),), (block(1), block(2)[:-1])):
        assert sense_of(bench.send(extent(row, 0, 2), short)) == INVALID_FIELD_IN_CDB
    assert bench.volume.calls == []


def test_more_data_than_the_cdb_says_is_left_over(bench: Bench) -> None:
    pieces = (block(1)[:100], block(1)[100:] + block(2)[:7], block(3))
    assert bench.send(write_16(0, 1), pieces) == Completion(Status.GOOD, (), b"", 7 + BLOCK)
    assert bench.volume.bytes_of(0, 2) == block(1) + bytes(BLOCK)
    assert bench.send(write_16(0, 0), (block(3),)).residual == BLOCK


def test_data_out_is_passed_on_as_it_came(bench: Bench) -> None:
    pieces = (memoryview(block(1)), bytearray(block(2)))
    bench.send(write_16(0, 2), pieces)
    assert bench.volume.received[0] is pieces


def test_reader_that_expects_another_length_gets_residual_or_a_cut(bench: Bench) -> None:
    bench.do(opcodes.WRITE_16, (blocks(1, 2),), lba=0, blocks=2)
    longer = bench.send(read_16(0, 1), (), BLOCK + 5)
    assert (bytes(joined(longer.data)), longer.residual) == (block(1), 5)
    shorter = bench.send(read_16(0, 2), (), BLOCK + 5)
    assert (bytes(joined(shorter.data)), shorter.residual) == (blocks(1, 2)[: BLOCK + 5], 0)


def test_read_only_volume_refuses_writes_and_serves_reads(bench: Bench) -> None:
    bench.protect()
    for row in WRITES:
        assert sense_of(bench.send(extent(row, 0, 1), (block(1),))) == WRITE_PROTECTED
    assert bench.send(read_16(0, 1), (), BLOCK).good
    assert bench.volume.calls == [("read", 1)]


def test_error_belongs_to_its_command_only(bench: Bench) -> None:
    bench.volume.faults = {2: UNRECOVERED_READ_ERROR}
    answers = bench.batch(*(Command(read_16(lba, 1), (), BLOCK) for lba in range(4)))
    assert [answer.good for answer in answers] == [True, True, False, True]
    assert sense_of(answers[2]) == UNRECOVERED_READ_ERROR.at(2)
    assert answers[2].residual == BLOCK
    bench.volume.faults = {1: WRITE_ERROR}
    answers = bench.batch(*(Command(write_16(lba, 1), (block(lba),)) for lba in range(3)))
    assert [answer.status for answer in answers] == [Status.GOOD, Status.CHECK_CONDITION, Status.GOOD]
    assert sense_of(answers[1]) == WRITE_ERROR.at(1)


def test_error_inside_an_extent_names_the_block(bench: Bench) -> None:
    bench.volume.faults = {12: UNRECOVERED_READ_ERROR}
    assert bench.sense(opcodes.READ_16, (), 8 * BLOCK, lba=8, blocks=8) == UNRECOVERED_READ_ERROR.at(12)


def test_sense_is_fixed_unless_the_lba_is_too_long_or_the_unit_is_told_so() -> None:
    volume = MemoryVolume(1 << 10, 1)
    volume.blocks = 1 << 33
    volume.faults = {1: UNRECOVERED_READ_ERROR, 1 << 32: UNRECOVERED_READ_ERROR}
    for sense_format, low_code in ((SenseFormat.FIXED, 0xF0), (SenseFormat.DESCRIPTOR, 0x72)):
        server = DeviceServer(volume, IDENTITY, sense_format=sense_format)
        low, high = run_now(server.execute([Command(read_16(1, 1), (), 1), Command(read_16(1 << 32, 1), (), 1)]))
        assert (low.sense[0], high.sense[0]) == (low_code, 0x72)
        assert decode_sense(high.sense).information == 1 << 32


def test_unit_attention_ends_one_command_and_only_one(bench: Bench) -> None:
    bench.server.raise_unit_attention(POWER_ON_OCCURRED)
    bench.server.raise_unit_attention(RESET_OCCURRED)
    bench.server.raise_unit_attention(POWER_ON_OCCURRED)
    commands = [Command(read_16(lba, 1), (), BLOCK) for lba in range(4)]
    answers = bench.batch(Command(opcodes.INQUIRY.encode(allocation=36), (), 36), *commands)
    assert [answer.good for answer in answers] == [True, False, False, True, True]
    assert [sense_of(answer) for answer in answers[1:3]] == [POWER_ON_OCCURRED, RESET_OCCURRED]
    assert bench.volume.calls == [("read", 2)]


def test_unit_attention_waits_for_a_command_that_may_be_ended(bench: Bench) -> None:
    bench.server.raise_unit_attention(RESET_OCCURRED)
    assert bench.fetch(opcodes.INQUIRY, allocation=36)
    assert bench.fetch(opcodes.REPORT_LUNS, allocation=16)
    assert not bench.send(b"\xff" * 16).good, "an unknown command"
    assert bench.sense(opcodes.TEST_UNIT_READY) == RESET_OCCURRED
    bench.do(opcodes.TEST_UNIT_READY)


def test_write_that_meets_a_unit_attention_is_not_begun(bench: Bench) -> None:
    bench.server.raise_unit_attention(RESET_OCCURRED)
    assert bench.sense(opcodes.WRITE_16, (block(1),), lba=0, blocks=1) == RESET_OCCURRED
    assert bench.volume.calls == []


def test_empty_batch_is_nothing(bench: Bench) -> None:
    assert bench.batch() == []


def test_volume_without_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^a logical unit has at least one block$"):
        DeviceServer(MemoryVolume(0), IDENTITY)
