"""What a unit tells about itself: the device server's answers to commands that touch no block."""

from __future__ import annotations

import pytest

from hwvirt.buffers import joined
from hwvirt.scsi import mode, opcodes, parameters, vpd
from hwvirt.scsi.command import Completion
from hwvirt.scsi.opcodes import COMMANDS, Cdb
from hwvirt.scsi.sense import (
    INVALID_FIELD_IN_CDB,
    INVALID_OPCODE,
    NO_SENSE,
    POWER_ON_OCCURRED,
    SAVING_PARAMETERS_NOT_SUPPORTED,
    SenseFormat,
    decode_sense,
)
from hwvirt.scsi.server.condition import CONDITION
from hwvirt.scsi.server.information import INFORMATION
from hwvirt.scsi.server.medium import MEDIUM
from hwvirt.scsi.server.transfers import FORMS
from hwvirt.scsi.status import Status
from tests.scsi.scsikit import BLOCK, IDENTITY, Bench, sense_of


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_every_command_of_the_table_is_served_in_one_place() -> None:
    served = [*CONDITION, *INFORMATION, *MEDIUM]
    assert len(served) == len(set(served))
    transfers = [row for row in COMMANDS if row not in served]
    assert sorted(bytes([row.opcode]) for row in transfers) == sorted(FORMS)


def test_inquiry_is_cut_to_the_allocation_length(bench: Bench) -> None:
    whole = bench.fetch(opcodes.INQUIRY, allocation=255)
    assert whole == vpd.encode_inquiry(IDENTITY)
    assert bench.fetch(opcodes.INQUIRY, allocation=36) == whole[:36]
    assert bench.fetch(opcodes.INQUIRY, allocation=0) == b""


def test_data_is_cut_to_what_the_initiator_expects(bench: Bench) -> None:
    completion = bench.send(opcodes.INQUIRY.encode(allocation=255), (), 5)
    assert (bytes(joined(completion.data)), completion.residual) == (vpd.encode_inquiry(IDENTITY)[:5], 0)


@pytest.mark.parametrize("page", list(vpd.Page))
def test_inquiry_sends_every_page_it_lists(bench: Bench, page: int) -> None:
    assert bench.fetch(opcodes.INQUIRY, evpd=1, page=page, allocation=255)[1] == page


def test_inquiry_for_other_pages_is_refused(bench: Bench) -> None:
    assert bench.sense(opcodes.INQUIRY, evpd=1, page=0x84, allocation=255) == INVALID_FIELD_IN_CDB
    assert bench.sense(opcodes.INQUIRY, evpd=0, page=0x80, allocation=255) == INVALID_FIELD_IN_CDB


def test_capacity_is_the_volumes(bench: Bench) -> None:
    assert bench.fetch(opcodes.READ_CAPACITY_10) == parameters.encode_capacity_10(64, BLOCK)
    assert bench.fetch(opcodes.READ_CAPACITY_16, allocation=32) == parameters.encode_capacity_16(64, BLOCK)
    assert bench.fetch(opcodes.READ_CAPACITY_16, allocation=12) == parameters.encode_capacity_16(64, BLOCK)[:12]
    for row in (opcodes.READ_CAPACITY_10, opcodes.READ_CAPACITY_16):
        assert bench.sense(row, lba=1) == INVALID_FIELD_IN_CDB
        assert bench.sense(row, pmi=1) == INVALID_FIELD_IN_CDB


def test_luns_are_those_of_the_target() -> None:
    bench = Bench(luns=[0, 2])
    assert parameters.decode_luns(bench.fetch(opcodes.REPORT_LUNS, allocation=4096)) == [0, 2]
    assert parameters.decode_luns(bench.fetch(opcodes.REPORT_LUNS, select_report=2, allocation=4096)) == [0, 2]
    assert parameters.decode_luns(bench.fetch(opcodes.REPORT_LUNS, select_report=1, allocation=4096)) == []
    assert bench.sense(opcodes.REPORT_LUNS, allocation=15) == INVALID_FIELD_IN_CDB
    assert bench.sense(opcodes.REPORT_LUNS, select_report=3, allocation=16) == INVALID_FIELD_IN_CDB


