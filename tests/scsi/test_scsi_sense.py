"""Sense data: bytes worked out by hand from SPC-4 4.5, both formats, whole, cut and garbled."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwvirt.scsi import sense as senses
from hwvirt.scsi.sense import (
    CAPACITY_CHANGED,
    COMMUNICATION_TIMEOUT,
    INVALID_FIELD_IN_CDB,
    LBA_OUT_OF_RANGE,
    MALFORMED_SENSE,
    MISCOMPARE,
    NO_SENSE,
    SPACE_ALLOCATION_FAILED_WRITE_PROTECT,
    UNRECOVERED_READ_ERROR,
    WRITE_ERROR,
    WRITE_PROTECTED,
    CheckCondition,
    Sense,
    SenseFormat,
    decode_sense,
    encode_descriptor,
    encode_fixed,
    encode_sense,
    errno_of,
)
from hwvirt.scsi.status import SenseKey

FIXED = [
    (UNRECOVERED_READ_ERROR.at(0x1F400), "f0 00 03 00 01 f4 00 0a 00 00 00 00 11 00 00 00 00 00"),
    (UNRECOVERED_READ_ERROR.at(0), "f0 00 03 00 00 00 00 0a 00 00 00 00 11 00 00 00 00 00"),
    (INVALID_FIELD_IN_CDB, "70 00 05 00 00 00 00 0a 00 00 00 00 24 00 00 00 00 00"),
    (Sense(SenseKey.MEDIUM_ERROR, 0x0C, 0x00, 0xFFFFFFFF, True), "f1 00 03 ff ff ff ff 0a 00 00 00 00 0c 00 00 00 00 00"),
]
DESCRIPTOR = [
    (INVALID_FIELD_IN_CDB, "72 05 24 00 00 00 00 00"),
    (UNRECOVERED_READ_ERROR.at(0x123456789A), "72 03 11 00 00 00 00 0c 00 0a 80 00 00 00 00 12 34 56 78 9a"),
    (Sense(SenseKey.MEDIUM_ERROR, 0x0C, 0x00, 0, True), "73 03 0c 00 00 00 00 0c 00 0a 80 00 00 00 00 00 00 00 00 00"),
]


@pytest.mark.parametrize(("sense", "expected"), FIXED)
def test_fixed_format_is_that_of_the_standard(sense: Sense, expected: str) -> None:
    assert encode_fixed(sense).hex(" ") == expected
    assert decode_sense(bytes.fromhex(expected)) == sense


@pytest.mark.parametrize(("sense", "expected"), DESCRIPTOR)
def test_descriptor_format_is_that_of_the_standard(sense: Sense, expected: str) -> None:
    assert encode_descriptor(sense).hex(" ") == expected
    assert decode_sense(bytes.fromhex(expected)) == sense


@pytest.mark.parametrize(
    ("code", "name", "key", "asc", "ascq"),
    [
        ("NOT_READY", "not ready", 2, 0x04, 0x00),
        ("BECOMING_READY", "not ready", 2, 0x04, 0x01),
        ("INITIALIZING_COMMAND_REQUIRED", "not ready", 2, 0x04, 0x02),
        ("UNRECOVERED_READ_ERROR", "medium error", 3, 0x11, 0x00),
        ("WRITE_ERROR", "medium error", 3, 0x0C, 0x00),
        ("COMMUNICATION_FAILURE", "hardware error", 4, 0x08, 0x00),
        ("INTERNAL_TARGET_FAILURE", "hardware error", 4, 0x44, 0x00),
        ("PARAMETER_LIST_LENGTH_ERROR", "illegal request", 5, 0x1A, 0x00),
        ("INVALID_OPCODE", "illegal request", 5, 0x20, 0x00),
        ("LBA_OUT_OF_RANGE", "illegal request", 5, 0x21, 0x00),
        ("INVALID_FIELD_IN_CDB", "illegal request", 5, 0x24, 0x00),
        ("LOGICAL_UNIT_NOT_SUPPORTED", "illegal request", 5, 0x25, 0x00),
        ("INVALID_FIELD_IN_PARAMETER_LIST", "illegal request", 5, 0x26, 0x00),
        ("SAVING_PARAMETERS_NOT_SUPPORTED", "illegal request", 5, 0x39, 0x00),
        ("RESET_OCCURRED", "unit attention", 6, 0x29, 0x00),
        ("POWER_ON_OCCURRED", "unit attention", 6, 0x29, 0x01),
        ("BUS_RESET_OCCURRED", "unit attention", 6, 0x29, 0x02),
        ("NEXUS_LOSS_OCCURRED", "unit attention", 6, 0x29, 0x07),
        ("CAPACITY_CHANGED", "unit attention", 6, 0x2A, 0x09),
        ("COMMANDS_CLEARED", "unit attention", 6, 0x2F, 0x00),
        ("LUNS_CHANGED", "unit attention", 6, 0x3F, 0x0E),
        ("WRITE_PROTECTED", "data protect", 7, 0x27, 0x00),
        ("SPACE_ALLOCATION_FAILED_WRITE_PROTECT", "data protect", 7, 0x27, 0x07),
        ("COMMUNICATION_TIMEOUT", "aborted command", 0xB, 0x08, 0x01),
        ("DATA_PHASE_ERROR", "aborted command", 0xB, 0x4B, 0x00),
        ("MISCOMPARE", "miscompare", 0xE, 0x1D, 0x00),
    ],
)
def test_named_senses_are_those_of_t10(code: str, name: str, key: int, asc: int, ascq: int) -> None:
    sense: Sense = getattr(senses, code)
    assert (sense.key, sense.asc, sense.ascq) == (key, asc, ascq)
    assert str(sense).startswith(f"{name}, ")


@pytest.mark.parametrize(
    ("sense", "text"),
    [
        (UNRECOVERED_READ_ERROR.at(0x1F400), "medium error, unrecovered read error (3/11/00), information 0x1f400"),
        (WRITE_PROTECTED, "data protect, write protected (7/27/00)"),
        (Sense(SenseKey.MEDIUM_ERROR, 0x0C, 0x00, None, True), "deferred medium error, write error (3/0c/00)"),
        (Sense(SenseKey.HARDWARE_ERROR, 0x80, 0x41), "hardware error (4/80/41)"),
        (MALFORMED_SENSE, "vendor specific, the sense data could not be understood (9/ff/ff)"),
        (NO_SENSE, "no sense, no additional sense (0/00/00)"),
    ],
)
def test_sense_says_what_went_wrong(sense: Sense, text: str) -> None:
    assert str(sense) == text
    assert str(CheckCondition(sense)) == text


def test_lba_beyond_32_bits_needs_descriptor_format() -> None:
    low, high = UNRECOVERED_READ_ERROR.at(0xFFFFFFFF), UNRECOVERED_READ_ERROR.at(0x100000000)
    assert encode_sense(low) == encode_fixed(low)
    assert encode_sense(low, SenseFormat.DESCRIPTOR) == encode_descriptor(low)
    assert encode_sense(high) == encode_descriptor(high)
    assert decode_sense(encode_fixed(high)) == UNRECOVERED_READ_ERROR, "fixed format leaves it out rather than lie"


def test_information_that_is_not_valid_is_none() -> None:
    assert decode_sense(bytes.fromhex("70 00 03 00 01 f4 00 0a 00 00 00 00 11 00 00 00 00 00")) == UNRECOVERED_READ_ERROR
    not_valid = bytes.fromhex("72 03 11 00 00 00 00 0c 00 0a 00 00 00 00 00 12 34 56 78 9a")
    assert decode_sense(not_valid) == UNRECOVERED_READ_ERROR


def test_information_is_found_behind_other_descriptors() -> None:
    data = bytes.fromhex("72 03 11 00 00 00 00 14 02 06 00 00 80 00 02 00 00 0a 80 00 00 00 00 00 00 01 f4 00")
    assert decode_sense(data) == UNRECOVERED_READ_ERROR.at(0x1F400)


def test_bytes_beyond_the_additional_length_do_not_count() -> None:
    assert decode_sense(bytes.fromhex("70 00 03 00 00 00 00 04 00 00 00 00 11 00")) == Sense(SenseKey.MEDIUM_ERROR, 0, 0)
    other = bytes.fromhex("72 03 11 00 00 00 00 00 00 0a 80 00 00 00 00 00 00 01 f4 00")
    assert decode_sense(other) == UNRECOVERED_READ_ERROR


@pytest.mark.parametrize("data", ["70", "7000", "720311", "00", "7f000300", "720c110000000000", "70000c00000000"])
def test_what_no_standard_defines_is_called_malformed(data: str) -> None:
    assert decode_sense(bytes.fromhex(data)) == MALFORMED_SENSE


def test_no_sense_data_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^there is no sense data$"):
        decode_sense(b"")


@pytest.mark.parametrize("sense", [UNRECOVERED_READ_ERROR.at(7), WRITE_ERROR])
def test_cut_sense_data_never_says_something_else(sense: Sense) -> None:
    for data in (encode_fixed(sense), encode_descriptor(sense)):
        for end in range(1, len(data)):
            found = decode_sense(data[:end])
            assert found is MALFORMED_SENSE or (found.key, found.asc) in ((sense.key, sense.asc), (sense.key, 0))


@given(st.binary(min_size=1, max_size=64))
def test_any_bytes_decode_to_some_sense(data: bytes) -> None:
    assert str(decode_sense(data))
    assert errno_of(decode_sense(data)) in (errno.ENOSPC, errno.EPERM, errno.EINVAL, errno.EIO)


@given(
    st.sampled_from(SenseKey),
    st.integers(0, 255),
    st.integers(0, 255),
    st.none() | st.integers(0, (1 << 64) - 1),
    st.booleans(),
    st.sampled_from(SenseFormat),
)
def test_sense_survives_encode_and_decode(
    key: SenseKey, asc: int, ascq: int, information: int | None, deferred: bool, sense_format: SenseFormat
) -> None:
    sense = Sense(key, asc, ascq, information, deferred)
    assert decode_sense(encode_sense(sense, sense_format)) == sense


@pytest.mark.parametrize(
    ("sense", "expected"),
    [
        (SPACE_ALLOCATION_FAILED_WRITE_PROTECT.at(5), errno.ENOSPC),
        (WRITE_PROTECTED, errno.EPERM),
        (INVALID_FIELD_IN_CDB, errno.EINVAL),
        (LBA_OUT_OF_RANGE, errno.EINVAL),
        (UNRECOVERED_READ_ERROR, errno.EIO),
        (COMMUNICATION_TIMEOUT, errno.EIO),
        (MISCOMPARE, errno.EIO),
        (CAPACITY_CHANGED, errno.EIO),
        (MALFORMED_SENSE, errno.EIO),
    ],
)
def test_errno_of_a_sense(sense: Sense, expected: int) -> None:
    assert errno_of(sense) == expected
