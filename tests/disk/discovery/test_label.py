"""A label is read only whole, and only as what it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from hwvirt.digest import crc32c
from hwvirt.disk.discovery.identity import DiskIdentity
from hwvirt.disk.discovery.label import LABEL_BYTES, NO_LABEL, BadLabelError, decode_label, encode_label, make_label
from tests.disk.guard.machine import GOOD, OTHER

NOON = datetime(2026, 1, 31, 13, 0, 0, 999, tzinfo=timezone(timedelta(hours=1)))
LABEL = make_label("desk", "first", GOOD, NOON)
WHOLE = encode_label(LABEL)


def signed(text: bytes) -> bytes:
    body = text.ljust(LABEL_BYTES - 4, b"\0")
    return body + crc32c(body).to_bytes(4, "little")


def test_label_is_text_for_people() -> None:
    assert WHOLE.split(b"\n")[:2] == [
        b"hwvirt disk label 1",
        b'{"rig":"desk","role":"first","wwn":"naa.5000c500aabbccdd","serial":"ZL2001","size_bytes":500107862016,'
        b'"block_bytes":512,"armed_at":"2026-01-31T12:00:00Z"}',
    ]
    assert len(WHOLE) == len(NO_LABEL) == 4096


def test_label_comes_back() -> None:
    assert decode_label(WHOLE) == LABEL
    assert LABEL.armed_at == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert LABEL.names(GOOD)
    assert not LABEL.names(OTHER)


@pytest.mark.parametrize("start", [NO_LABEL, b"", b"hwvirt", b"\xff" * 4096, b"XFSB".ljust(4096, b"\0")])
def test_other_bytes_are_no_label(start: bytes) -> None:
    assert decode_label(start) is None


def test_no_changed_byte_goes_unnoticed() -> None:
    magic = len(b"hwvirt disk label ")
    for place in range(LABEL_BYTES):
        damaged = bytearray(WHOLE)
        damaged[place] ^= 1 << place % 8
        if place < magic:
            assert decode_label(bytes(damaged)) is None
        else:
            with pytest.raises(BadLabelError):
                decode_label(bytes(damaged))


@pytest.mark.parametrize("sectors", range(1, 8))
def test_torn_label_is_none(sectors: int) -> None:
    with pytest.raises(BadLabelError, match=r"its label is damaged \(the CRC-32C is wrong\)"):
        decode_label(WHOLE[: 512 * sectors].ljust(LABEL_BYTES, b"\0"))


def test_cut_label_is_none() -> None:
    with pytest.raises(BadLabelError):
        decode_label(WHOLE[:512])


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[1]",
        b"not json",
        WHOLE.split(b"\n")[1].replace(b'"desk"', b'"../../etc"'),
        WHOLE.split(b"\n")[1].replace(b'"first"', b'"a b"'),
        WHOLE.split(b"\n")[1].replace(b'"rig"', b'"force":true,"rig"'),
    ],
)
def test_signed_nonsense_is_no_label(line: bytes) -> None:
    with pytest.raises(BadLabelError, match="its label makes no sense"):
        decode_label(signed(b"hwvirt disk label 1\n" + line + b"\n"))


def test_signed_sense_is_a_label() -> None:
    assert decode_label(signed(b"hwvirt disk label 1\n" + WHOLE.split(b"\n")[1] + b"\n")) == LABEL


def test_later_version_is_not_guessed_at() -> None:
    with pytest.raises(BadLabelError, match="another version of hwvirt wrote its label"):
        decode_label(WHOLE.replace(b"label 1", b"label 2"))


@pytest.mark.parametrize(("rig", "role"), [("a/b", "first"), ("desk", ""), ("x" * 49, "first"), ("desk", "-rf")])
def test_names_that_no_link_can_have_are_not_written(rig: str, role: str) -> None:
    with pytest.raises(ValueError, match="a label cannot carry"):
        encode_label(make_label(rig, role, GOOD, NOON))


def test_identity_that_does_not_fit_is_not_written() -> None:
    long = DiskIdentity(**{name: getattr(GOOD, name) for name in GOOD.__slots__} | {"serial": "x" * 4000})
    with pytest.raises(ValueError, match="a label cannot carry"):
        encode_label(make_label("desk", "first", long, NOON))
