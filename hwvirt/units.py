"""Sizes, durations and deadlines. Every quantity in a rig file has a unit; every wait in the code has a deadline."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import NewType

__all__ = [
    "FOREVER",
    "Deadline",
    "Lba",
    "StoreLba",
    "format_duration",
    "format_size",
    "parse_duration",
    "parse_size",
]

Lba = NewType("Lba", int)
"""A block address on the volume that a host sees."""
StoreLba = NewType("StoreLba", int)
"""A block address on the second volume, chosen by the second controller."""

_SIZE_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_DURATION_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_QUANTITY = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*$")


def parse_size(text: str) -> int:
    """Bytes of "64MiB", "4KiB", "512B". Raises ValueError with the reason; a bare number has no unit and is refused."""
    return _parse(text, "size", _SIZE_UNITS, "64MiB")


def parse_duration(text: str) -> float:
    """Seconds of "3s", "250ms", "2min". Raises ValueError with the reason; a bare number is refused."""
    return _quantity(text, "duration", _DURATION_UNITS, "3s")


def format_size(size_bytes: int) -> str:
    """The shortest exact form: 67108864 → "64MiB", 512 → "512B"."""
    for unit, factor in reversed(_SIZE_UNITS.items()):
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return f"{size_bytes}B"


def format_duration(seconds: float) -> str:
    """For people: 0.00012 → "120us", 3.0 → "3s", 95 → "1min 35s"."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f}us"
    if seconds < 1:
        return f"{seconds * 1e3:.0f}ms"
    if seconds < 60:
        return f"{seconds:.3g}s"
    return f"{int(seconds // 60)}min {seconds % 60:.0f}s"


def _parse(text: str, what: str, units: dict[str, int], example: str) -> int:
    value = _quantity(text, what, units, example)
    if value != int(value):
        raise ValueError(f"{what} {text!r} is not a whole number of bytes")
    return int(value)


def _quantity(text: str, what: str, units: dict[str, int] | dict[str, float], example: str) -> float:
    match = _QUANTITY.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not a {what}; write it like {example}")
    number, unit = match.groups()
    if not unit:
        raise ValueError(f"{what} {text!r} has no unit; write it like {example}")
    if unit not in units:
        raise ValueError(f"{what} {text!r} has an unknown unit {unit!r}; known are {', '.join(units)}")
    return float(number) * units[unit]


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock; one deadline is passed down a whole call."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The moment `seconds` from now."""
        return cls(time.monotonic() + seconds)

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())

    @property
    def expired(self) -> bool:
        """Whether the moment has passed."""
        return time.monotonic() >= self.at


FOREVER = Deadline(float("inf"))
