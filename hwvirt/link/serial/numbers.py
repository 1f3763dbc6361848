"""Numbers that wrap at 2**16 on the line and count on inside."""

from __future__ import annotations

__all__ = ["unwrapped", "wrapped"]


def wrapped(number: int) -> int:
    """As it goes over the line."""
    return number & 0xFFFF


def unwrapped(number: int, near: int) -> int:
    """The number that wraps to `number` and is nearest to `near`."""
    return near + ((number - near + 0x8000) & 0xFFFF) - 0x8000
