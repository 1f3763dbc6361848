"""Fewer bytes for the line: zstd, one stream for each direction of a session. Ref: RFC 8878.

One mechanism for all: a block of zeros becomes a dozen bytes, what repeats an earlier block nearly as few, and random data
grows by three bytes for each block of zstd's own.
"""

from __future__ import annotations

from typing import IO, cast

import zstandard

from hwvirt.buffers import Buffer
from hwvirt.errors import PeerError

__all__ = ["UNPACKED_MOST_BYTES", "Packer", "Unpacker"]

UNPACKED_MOST_BYTES = 1 << 17
"""No segment holds more when it is unpacked."""
_LEVEL = 1
_WINDOW_LOG = 18  # 256 KiB of memory at the other end


class Packer:
    """One direction of a session, sending."""

    def __init__(self) -> None:
        parameters = zstandard.ZstdCompressionParameters.from_level(_LEVEL, window_log=_WINDOW_LOG)
        self._stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()

    def pack(self, data: Buffer) -> bytes:
        """The next bytes, packed so that the other end can unpack all of them."""
        return self._stream.compress(data) + self._stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


class Unpacker:
    """One direction of a session, receiving."""

    def __init__(self) -> None:
        self._out: list[bytes] = []
        self._room_bytes = 0
        sink = cast("IO[bytes]", self)  # the stream calls nothing but `write`
        self._stream = zstandard.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG).stream_writer(sink, closefd=False)

    def unpack(self, data: Buffer, place: str) -> list[bytes]:
        """The bytes that were packed. Raises PeerError for what no Packer makes."""
        self._out, self._room_bytes = [], UNPACKED_MOST_BYTES
        try:
            self._stream.write(data)
        except zstandard.ZstdError as error:
            raise PeerError(f"link: what {place} sent cannot be unpacked: {error}.") from error
        if self._room_bytes < 0:
            raise PeerError(f"link: a segment of {place} unpacks to more than {UNPACKED_MOST_BYTES} bytes.")
        return self._out

    def write(self, data: bytes) -> int:
        """Called by the stream with what it has unpacked, a zstd block or less at a time."""
        self._room_bytes -= len(data)
        if self._room_bytes >= 0:
            self._out.append(data)
        return len(data)
