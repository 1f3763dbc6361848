"""Layouts: those that do not add up cannot be defined, and values that do not fit cannot be encoded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwvirt.scsi.layout import Bits, Field, Int, Layout, LayoutError

MIXED = Layout("mixed", 6, Int("code", 0), Bits("high", 1, 7, 5), Bits("flag", 1, 3), Int("lba", 2, 3), Bits("tail", 5, 0))


@pytest.mark.parametrize(
    ("size", "fields", "reason"),
    [
        (4, [Int("a", 0, 2), Int("b", 1)], "L: b overlaps a field before it"),
        (4, [Bits("a", 0, 4, 2), Bits("b", 0, 2)], "L: b overlaps a field before it"),
        (4, [Int("a", 0), Bits("b", 0, 0)], "L: b overlaps a field before it"),
        (4, [Int("a", 2, 4)], "L has 4 bytes: a does not fit at byte 2"),
        (4, [Bits("a", 4, 0)], "L has 4 bytes: a does not fit at byte 4"),
        (4, [Int("a", -1)], "L has 4 bytes: a does not fit at byte -1"),
        (4, [Int("a", 0, 0)], "L has 4 bytes: a does not fit at byte 0"),
        (4, [Bits("a", 0, 8, 0)], "L: a has bits 8 to 0"),
        (4, [Bits("a", 0, 2, 5)], "L: a has bits 2 to 5"),
        (4, [Int("a", 0), Int("a", 1)], "L has two fields a"),
    ],
)
def test_layout_that_does_not_add_up_cannot_be_defined(size: int, fields: list[Field], reason: str) -> None:
    with pytest.raises(LayoutError) as error:
        Layout("L", size, *fields)
    assert str(error.value) == reason


def test_fields_lie_where_the_layout_says() -> None:
    data = MIXED.encode(code=0x12, high=5, flag=1, lba=0x345678, tail=1)
    assert data.hex(" ") == "12 a8 34 56 78 01"
    values = MIXED.decode(data)
    assert values == {"code": 0x12, "high": 5, "flag": 1, "lba": 0x345678, "tail": 1}
    assert values.lba == 0x345678


def test_field_without_a_value_is_zero() -> None:
    assert MIXED.encode(flag=1).hex(" ") == "00 08 00 00 00 00"


def test_more_bytes_than_the_layout_are_left_alone() -> None:
    assert MIXED.decode(memoryview(b"\x12\0\0\0\0\0\xff")).code == 0x12


def test_fewer_bytes_than_the_layout_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^mixed takes 6 bytes, not 5$"):
        MIXED.decode(bytes(5))


@pytest.mark.parametrize(("name", "value"), [("high", 8), ("flag", 2), ("lba", 1 << 24), ("code", -1)])
def test_value_out_of_range_is_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"^mixed: {name}={value} is not within"):
        MIXED.encode(**{name: value})


def test_unknown_field_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^mixed has no field lbas$"):
        MIXED.encode(lbas=1)
    with pytest.raises(AttributeError, match="no field 'lbas' among code, high, flag, lba, tail"):
        _ = MIXED.decode(bytes(6)).lbas


def test_bits_without_a_name_are_found() -> None:
    assert MIXED.usage.hex(" ") == "ff e8 ff ff ff 01"
    assert not MIXED.unnamed(MIXED.usage)
    assert MIXED.unnamed(b"\0\x10\0\0\0\0")
    assert MIXED.unnamed(b"\0\0\0\0\0\x80")


@given(st.binary(min_size=6, max_size=6))
def test_named_bits_survive_decode_and_encode(data: bytes) -> None:
    kept = bytes(byte & mask for byte, mask in zip(data, MIXED.usage, strict=True))
    assert MIXED.encode(**MIXED.decode(data)) == kept