@pytest.mark.parametrize("row", [opcodes.MODE_SENSE_6, opcodes.MODE_SENSE_10])
def test_mode_sense_refuses_pages_that_there_are_not(bench: Bench, row: Cdb) -> None:
    assert bench.sense(row, page=0x01, allocation=255) == INVALID_FIELD_IN_CDB
    assert bench.sense(row, page=0x08, subpage=1, allocation=255) == INVALID_FIELD_IN_CDB
    assert bench.sense(row, page=0x08, pc=3, allocation=255) == SAVING_PARAMETERS_NOT_SUPPORTED
    assert bench.fetch(row, page=0x08, pc=2, allocation=255) == bench.fetch(row, page=0x08, subpage=255, allocation=255)


def mode_facts(bench: Bench) -> mode.ModeFacts:
    return mode.decode_mode_10(bench.fetch(opcodes.MODE_SENSE_10, page=0x3F, allocation=255))


def test_mode_sense_tells_volatile_cache_and_protection(bench: Bench) -> None:
    assert mode_facts(bench) == mode.ModeFacts(write_protected=False, fua=True, volatile_cache=True)
    bench.protect()
    assert mode_facts(bench) == mode.ModeFacts(write_protected=True, fua=True, volatile_cache=True)


def test_mode_sense_sends_a_block_descriptor_unless_told_not_to(bench: Bench) -> None:
    assert bench.fetch(opcodes.MODE_SENSE_6, page=0x08, allocation=255)[3:12].hex(" ") == "08 00 00 00 40 00 00 02 00"
    assert bench.fetch(opcodes.MODE_SENSE_6, page=0x08, dbd=1, allocation=255)[3:5].hex(" ") == "00 08"
    assert len(bench.fetch(opcodes.MODE_SENSE_10, page=0x08, allocation=255)) == 8 + 8 + 20


def test_request_sense_without_anything_to_say_is_no_sense(bench: Bench) -> None:
    assert decode_sense(bench.fetch(opcodes.REQUEST_SENSE, allocation=252)) == NO_SENSE
    assert bench.fetch(opcodes.REQUEST_SENSE, allocation=252)[0] == 0x70
    assert bench.fetch(opcodes.REQUEST_SENSE, desc=1, allocation=252)[0] == 0x72


def test_request_sense_tells_a_unit_attention_once(bench: Bench) -> None:
    bench.server.raise_unit_attention(POWER_ON_OCCURRED)
    assert decode_sense(bench.fetch(opcodes.REQUEST_SENSE, allocation=252)) == POWER_ON_OCCURRED
    assert decode_sense(bench.fetch(opcodes.REQUEST_SENSE, allocation=252)) == NO_SENSE
    bench.do(opcodes.TEST_UNIT_READY)


def test_all_supported_commands_are_listed(bench: Bench) -> None:
    data = bench.fetch(opcodes.REPORT_SUPPORTED_OPERATION_CODES, allocation=4096)
    assert int.from_bytes(data[:4], "big") == 8 * len(COMMANDS) == len(data) - 4
    listed = [data[at : at + 8] for at in range(4, len(data), 8)]
    assert bytes.fromhex("8a00000000000010") in listed
    assert bytes.fromhex("9e00001000010010") in listed
    timed = bench.fetch(opcodes.REPORT_SUPPORTED_OPERATION_CODES, 8192, rctd=1, allocation=8192)
    assert len(timed) == 4 + 20 * len(COMMANDS)
    assert bytes.fromhex("2800000000020 00a 000a00000000000 00000001e".replace(" ", "")) in timed


def one(bench: Bench, options: int, opcode: int, action: int = 0, rctd: int = 0) -> str:
    return bench.fetch(
        opcodes.REPORT_SUPPORTED_OPERATION_CODES,
        rctd=rctd,
        reporting_options=options,
        requested_opcode=opcode,
        requested_service_action=action,
        allocation=512,
    ).hex(" ")


