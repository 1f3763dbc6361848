"""What a baud rate carries. A line's rate counts the bits on the line, and a byte has ten of them there."""

from __future__ import annotations

__all__ = ["BITS_OF_A_BYTE", "bytes_per_s", "line_s"]

BITS_OF_A_BYTE = 10
"""8N1: a start bit, eight of data, a stop bit."""


def bytes_per_s(baud: float) -> float:
    """How many bytes a line carries in a second, in each direction."""
    return baud / BITS_OF_A_BYTE


def line_s(size_bytes: float, baud: float) -> float:
    """Seconds that so many bytes take on a line."""
    return size_bytes * BITS_OF_A_BYTE / baud
