"""Data that is passed on instead of copied: pieces, and the arena that sockets receive into."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

__all__ = ["Buffer", "Pieces", "ReceiveBuffer", "joined", "length", "split"]

Buffer: TypeAlias = bytes | bytearray | memoryview
Pieces: TypeAlias = Sequence[Buffer]
"""One run of bytes in several buffers, in order; each buffer counts bytes (memoryviews are cast to "B")."""

_ARENA_BYTES = 1 << 18


def length(pieces: Pieces) -> int:
    """Bytes in all pieces."""
    return len(pieces[0]) if len(pieces) == 1 else sum(map(len, pieces))


def joined(pieces: Pieces) -> Buffer:
    """One buffer with the bytes of all pieces; copies only where there is more than one."""
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def split(pieces: Pieces, size_bytes: int) -> Iterator[Buffer]:
    """The same bytes in buffers of exactly `size_bytes`; copies only those that straddle two pieces.

    Raises ValueError when the bytes are not a multiple of `size_bytes`.
    """
    if length(pieces) % size_bytes:
        raise ValueError(f"{length(pieces)} bytes are not a multiple of {size_bytes}")
    rest = b""
    for piece in pieces:
        view = memoryview(piece)
        start = 0
        if rest:
            start = size_bytes - len(rest)
            if len(view) < start:
                rest = bytes(rest) + bytes(view)
                continue
            yield bytes(rest) + bytes(view[:start])
            rest = b""
        whole = start + (len(view) - start) // size_bytes * size_bytes
        for offset in range(start, whole, size_bytes):
            yield view[offset : offset + size_bytes]
        rest = bytes(view[whole:])


class ReceiveBuffer:
    """An arena for `asyncio.BufferedProtocol`: parsed frames stay where they were received.

    Slices of `unread()` may be kept for as long as one likes: memory that was handed out is never written again. When the
    arena is full, or a frame needs more room, a new arena is taken and only the unread tail moves.
    """

    def __init__(self, arena_bytes: int = _ARENA_BYTES) -> None:
        self._arena_bytes = arena_bytes
        self._view = memoryview(bytearray(arena_bytes))
        self._start = 0
        self._end = 0

    def writable(self, least_bytes: int = 1) -> memoryview:
        """Room for the next bytes; at least enough that unread and new bytes reach `least_bytes` together."""
        wanted = max(least_bytes, self._end - self._start + 1)
        if self._start + wanted > len(self._view):
            unread = self._view[self._start : self._end]
            fresh = memoryview(bytearray(max(self._arena_bytes, wanted)))
            fresh[: len(unread)] = unread
            self._view, self._start, self._end = fresh, 0, len(unread)
        return self._view[self._end :]

    def received(self, size_bytes: int) -> None:
        """`size_bytes` were written to the front of `writable()`."""
        self._end += size_bytes

    def unread(self) -> memoryview:
        """All bytes that were received and not consumed."""
        return self._view[self._start : self._end]

    def consume(self, size_bytes: int) -> None:
        """The first `size_bytes` of `unread()` are done with; slices of them stay valid."""
        self._start += size_bytes
