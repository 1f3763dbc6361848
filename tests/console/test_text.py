"""Quantities in few characters; text that cannot steer a terminal."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwvirt.console.text import bar, clean, cleaned, clock, compact, line, micros, per_second_mb, size, spread


class Word(Enum):
    UP = "up"


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        (compact, 0, "0"), (compact, 999, "999"), (compact, 999.6, "1.0k"), (compact, 34120, "34.1k"),
        (compact, 340_000, "340k"), (compact, 1_250_000, "1.2M"),
        (micros, None, "-"), (micros, 0, "-"), (micros, 90, "90µs"), (micros, 999.6, "1.0ms"),
        (micros, 1830, "1.8ms"), (micros, 14_100, "14ms"), (micros, 3_400_000, "3.4s"),
        (size, 0, "0 B"), (size, 1 << 20, "1 MiB"), (size, 1_258_291, "1.2 MiB"), (size, 1 << 50, "1024 TiB"),
        (clock, 7, "0:07"), (clock, 72, "1:12"), (clock, 3723, "1:02:03"),
        (per_second_mb, 75_300_000, "75.3"), (per_second_mb, 1_204_000_000, "1,204"),
    ],
)  # fmt: skip
def test_quantities_take_few_characters(form: Callable[[float | None], str], value: float | None, text: str) -> None:
    assert form(value) == text


@given(st.floats(0, 9.9e11))
def test_compact_numbers_never_need_more_than_six_cells(value: float) -> None:
    assert len(compact(value)) <= 6


@given(st.text())
def test_clean_text_is_printable_and_on_one_line(text: str) -> None:
    assert clean(text).isprintable()


def test_clean_writes_escapes_out_and_keeps_the_rest() -> None:
    assert clean("rig\x1b[2Jé [bold]x[/bold]\n") == "rig\\x1b[2Jé [bold]x[/bold]\\n"


def test_cleaned_reaches_into_json_and_drops_nulls() -> None:
    assert cleaned({"a\n": ["\x1b", {"b": None, "c": Word.UP}]}) == {"a\\n": ["\\x1b", {"c": "up"}]}


ASCII = st.text(st.characters(codec="ascii"))


@given(ASCII, ASCII, st.integers(1, 120))
def test_spread_is_exactly_as_wide_as_asked(left: str, right: str, width: int) -> None:
    assert spread(line(clean(left)), line(clean(right)), width).cell_len == width


@given(st.floats(-1, 2), st.integers(0, 100))
def test_a_bar_is_as_wide_as_asked_whatever_the_fraction(fraction: float, width: int) -> None:
    assert bar(fraction, width, "green").cell_len == width