def test_one_command_is_described_by_its_usage(bench: Bench) -> None:
    usage = "8a f8 ff ff ff ff ff ff ff ff ff ff ff ff 3f ff"
    assert one(bench, 1, 0x8A) == f"00 03 00 10 {usage}"
    assert one(bench, 3, 0x8A) == f"00 03 00 10 {usage}"
    assert one(bench, 1, 0x8A, rctd=1) == f"00 83 00 10 {usage} 00 0a 00 00 00 00 00 00 00 00 00 1e"
    assert one(bench, 2, 0x9E, 0x12) == "00 03 00 10 9e 12 ff ff ff ff ff ff ff ff ff ff ff ff ff ff"
    assert one(bench, 3, 0x9E, 0x12) == one(bench, 2, 0x9E, 0x12)


def test_command_that_is_not_supported_is_told_so(bench: Bench) -> None:
    for options, opcode, action in [
        (1, 0x04, 0),
        (2, 0x9E, 0x11),
        (3, 0x9E, 0x11),
        (3, 0x04, 0),
        (3, 0x8A, 1),
        (2, 0x7F, 9),
    ]:
        assert one(bench, options, opcode, action) == "00 01 00 00"


@pytest.mark.parametrize(("options", "opcode"), [(1, 0x9E), (2, 0x8A), (4, 0x8A), (7, 0x8A)])
def test_report_that_does_not_fit_the_command_is_refused(bench: Bench, options: int, opcode: int) -> None:
    row = opcodes.REPORT_SUPPORTED_OPERATION_CODES
    assert bench.sense(row, reporting_options=options, requested_opcode=opcode, allocation=512) == INVALID_FIELD_IN_CDB


@pytest.mark.parametrize("cdb", [b"\x04\0\0\0\0\0", b"\xff" * 16, b"\x7f" + bytes(31), b""])
def test_unknown_operation_code_is_refused(bench: Bench, cdb: bytes) -> None:
    assert sense_of(bench.send(cdb)) == INVALID_OPCODE


@pytest.mark.parametrize("cdb", [b"\x9e\x11" + bytes(14), b"\xa3\x0a" + bytes(10), b"\x12", b"\x88" + bytes(14), b"\x00"])
def test_unknown_service_action_and_cut_cdb_are_refused(bench: Bench, cdb: bytes) -> None:
    assert sense_of(bench.send(cdb)) == INVALID_FIELD_IN_CDB


@pytest.mark.parametrize("row", COMMANDS, ids=[row.name for row in COMMANDS])
def test_control_byte_that_is_not_zero_is_refused(bench: Bench, row: Cdb) -> None:
    assert bench.sense(row, control=4) == INVALID_FIELD_IN_CDB


@pytest.mark.parametrize("row", [row for row in COMMANDS if row not in MEDIUM], ids=lambda row: row.name)
def test_reserved_bits_of_byte_1_are_refused(bench: Bench, row: Cdb) -> None:
    reserved = 0xFF & ~row.layout.usage[1]
    for bit in range(8):
        if reserved >> bit & 1:
            cdb = bytearray(row.encode())
            cdb[1] |= 1 << bit
            expected = [INVALID_FIELD_IN_CDB] if row.service_action is None else [INVALID_FIELD_IN_CDB, INVALID_OPCODE]
            assert sense_of(bench.send(bytes(cdb))) in expected


def test_residual_of_a_refusal_is_the_whole_transfer(bench: Bench) -> None:
    assert bench.send(b"\xff" * 16, (), 100).residual == 100
    assert bench.send(b"\xff" * 16, (b"abc", b"de")).residual == 5


def test_descriptor_format_where_the_unit_is_told_to() -> None:
    bench = Bench(sense_format=SenseFormat.DESCRIPTOR)
    completion = bench.send(b"\xff" * 16)
    assert completion.sense.hex(" ") == "72 05 20 00 00 00 00 00"
    assert bench.fetch(opcodes.MODE_SENSE_10, page=0x0A, dbd=1, allocation=255)[10] == 0x04


def test_command_without_data_reports_what_the_initiator_expected_too_much(bench: Bench) -> None:
    assert bench.send(bytes(6), (), 8) == Completion(Status.GOOD, (), b"", 8)
