"""How the console writes: quantities in few characters, and names that cannot move the terminal's cursor."""

from __future__ import annotations

from enum import Enum
from typing import Any

from rich.text import Text

__all__ = [
    "bar",
    "clean",
    "cleaned",
    "clock",
    "compact",
    "label",
    "line",
    "micros",
    "number",
    "per_second_mb",
    "size",
    "spread",
]

_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def clean(text: str) -> str:
    """The same text with every character that does not print (ESC, newline, bidi marks) written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def cleaned(value: Any) -> Any:
    """A JSON value with its strings clean, enum members as their values and nulls left out, so that defaults apply."""
    if isinstance(value, Enum):
        return cleaned(value.value)
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(str(key)): cleaned(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [cleaned(item) for item in value]
    return value


def number(value: float) -> str:
    """All digits: 12400 → "12,400"."""
    return f"{value:,.0f}"


def compact(value: float) -> str:
    """At most five characters: 950 → "950", 34120 → "34.1k", 1200000 → "1.2M"."""
    for unit in ("", "k", "M", "G"):
        if value < 999.5 or unit == "G":
            break
        value /= 1000
    return f"{value:.0f}{unit}" if not unit or value >= 99.95 else f"{value:.1f}{unit}"


def per_second_mb(bytes_per_second: float) -> str:
    """Megabytes (10^6) a second: "0.4", "75.3", "1,204"."""
    value = bytes_per_second / 1e6
    return f"{value:.1f}" if value < 999.95 else f"{value:,.0f}"


def micros(value: float | None) -> str:
    """A latency given in microseconds, at most five characters: "90µs", "1.2ms", "12ms", "3.4s"; "-" for none or 0."""
    if not value:
        return "-"
    for unit, factor in (("µs", 1.0), ("ms", 1e3), ("s", 1e6)):
        scaled = value / factor
        if scaled < 999.5 or unit == "s":
            return f"{scaled:.1f}{unit}" if scaled < 9.95 and unit != "µs" else f"{scaled:.0f}{unit}"
    raise AssertionError("the last unit takes everything")


def size(size_bytes: float) -> str:
    """About how many bytes: 0 → "0 B", 1258291 → "1.2 MiB"."""
    for unit in _BINARY_UNITS:
        if size_bytes < 1024 or unit == _BINARY_UNITS[-1]:
            break
        size_bytes /= 1024
    exact = unit == "B" or size_bytes == int(size_bytes)
    return f"{size_bytes:.0f} {unit}" if exact else f"{size_bytes:.1f} {unit}"


def clock(seconds: float) -> str:
    """A running time: "0:07", "1:12", "1:02:03"."""
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def line(*parts: str | tuple[str, str] | Text) -> Text:
    """One line that is cut with an ellipsis rather than wrapped; parts are text, (text, style) or Text, never markup."""
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def label(name: str, value: str, style: str = "") -> Text:
    """A value after its quiet name."""
    return line((f"{name} ", "dim"), (value, style))


def spread(left: Text, right: Text, width: int) -> Text:
    """Both on one line of exactly `width` cells, at its two ends; the left one is cut where they would meet."""
    right = right.copy()
    right.truncate(width, overflow="ellipsis")
    room = width - right.cell_len
    if room < 2:
        return line(" " * room, right)
    left = left.copy()
    left.truncate(room - 1, overflow="ellipsis", pad=True)
    return line(left, " ", right)


def bar(fraction: float, width: int, style: str) -> Text:
    """A thin progress bar of `width` cells."""
    halves = round(min(1.0, max(0.0, fraction)) * width * 2)
    done = "━" * (halves // 2) + "╸" * (halves % 2)
    return line((done, style), ("━" * (width - len(done)), "bright_black"))
