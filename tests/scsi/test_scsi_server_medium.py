"""Commands that need the medium, other than reads and writes."""

from __future__ import annotations

import struct

import pytest

from hwvirt.scsi import opcodes, parameters
from hwvirt.scsi.cdb import inquiry, read_16, unmap, write_same_16_unmap
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.opcodes import COMMANDS, Cdb
from hwvirt.scsi.sense import (
    INITIALIZING_COMMAND_REQUIRED,
    INVALID_FIELD_IN_CDB,
    INVALID_FIELD_IN_PARAMETER_LIST,
    LBA_OUT_OF_RANGE,
    MISCOMPARE,
    PARAMETER_LIST_LENGTH_ERROR,
    UNRECOVERED_READ_ERROR,
    WRITE_ERROR,
    WRITE_PROTECTED,
    decode_sense,
)
from hwvirt.scsi.server import DeviceServer, run_now
from hwvirt.scsi.server.condition import CONDITION
from hwvirt.scsi.server.information import INFORMATION
from hwvirt.scsi.server.medium import MEDIUM
from hwvirt.scsi.status import Status
from hwvirt.scsi.volume import Extent
from hwvirt.scsi.vpd import BlockLimits
from tests.scsi.memory_volume import MemoryVolume
from tests.scsi.scsikit import BLOCK, IDENTITY, Bench, block, blocks, sense_of

GOOD = Completion(Status.GOOD)
VERIFIES = [opcodes.VERIFY_10, opcodes.VERIFY_16]
FLUSHES = [opcodes.SYNCHRONIZE_CACHE_10, opcodes.SYNCHRONIZE_CACHE_16]
WRITE_SAMES = [opcodes.WRITE_SAME_10, opcodes.WRITE_SAME_16]


@pytest.fixture
def bench() -> Bench:
    """Blocks 0 to 7 tell their LBA, the others are zero."""
    bench = Bench()
    bench.volume.content[: 8 * BLOCK] = blocks(*range(8))
    return bench


@pytest.mark.parametrize("row", [*VERIFIES, *FLUSHES, *WRITE_SAMES, opcodes.COMPARE_AND_WRITE], ids=lambda row: row.name)
def test_extent_beyond_the_capacity_is_refused(bench: Bench, row: Cdb) -> None:
    assert bench.sense(row, (block(1), block(1)), lba=63, blocks=2) == LBA_OUT_OF_RANGE
    assert bench.volume.calls == []


@pytest.mark.parametrize("row", [*WRITE_SAMES, opcodes.COMPARE_AND_WRITE], ids=lambda row: row.name)
def test_read_only_volume_refuses_changes(bench: Bench, row: Cdb) -> None:
    bench.protect()
    assert bench.sense(row, (block(1), block(1)), lba=0, blocks=1) == WRITE_PROTECTED
    assert sense_of(bench.batch(unmap([Extent(0, 1)]))[0]) == WRITE_PROTECTED
    assert bench.volume.calls == []


@pytest.mark.parametrize("row", VERIFIES, ids=lambda row: row.name)
def test_verify_compares_as_it_is_told(bench: Bench, row: Cdb) -> None:
    bench.do(row, lba=0, blocks=8)
    bench.do(row, (block(1)[:9], block(1)[9:], block(2)), lba=1, blocks=2, bytchk=1)
    assert bench.sense(row, (blocks(1, 3),), lba=1, blocks=2, bytchk=1) == MISCOMPARE
    bench.do(row, (bytes(BLOCK),), lba=8, blocks=8, bytchk=3)
    assert bench.sense(row, (bytes(BLOCK),), lba=7, blocks=8, bytchk=3) == MISCOMPARE
    assert bench.sense(row, (block(1),), lba=1, blocks=2, bytchk=1) == INVALID_FIELD_IN_CDB
    assert bench.sense(row, (block(1),), lba=1, blocks=1, bytchk=2) == INVALID_FIELD_IN_CDB
    assert bench.sense(row, protect=1) == INVALID_FIELD_IN_CDB


def test_verify_finds_a_block_that_cannot_be_read(bench: Bench) -> None:
    bench.volume.faults = {5: UNRECOVERED_READ_ERROR}
    assert bench.sense(opcodes.VERIFY_16, lba=0, blocks=8) == UNRECOVERED_READ_ERROR.at(5)
    bench.do(opcodes.VERIFY_16, lba=0, blocks=5)


