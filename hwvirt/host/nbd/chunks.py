"""A structured reply, put together from its chunks. Ref: NetworkBlockDevice/nbd doc/proto.md, "Structured reply types"."""

from __future__ import annotations

import struct
from errno import EIO

from hwvirt.buffers import Buffer
from hwvirt.host.nbd.wire import CONTEXT, DESCRIPTOR, ERROR_CHUNK, HOLE, MAX_TRANSFER_BYTES, U64, ChunkType, NbdViolation

__all__ = ["ChunkedReply"]


class ChunkedReply:
    """What the chunks of one reply have said so far.

    `error` is the first errno, 0 for none; `runs` are (metadata context ID, (bytes, status flags)) in order.
    """

    def __init__(self) -> None:
        self.error = 0
        self.runs: list[tuple[int, tuple[int, int]]] = []
        self._content: list[tuple[int, Buffer]] = []

    def add(self, kind: int, payload: memoryview) -> None:
        """One more chunk. Raises NbdViolation for one that does not have its form."""
        try:
            self._add(kind, payload)
        except struct.error as reason:
            raise NbdViolation(f"a chunk of type {kind} does not have its form") from reason

    def content(self, offset: int, size_bytes: int) -> tuple[Buffer, ...]:
        """The data of a READ in order. Raises NbdViolation when it does not cover exactly what was asked for."""
        pieces = []
        at = offset
        for start, piece in sorted(self._content, key=lambda part: part[0]):
            if start != at:
                break
            pieces.append(piece)
            at += len(piece)
        if at != offset + size_bytes or len(pieces) != len(self._content):
            raise NbdViolation(f"the chunks of a read of {size_bytes} bytes at {offset} do not cover it")
        return tuple(pieces)

    def _add(self, kind: int, payload: memoryview) -> None:
        match kind:
            case ChunkType.NONE:
                pass
            case ChunkType.OFFSET_DATA:
                (offset,) = U64.unpack_from(payload)
                self._content.append((offset, payload[U64.size :]))
            case ChunkType.OFFSET_HOLE:
                offset, size_bytes = HOLE.unpack(payload)
                if size_bytes > MAX_TRANSFER_BYTES:
                    raise NbdViolation(f"a hole of {size_bytes} bytes in the reply to a read")
                self._content.append((offset, bytes(size_bytes)))
            case ChunkType.BLOCK_STATUS:
                (number,) = CONTEXT.unpack_from(payload)
                self.runs += ((number, run) for run in DESCRIPTOR.iter_unpack(payload[CONTEXT.size :]))
            case _ if kind & 0x8000:
                error, _ = ERROR_CHUNK.unpack_from(payload)
                self.error = self.error or error or EIO
            case _:
                raise NbdViolation(f"a chunk of unknown type {kind}")
