"""Replies of the transmission phase, simple and structured, as pieces for one vectored write. Pure.

Ref: NetworkBlockDevice/nbd doc/proto.md, "Structured reply types" and "Error values".
"""

from __future__ import annotations

from collections.abc import Iterable
from errno import EINVAL, EIO, ENOMEM, ENOSPC, ENOTSUP, EOVERFLOW, EPERM, EROFS, ESHUTDOWN
from struct import Struct
from typing import Final

from hwvirt.buffers import Buffer, Pieces, joined, length
from hwvirt.host.nbd.requests import Request
from hwvirt.host.nbd.wire import (
    CHUNK,
    CONTEXT,
    DESCRIPTOR,
    ERROR_CHUNK,
    SIMPLE_REPLY,
    U64,
    ChunkFlag,
    ChunkType,
    Magic,
)

__all__ = ["data_reply", "done_reply", "error_reply", "status_reply"]

_ERRNOS: Final = frozenset({EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN})
# To look up a member of an enum is a call; what is done for every request does without.
_SIMPLE, _CHUNK, _DONE, _OFFSET_DATA = Magic.SIMPLE_REPLY, Magic.CHUNK, ChunkFlag.DONE, ChunkType.OFFSET_DATA
_MAX_TEXT_BYTES: Final = 4096
_DATA_CHUNK: Final = Struct(CHUNK.format + "Q")  # CHUNK and the offset of OFFSET_DATA


def done_reply(cookie: int) -> bytes:
    """Success without data. Simple in both forms: only READ and BLOCK_STATUS must be answered in chunks."""
    return SIMPLE_REPLY.pack(_SIMPLE, 0, cookie)


def error_reply(cookie: int, error: int, text: str, *, structured: bool) -> bytes:
    """Failure with an errno; one that the protocol does not know becomes EIO. The text travels in chunks only."""
    error = EPERM if error == EROFS else error if error in _ERRNOS else EIO
    if not structured:
        return SIMPLE_REPLY.pack(Magic.SIMPLE_REPLY, error, cookie)
    raw = text.encode()[:_MAX_TEXT_BYTES]
    return _last_chunk(ChunkType.ERROR, cookie, ERROR_CHUNK.pack(error, len(raw)) + raw)


def data_reply(request: Request, data: Pieces, block_bytes: int, *, structured: bool) -> list[Buffer]:
    """What a READ asked for, out of `data`, which holds the whole blocks around it. Too little of it is an EIO."""
    if length(data) != request.length:
        skip_bytes = request.offset % block_bytes
        around = memoryview(joined(data))
        if len(around) < skip_bytes + request.length:
            return [error_reply(request.cookie, EIO, "the logical unit sent too little", structured=structured)]
        data = (around[skip_bytes : skip_bytes + request.length],)
    if structured:
        size_bytes = U64.size + request.length
        header = _DATA_CHUNK.pack(_CHUNK, _DONE, _OFFSET_DATA, request.cookie, size_bytes, request.offset)
    else:
        header = SIMPLE_REPLY.pack(_SIMPLE, 0, request.cookie)
    return [header, *data]


def status_reply(cookie: int, found: Iterable[tuple[int, list[tuple[int, int]]]]) -> bytes:
    """Block status: for each metadata context its ID and the runs of (bytes, status flags)."""
    chunks = []
    for context, runs in found:
        payload = CONTEXT.pack(context) + b"".join(DESCRIPTOR.pack(*run) for run in runs)
        chunks.append(CHUNK.pack(Magic.CHUNK, 0, ChunkType.BLOCK_STATUS, cookie, len(payload)) + payload)
    return b"".join((*chunks, _last_chunk(ChunkType.NONE, cookie)))


def _last_chunk(kind: ChunkType, cookie: int, payload: bytes = b"") -> bytes:
    return CHUNK.pack(Magic.CHUNK, ChunkFlag.DONE, kind, cookie, len(payload)) + payload