def test_verify_reads_in_bounded_pieces() -> None:
    bench = Bench((3 << 20) // BLOCK)
    bench.do(opcodes.VERIFY_16, lba=1, blocks=bench.volume.blocks - 1)
    assert bench.volume.calls == [("read", 1)] * 3
    last = bench.volume.blocks - 1
    bench.volume.content[last * BLOCK] = 1
    expected = bytearray(bench.volume.content[BLOCK:])
    bench.do(opcodes.VERIFY_16, (expected,), lba=1, blocks=last, bytchk=1)
    expected[-BLOCK] = 0
    assert bench.sense(opcodes.VERIFY_16, (expected,), lba=1, blocks=last, bytchk=1) == MISCOMPARE


@pytest.mark.parametrize("row", FLUSHES, ids=lambda row: row.name)
def test_synchronize_cache_flushes_and_fails_with_the_flush(bench: Bench, row: Cdb) -> None:
    bench.do(row)
    bench.do(row, immed=1, lba=3, blocks=2)
    assert bench.volume.calls == [("flush", 0)] * 2
    bench.volume.flush_fault = WRITE_ERROR
    assert bench.sense(row) == WRITE_ERROR


def test_unmapped_blocks_read_as_zeroes(bench: Bench) -> None:
    assert bench.batch(unmap([Extent(1, 2), Extent(5, 0), Extent(7, 1)])) == [GOOD]
    assert bench.volume.calls == [("unmap", 2)]
    zero = bytes(BLOCK)
    assert bench.volume.bytes_of(0, 8) == block(0) + zero * 2 + blocks(3, 4, 5, 6) + zero


def test_unmap_of_nothing_is_good(bench: Bench) -> None:
    assert bench.send(opcodes.UNMAP.encode(parameter_list=0)) == GOOD
    assert bench.batch(unmap([]), unmap([Extent(3, 0)])) == [GOOD, GOOD]
    assert bench.volume.calls == []


def test_unmap_list_that_does_not_fit_is_refused_whole(bench: Bench) -> None:
    assert bench.sense(opcodes.UNMAP, (bytes(7),), parameter_list=7) == PARAMETER_LIST_LENGTH_ERROR
    assert bench.sense(opcodes.UNMAP, (bytes(8),), parameter_list=24) == INVALID_FIELD_IN_CDB
    assert bench.sense(opcodes.UNMAP, (bytes(8),), parameter_list=8, anchor=1) == INVALID_FIELD_IN_CDB
    assert sense_of(bench.batch(unmap([Extent(0, 1), Extent(63, 2)]))[0]) == LBA_OUT_OF_RANGE
    assert bench.volume.calls == []


def test_unmap_honours_the_limits_it_reports(bench: Bench) -> None:
    page = bench.fetch(opcodes.INQUIRY, evpd=1, page=0xB0, allocation=255)
    most_blocks, most_extents = struct.unpack_from(">II", page, 20)
    assert bench.batch(unmap([Extent(0, 1)] * most_extents)) == [GOOD]
    assert sense_of(bench.batch(unmap([Extent(0, 1)] * (most_extents + 1)))[0]) == INVALID_FIELD_IN_PARAMETER_LIST
    assert sense_of(bench.batch(unmap([Extent(0, most_blocks + 1)]))[0]) == INVALID_FIELD_IN_PARAMETER_LIST
    assert sense_of(bench.batch(unmap([Extent(0, most_blocks)]))[0]) == LBA_OUT_OF_RANGE


def test_data_behind_the_unmap_list_is_left_over(bench: Bench) -> None:
    command = unmap([Extent(0, 1)])
    assert bench.send(command.cdb, (*command.data_out, b"more")).residual == 4


@pytest.mark.parametrize("row", WRITE_SAMES, ids=lambda row: row.name)
def test_write_same_repeats_its_block(bench: Bench, row: Cdb) -> None:
    bench.do(row, (block(42),), lba=3, blocks=3)
    assert bench.volume.bytes_of(2, 5) == blocks(2, 42, 42, 42, 6)
    assert bench.volume.calls == [("write", 1)]


@pytest.mark.parametrize("row", WRITE_SAMES, ids=lambda row: row.name)
def test_write_same_unmaps_zeroes_only(bench: Bench, row: Cdb) -> None:
    bench.do(row, (bytes(BLOCK),), lba=0, blocks=2, unmap=1)
    bench.do(row, (block(42),), lba=2, blocks=2, unmap=1)
    bench.do(row, (bytes(BLOCK),), lba=4, blocks=2)
    assert bench.volume.calls == [("unmap", 1), ("write", 1), ("write", 1)]
    assert bench.volume.bytes_of(0, 8) == bytes(2 * BLOCK) + blocks(42, 42) + bytes(2 * BLOCK) + blocks(6, 7)


def test_write_same_without_data_out_writes_zeroes(bench: Bench) -> None:
    bench.do(opcodes.WRITE_SAME_16, ndob=1, lba=0, blocks=2)
    assert bench.batch(write_same_16_unmap(3, 1)) == [GOOD]
    assert bench.volume.calls == [("write", 1), ("unmap", 1)]
    assert bench.volume.bytes_of(0, 5) == bytes(2 * BLOCK) + block(2) + bytes(BLOCK) + block(4)


@pytest.mark.parametrize("row", WRITE_SAMES, ids=lambda row: row.name)
def test_write_same_refuses_what_it_cannot_do(bench: Bench, row: Cdb) -> None:
    for wrong in ({"blocks": 0}, {"blocks": 1, "anchor": 1, "unmap": 1}, {"blocks": 1, "protect": 1}):
        assert bench.sense(row, (block(1),), lba=0, **wrong) == INVALID_FIELD_IN_CDB
    assert bench.sense(row, (block(1)[1:],), lba=0, blocks=1) == INVALID_FIELD_IN_CDB
    assert bench.volume.calls == []


def test_write_same_beyond_the_limit_is_refused_and_long_ones_are_cut_in_pieces() -> None:
    bench = Bench((3 << 20) // BLOCK)
    assert bench.sense(opcodes.WRITE_SAME_16, (block(1),), lba=0, blocks=(1 << 23) + 1) == INVALID_FIELD_IN_CDB
    bench.do(opcodes.WRITE_SAME_16, (block(1),), lba=1, blocks=bench.volume.blocks - 1)
    assert bench.volume.calls == [("write", 1)] * 3
    assert bench.volume.bytes_of(0, bench.volume.blocks) == bytes(BLOCK) + block(1) * (bench.volume.blocks - 1)


def test_write_same_stops_at_the_block_that_fails(bench: Bench) -> None:
    bench.volume.faults = {4: WRITE_ERROR}
    assert bench.sense(opcodes.WRITE_SAME_16, (block(1),), lba=0, blocks=8) == WRITE_ERROR.at(4)
    assert bench.sense(opcodes.WRITE_SAME_16, ndob=1, unmap=1, lba=0, blocks=8) == WRITE_ERROR.at(4)


def test_compare_and_write_writes_when_equal(bench: Bench) -> None:
    bench.do(opcodes.COMPARE_AND_WRITE, (blocks(1, 2, 11), block(12)), lba=1, blocks=2)
    assert bench.volume.bytes_of(0, 4) == blocks(0, 11, 12, 3)
    bench.do(opcodes.COMPARE_AND_WRITE, (blocks(3, 13),), lba=3, blocks=1, fua=1)
    assert bench.volume.calls == [("read", 1), ("write", 1), ("read", 1), ("write durable", 1)]


def test_compare_and_write_tells_the_first_byte_that_differs(bench: Bench) -> None:
    expected = bytearray(blocks(1, 2))
    expected[BLOCK + 100] ^= 1
    assert bench.sense(opcodes.COMPARE_AND_WRITE, (expected, blocks(8, 9)), lba=1, blocks=2) == MISCOMPARE.at(BLOCK + 100)
    assert bench.volume.bytes_of(1, 2) == blocks(1, 2)


def test_compare_and_write_refuses_what_it_cannot_do(bench: Bench) -> None:
    row = opcodes.COMPARE_AND_WRITE
    assert bench.sense(row, (block(1),), lba=0, blocks=1) == INVALID_FIELD_IN_CDB
    assert bench.sense(row, (block(1),) * 2, lba=0, blocks=1, protect=1) == INVALID_FIELD_IN_CDB
    assert bench.send(row.encode(lba=64)) == GOOD
    bench.volume.faults = {0: UNRECOVERED_READ_ERROR}
    assert bench.sense(row, (block(0),) * 2, lba=0, blocks=1) == UNRECOVERED_READ_ERROR.at(0)
    assert ("write", 1) not in bench.volume.calls


def test_limits_of_a_unit_can_be_set_and_are_told() -> None:
    limits = BlockLimits(max_compare_and_write=1, max_transfer=2, max_unmap=3, max_unmap_extents=1, max_write_same=4)
    server = DeviceServer(MemoryVolume(64, BLOCK), IDENTITY, limits=limits)
    batch = [
        Command(opcodes.COMPARE_AND_WRITE.encode(blocks=2), (bytes(4 * BLOCK),)),
        Command(read_16(0, 3), (), 3 * BLOCK),
        unmap([Extent(0, 4)]),
        write_same_16_unmap(0, 5),
    ]
    refused = [sense_of(answer) for answer in run_now(server.execute(batch))]
    assert refused == [INVALID_FIELD_IN_CDB, INVALID_FIELD_IN_CDB, INVALID_FIELD_IN_PARAMETER_LIST, INVALID_FIELD_IN_CDB]
    (told,) = run_now(server.execute([Command(inquiry(0xB0, 255), (), 255)]))
    assert BlockLimits.decode(b"".join(told.data)) == limits


def test_commands_around_a_compare_and_write_keep_their_order(bench: Bench) -> None:
    swap = opcodes.COMPARE_AND_WRITE.encode(lba=1, blocks=1)
    read = Command(read_16(1, 1), (), BLOCK)
    answers = bench.batch(read, Command(swap, (blocks(1, 9),)), read, Command(swap, (blocks(1, 8),)), read)
    assert [b"".join(answer.data) for answer in answers] == [block(1), b"", block(9), b"", block(9)]
    assert [answer.good for answer in answers] == [True, True, True, False, True]


def test_lba_status_tells_runs_of_mapped_and_deallocated_blocks(bench: Bench) -> None:
    bench.batch(unmap([Extent(4, 3)]))
    status = parameters.LbaStatus
    whole = parameters.encode_lba_status(2, [(2, status.MAPPED), (3, status.DEALLOCATED), (57, status.MAPPED)])
    assert bench.fetch(opcodes.GET_LBA_STATUS, lba=2, allocation=4096) == whole
    assert bench.fetch(opcodes.GET_LBA_STATUS, lba=2, allocation=24) == whole[:24]
    assert bench.sense(opcodes.GET_LBA_STATUS, lba=64, allocation=24) == LBA_OUT_OF_RANGE
    assert bench.sense(opcodes.GET_LBA_STATUS, lba=0, allocation=24, report_type=1) == INVALID_FIELD_IN_CDB


def test_stopped_unit_refuses_the_medium_until_it_is_started(bench: Bench) -> None:
    bench.do(opcodes.START_STOP_UNIT, start=0)
    assert bench.volume.calls == [("flush", 0)]
    for row in COMMANDS:
        if row in MEDIUM or row is opcodes.TEST_UNIT_READY or row not in {**CONDITION, **INFORMATION}:
            assert bench.sense(row) == INITIALIZING_COMMAND_REQUIRED
    assert bench.fetch(opcodes.INQUIRY, allocation=36)
    assert decode_sense(bench.fetch(opcodes.REQUEST_SENSE, allocation=252)) == INITIALIZING_COMMAND_REQUIRED
    bench.do(opcodes.START_STOP_UNIT, start=1)
    bench.do(opcodes.TEST_UNIT_READY)
    assert bench.volume.calls == [("flush", 0)]


def test_stop_inside_a_batch_holds_for_what_follows(bench: Bench) -> None:
    read = Command(read_16(0, 1), (), BLOCK)
    answers = bench.batch(
        read, Command(opcodes.START_STOP_UNIT.encode()), read, Command(opcodes.START_STOP_UNIT.encode(start=1)), read
    )
    assert [answer.good for answer in answers] == [True, True, False, True, True]


def test_unit_that_cannot_be_flushed_is_not_stopped(bench: Bench) -> None:
    bench.volume.flush_fault = WRITE_ERROR
    assert bench.sense(opcodes.START_STOP_UNIT) == WRITE_ERROR
    bench.do(opcodes.TEST_UNIT_READY)
    bench.do(opcodes.START_STOP_UNIT, no_flush=1)
    assert bench.sense(opcodes.TEST_UNIT_READY) == INITIALIZING_COMMAND_REQUIRED


@pytest.mark.parametrize("wrong", [{"loej": 1}, {"power_condition": 3}, {"power_condition_modifier": 1}])
def test_power_conditions_and_ejecting_are_refused(bench: Bench, wrong: dict[str, int]) -> None:
    assert bench.sense(opcodes.START_STOP_UNIT, (), 0, start=1, **wrong) == INVALID_FIELD_IN_CDB
