"""CDBs: bytes worked out by hand from the tables of SPC-4 and SBC-4 drive the encoders, the rows and the descriptions."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwvirt.buffers import joined
from hwvirt.scsi import cdb, opcodes
from hwvirt.scsi.opcodes import COMMANDS, Cdb, Direction, cdb_size, find
from hwvirt.scsi.volume import Extent


class Vector(NamedTuple):
    row: Cdb
    fields: dict[str, int]
    hex: str
    text: str


VECTORS = [
    Vector(opcodes.TEST_UNIT_READY, {}, "00 00 00 00 00 00", "TEST UNIT READY"),
    Vector(opcodes.REQUEST_SENSE, {"desc": 1, "allocation": 252}, "03 01 00 00 fc 00", "REQUEST SENSE desc allocation=252"),
    Vector(
        opcodes.READ_6,
        {"lba_high": 0x1F, "lba_low": 0x2345, "blocks": 9},
        "08 1f 23 45 09 00",
        "READ(6) lba=0x1f2345 blocks=9",
    ),
    Vector(opcodes.WRITE_6, {"lba_low": 0x10, "blocks": 1}, "0a 00 00 10 01 00", "WRITE(6) lba=0x10 blocks=1"),
    Vector(opcodes.INQUIRY, {"allocation": 96}, "12 00 00 00 60 00", "INQUIRY allocation=96"),
    Vector(
        opcodes.INQUIRY,
        {"evpd": 1, "page": 0xB0, "allocation": 0x1234},
        "12 01 b0 12 34 00",
        "INQUIRY evpd page=0xb0 allocation=4660",
    ),
    Vector(
        opcodes.MODE_SENSE_6,
        {"dbd": 1, "pc": 2, "page": 0x08, "subpage": 0xFF, "allocation": 192},
        "1a 08 88 ff c0 00",
        "MODE SENSE(6) dbd pc=2 page=0x08 subpage=0xff allocation=192",
    ),
    Vector(opcodes.START_STOP_UNIT, {"immed": 1, "start": 1}, "1b 01 00 00 01 00", "START STOP UNIT immed start"),
    Vector(
        opcodes.START_STOP_UNIT,
        {"power_condition": 3, "power_condition_modifier": 1, "no_flush": 1, "loej": 1},
        "1b 00 00 01 36 00",
        "START STOP UNIT power_condition_modifier power_condition=3 no_flush loej",
    ),
    Vector(opcodes.READ_CAPACITY_10, {}, "25 00 00 00 00 00 00 00 00 00", "READ CAPACITY(10) lba=0x0"),
    Vector(
        opcodes.READ_10,
        {"protect": 1, "dpo": 1, "fua": 1, "rarc": 1, "lba": 0x12345678, "group": 0x3F, "blocks": 0xABCD},
        "28 3c 12 34 56 78 3f ab cd 00",
        "READ(10) protect dpo fua rarc lba=0x12345678 group=63 blocks=43981",
    ),
    Vector(
        opcodes.WRITE_10,
        {"fua": 1, "lba": 0x1F400, "blocks": 8},
        "2a 08 00 01 f4 00 00 00 08 00",
        "WRITE(10) fua lba=0x1f400 blocks=8",
    ),
    Vector(
        opcodes.VERIFY_10,
        {"bytchk": 3, "lba": 1, "blocks": 2},
        "2f 06 00 00 00 01 00 00 02 00",
        "VERIFY(10) bytchk=3 lba=0x1 blocks=2",
    ),
    Vector(
        opcodes.SYNCHRONIZE_CACHE_10,
        {"immed": 1, "lba": 5, "blocks": 6},
        "35 02 00 00 00 05 00 00 06 00",
        "SYNCHRONIZE CACHE(10) immed lba=0x5 blocks=6",
    ),
    Vector(
        opcodes.WRITE_SAME_10,
        {"anchor": 1, "unmap": 1, "lba": 7, "blocks": 0x100},
        "41 18 00 00 00 07 00 01 00 00",
        "WRITE SAME(10) anchor unmap lba=0x7 blocks=256",
    ),
    Vector(opcodes.UNMAP, {"parameter_list": 24}, "42 00 00 00 00 00 00 00 18 00", "UNMAP parameter_list=24"),
    Vector(
        opcodes.MODE_SENSE_10,
        {"llbaa": 1, "dbd": 1, "page": 0x3F, "allocation": 0x1000},
        "5a 18 3f 00 00 00 00 10 00 00",
        "MODE SENSE(10) llbaa dbd page=0x3f allocation=4096",
    ),
    Vector(
        opcodes.READ_16,
        {"dpo": 1, "lba": 0x123456789ABCDEF0, "blocks": 0x01020304, "group": 5},
        "88 10 12 34 56 78 9a bc de f0 01 02 03 04 05 00",
        "READ(16) dpo lba=0x123456789abcdef0 blocks=16909060 group=5",
    ),
    Vector(
        opcodes.COMPARE_AND_WRITE,
        {"fua": 1, "lba": 0x10, "blocks": 3},
        "89 08 00 00 00 00 00 00 00 10 00 00 00 03 00 00",
        "COMPARE AND WRITE fua lba=0x10 blocks=3",
    ),
    Vector(
        opcodes.WRITE_16,
        {"lba": 0x1F400, "blocks": 8},
        "8a 00 00 00 00 00 00 01 f4 00 00 00 00 08 00 00",
        "WRITE(16) lba=0x1f400 blocks=8",
    ),
    Vector(
        opcodes.VERIFY_16,
        {"bytchk": 1, "lba": 2, "blocks": 1},
        "8f 02 00 00 00 00 00 00 00 02 00 00 00 01 00 00",
        "VERIFY(16) bytchk lba=0x2 blocks=1",
    ),
    Vector(
        opcodes.SYNCHRONIZE_CACHE_16,
        {"immed": 1},
        "91 02 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
        "SYNCHRONIZE CACHE(16) immed lba=0x0 blocks=0",
    ),
    Vector(
        opcodes.WRITE_SAME_16,
        {"unmap": 1, "ndob": 1, "lba": 0x100000000, "blocks": 0x80000},
        "93 09 00 00 00 01 00 00 00 00 00 08 00 00 00 00",
        "WRITE SAME(16) unmap ndob lba=0x100000000 blocks=524288",
    ),
    Vector(
        opcodes.READ_CAPACITY_16,
        {"allocation": 32},
        "9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00",
        "READ CAPACITY(16) lba=0x0 allocation=32",
    ),
    Vector(
        opcodes.GET_LBA_STATUS,
        {"lba": 0x20, "allocation": 24},
        "9e 12 00 00 00 00 00 00 00 20 00 00 00 18 00 00",
        "GET LBA STATUS lba=0x20 allocation=24",
    ),
    Vector(
        opcodes.REPORT_LUNS,
        {"select_report": 2, "allocation": 4096},
        "a0 00 02 00 00 00 00 00 10 00 00 00",
        "REPORT LUNS select_report=2 allocation=4096",
    ),
    Vector(
        opcodes.REPORT_SUPPORTED_OPERATION_CODES,
        {"rctd": 1, "reporting_options": 2, "requested_opcode": 0x9E, "requested_service_action": 0x10, "allocation": 512},
        "a3 0c 82 9e 00 10 00 00 02 00 00 00",
        "REPORT SUPPORTED OPERATION CODES rctd reporting_options=2 requested_opcode=0x9e requested_service_action=16 "
        "allocation=512",
    ),
    Vector(
        opcodes.READ_12,
        {"lba": 0x01020304, "blocks": 0x00010000, "group": 1},
        "a8 00 01 02 03 04 00 01 00 00 01 00",
        "READ(12) lba=0x1020304 blocks=65536 group",
    ),
    Vector(
        opcodes.WRITE_12,
        {"dpo": 1, "fua": 1, "lba": 9, "blocks": 1},
        "aa 18 00 00 00 09 00 00 00 01 00 00",
        "WRITE(12) dpo fua lba=0x9 blocks=1",
    ),
]
IDS = [vector.text for vector in VECTORS]


@pytest.mark.parametrize("vector", VECTORS, ids=IDS)
def test_row_encodes_to_the_bytes_of_the_standard(vector: Vector) -> None:
    assert vector.row.encode(**vector.fields).hex(" ") == vector.hex


@pytest.mark.parametrize("vector", VECTORS, ids=IDS)
def test_bytes_decode_to_the_row_and_its_fields(vector: Vector) -> None:
    data = bytes.fromhex(vector.hex)
    row = find(data)
    assert row is vector.row
    values = row.layout.decode(data)
    assert {
        name: value for name, value in values.items() if value and name not in ("opcode", "service_action")
    } == vector.fields
    assert not row.layout.unnamed(data)


@pytest.mark.parametrize("vector", VECTORS, ids=IDS)
def test_description_names_command_lba_and_blocks(vector: Vector) -> None:
    assert cdb.describe(bytes.fromhex(vector.hex)) == vector.text


def test_every_row_has_a_vector() -> None:
    assert {vector.row for vector in VECTORS} == set(COMMANDS)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (cdb.read_16(0x1F400, 8), "88 00 00 00 00 00 00 01 f4 00 00 00 00 08 00 00"),
        (cdb.write_16(0x1F400, 8), "8a 00 00 00 00 00 00 01 f4 00 00 00 00 08 00 00"),
        (cdb.write_16(0x1F400, 8, fua=True), "8a 08 00 00 00 00 00 01 f4 00 00 00 00 08 00 00"),
        (cdb.verify_16(1, 2), "8f 00 00 00 00 00 00 00 00 01 00 00 00 02 00 00"),
        (cdb.synchronize_cache_16(), "91 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"),
        (cdb.write_same_16(1, 2), "93 00 00 00 00 00 00 00 00 01 00 00 00 02 00 00"),
        (cdb.write_same_16(1, 2, unmap=True), "93 08 00 00 00 00 00 00 00 01 00 00 00 02 00 00"),
        (cdb.write_same_16_unmap(1, 2).cdb, "93 09 00 00 00 00 00 00 00 01 00 00 00 02 00 00"),
        (cdb.inquiry(None, 36), "12 00 00 00 24 00"),
        (cdb.inquiry(0x00, 255), "12 01 00 00 ff 00"),
        (cdb.inquiry(0x83, 1024), "12 01 83 04 00 00"),
        (cdb.read_capacity_16(), "9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00"),
        (cdb.mode_sense_10(0x08, 255), "5a 08 08 00 00 00 00 00 ff 00"),
    ],
)
def test_encoders_of_the_data_path(data: bytes, expected: str) -> None:
    assert data.hex(" ") == expected


def test_unmap_carries_its_extents_as_parameters() -> None:
    command = cdb.unmap([Extent(0x100000000, 8), Extent(2, 1)])
    assert command.cdb.hex(" ") == "42 00 00 00 00 00 00 00 28 00"
    assert bytes(joined(command.data_out)).hex(" ") == (
        "00 26 00 20 00 00 00 00 "
        "00 00 00 01 00 00 00 00 00 00 00 08 00 00 00 00 "
        "00 00 00 00 00 00 00 02 00 00 00 01 00 00 00 00"
    )


def test_unmap_of_more_extents_than_one_list_holds_is_refused() -> None:
    most = [Extent(0, 1)] * 4095
    assert len(joined(cdb.unmap(most).data_out)) == 65528
    with pytest.raises(ValueError, match=r"^4096 extents are too many for one UNMAP$"):
        cdb.unmap([*most, Extent(0, 1)])


def test_only_writes_and_what_is_unknown_change_the_medium() -> None:
    changing = {row.name for row in COMMANDS if cdb.medium_changing(row.encode())}
    assert changing == {
        "WRITE(6)",
        "WRITE(10)",
        "WRITE(12)",
        "WRITE(16)",
        "WRITE SAME(10)",
        "WRITE SAME(16)",
        "UNMAP",
        "COMPARE AND WRITE",
    }
    format_unit, sanitize, vendor = b"\x04" + bytes(5), b"\x48" + bytes(9), b"\xc1" + bytes(15)
    assert all(cdb.medium_changing(data) for data in (format_unit, sanitize, vendor, b"", b"\x88"))


def test_flushes_and_unmaps_may_take_longer_than_reads() -> None:
    assert cdb.timeout_s(cdb.read_16(0, 1)) == 30
    assert cdb.timeout_s(cdb.synchronize_cache_16()) == 60
    assert cdb.timeout_s(b"\xc1") == 30


def test_cdb_that_no_row_knows_is_described_by_its_bytes() -> None:
    assert cdb.describe(b"\x04\x10\0\0\0\0") == "CDB 04 10 00 00 00 00"
    assert cdb.describe(cdb.read_16(1, 1)[:15]) == "CDB 88 00 00 00 00 00 00 00 00 01 00 00 00 01 00"
    assert cdb.describe(b"") == "empty CDB"


def test_cdb_in_a_longer_field_is_found_by_its_first_bytes() -> None:
    assert find(bytes(16)) is opcodes.TEST_UNIT_READY


@pytest.mark.parametrize("row", COMMANDS, ids=[row.name for row in COMMANDS])
def test_usage_covers_every_bit_that_a_vector_sets(row: Cdb) -> None:
    usage = row.usage
    assert (usage[0], len(usage)) == (row.opcode, cdb_size(row.opcode))
    for vector in VECTORS:
        if vector.row is row:
            outside = [byte & ~mask for byte, mask in zip(bytes.fromhex(vector.hex), usage, strict=True)]
            assert not any(outside)


def test_writes_send_data_and_reads_receive_it() -> None:
    directions = {row.name: row.direction for row in COMMANDS}
    assert directions["WRITE(16)"] is directions["UNMAP"] is directions["VERIFY(16)"] is Direction.OUT
    assert directions["READ(16)"] is directions["INQUIRY"] is Direction.IN
    assert directions["TEST UNIT READY"] is Direction.NONE


@given(st.binary(max_size=20))
def test_any_bytes_can_be_described(data: bytes) -> None:
    assert cdb.describe(data)
    assert cdb.timeout_s(data) > 0
    assert cdb.medium_changing(data) in (True, False)
