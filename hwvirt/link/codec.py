"""Messages to frame bodies and back: one row of `_LAYOUTS` for each kind."""

from __future__ import annotations

import struct
from enum import IntEnum

from hwvirt import buffers
from hwvirt.errors import LocalLinkError, PeerError
from hwvirt.link import layouts
from hwvirt.link.messages import Message
from hwvirt.link.wire import OPEN_SEAL, Body, Header, Seal, open_body, whole_body

__all__ = ["FIRST_REPLY", "FIRST_REQUEST", "Kind", "answers", "decode", "encode"]


FIRST_REQUEST = 0x10
FIRST_REPLY = 0x40


class Kind(IntEnum):
    """The kind byte of the header: the session's own, then requests from FIRST_REQUEST, replies from FIRST_REPLY."""

    HELLO = 0x01
    PROOF = 0x02
    PING = 0x03
    PONG = 0x04
    BYE = 0x05
    ATTACH = 0x10
    WRITE = 0x11
    READ = 0x12
    UNMAP = 0x13
    FLUSH = 0x14
    FREE = 0x15
    QUERY = 0x16
    DROP = 0x17
    EXECUTE = 0x18
    ATTACHED = 0x40
    WRITTEN = 0x41
    READ_DATA = 0x42
    FLUSHED = 0x43
    LEDGER_PAGE = 0x44
    EXECUTED = 0x45
    DONE = 0x46
    REFUSED = 0x47
    BUSY = 0x48


_ANSWERS: dict[int, int] = {
    Kind.ATTACH: Kind.ATTACHED,
    Kind.WRITE: Kind.WRITTEN,
    Kind.READ: Kind.READ_DATA,
    Kind.UNMAP: Kind.DONE,
    Kind.FLUSH: Kind.FLUSHED,
    Kind.FREE: Kind.DONE,
    Kind.QUERY: Kind.LEDGER_PAGE,
    Kind.DROP: Kind.DONE,
    Kind.EXECUTE: Kind.EXECUTED,
}

_LAYOUTS: dict[int, layouts.Layout] = {
    Kind.HELLO: layouts.HELLO,
    Kind.PROOF: layouts.PROOF,
    Kind.PING: layouts.PING,
    Kind.PONG: layouts.PONG,
    Kind.BYE: layouts.BYE,
    Kind.ATTACH: layouts.ATTACH,
    Kind.WRITE: layouts.WRITE,
    Kind.READ: layouts.READ,
    Kind.UNMAP: layouts.UNMAP,
    Kind.FLUSH: layouts.FLUSH,
    Kind.FREE: layouts.FREE,
    Kind.QUERY: layouts.QUERY,
    Kind.DROP: layouts.DROP,
    Kind.EXECUTE: layouts.EXECUTE,
    Kind.ATTACHED: layouts.ATTACHED,
    Kind.WRITTEN: layouts.WRITTEN,
    Kind.READ_DATA: layouts.READ_DATA,
    Kind.FLUSHED: layouts.FLUSHED,
    Kind.LEDGER_PAGE: layouts.LEDGER_PAGE,
    Kind.EXECUTED: layouts.EXECUTED,
    Kind.DONE: layouts.DONE,
    Kind.REFUSED: layouts.REFUSED,
    Kind.BUSY: layouts.BUSY,
}
_KINDS = {layout.message: Kind(kind) for kind, layout in _LAYOUTS.items()}


def encode(message: Message) -> Body:
    """The message as a frame's body. Raises LocalLinkError when a field does not fit its place."""
    kind = _KINDS[type(message)]
    try:
        meta, data, digests = _LAYOUTS[kind].encode(message)
    except (struct.error, OverflowError) as error:
        raise LocalLinkError(f"link: a {kind.name} message does not fit its frame: {error}.") from error
    if digests is None:
        return whole_body(kind, meta, data)
    data_bytes = buffers.length(data)
    grain_bytes, rest = divmod(data_bytes, len(digests)) if digests else (0, data_bytes)
    if rest:
        raise LocalLinkError(f"link: {data_bytes} bytes of data with {len(digests)} digests in a {kind.name} message.")
    return Body(kind, meta, data, data_bytes, digests, grain_bytes)


def decode(header: Header, frame: memoryview, place: str, seal: Seal = OPEN_SEAL) -> Message:
    """The message in a whole frame. Raises CorruptFrame for damage, PeerError for what no peer of this version sends."""
    meta, digests, data = open_body(header, frame, place, seal)
    layout = _LAYOUTS.get(header.kind)
    if layout is None:
        raise PeerError(f"link: {place} sent a message of the unknown kind {header.kind:#04x}.")
    try:
        if data and not layout.carries_data:
            raise ValueError("it has data")
        return layout.decode(meta, digests, data)
    except (struct.error, ValueError) as error:
        raise PeerError(f"link: {place} sent a {Kind(header.kind).name} message that makes no sense: {error}.") from error


def answers(reply: int, request: int) -> bool:
    """Whether a reply of that kind can answer a request of that kind."""
    return reply == _ANSWERS[request] or reply in (Kind.REFUSED, Kind.BUSY)
