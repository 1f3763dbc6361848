"""Frames that nobody sent now: those of a former session again, and replies made up by somebody who reads the cable."""

from __future__ import annotations

from array import array
from collections import deque
from typing import Protocol

from hwvirt.errors import PeerError
from hwvirt.link.codec import FIRST_REQUEST, Kind, encode
from hwvirt.link.layouts import WRITTEN
from hwvirt.link.messages import Written
from hwvirt.link.wire import HEADER_BYTES, Header, read_header, write_frame

__all__ = ["Memory", "Remembered", "forged"]

_REMEMBERED_FRAMES = 16
_REMEMBERED_BYTES = 1 << 16
"""A frame that is larger is not remembered: sixteen that are not are a megabyte."""


class Memory(Protocol):
    """What somebody knows who reads one direction of a cable, and what he can say. `former`: frames of former sessions."""

    former: list[bytes]

    def see(self, data: bytes) -> None:
        """`data` passes."""
        ...

    def forged(self, data: bytes) -> bytes | None:
        """What he puts before `data` that nobody has sent; None where he has nothing."""
        ...


class Remembered:
    """The last frames of this session, and in `former` those of the one before: requests and replies, no handshakes."""

    def __init__(self) -> None:
        self.former: list[bytes] = []
        self._recent: deque[bytes] = deque(maxlen=_REMEMBERED_FRAMES)
        self._epoch = 0

    def see(self, data: bytes) -> None:
        """`data` passes."""
        header = _header(data)
        if header is None or header.kind < FIRST_REQUEST:
            return
        if header.epoch != self._epoch:
            self._epoch = header.epoch
            self.former = list(self._recent) or self.former
            self._recent.clear()
        if len(data) <= _REMEMBERED_BYTES:
            self._recent.append(data)

    def forged(self, data: bytes) -> bytes | None:
        """See `forged`."""
        return forged(data)


def forged(data: bytes) -> bytes | None:
    """A reply with other positions in the place of the one in `data`: right in everything that needs no secret.

    None where `data` tells no positions.
    """
    header = _header(data)
    if header is None or header.kind != Kind.WRITTEN:
        return None
    meta = memoryview(data)[HEADER_BYTES : HEADER_BYTES + header.meta_bytes]
    message = WRITTEN.decode(meta, array("I"), memoryview(b""))
    assert isinstance(message, Written)
    wrong = [place._replace(lba=place.lba + 1) for place in message.placements]
    body = encode(Written(message.store_epoch, wrong))
    return b"".join(write_frame(header.epoch, header.number, header.tag, body))


def _header(data: bytes) -> Header | None:
    if len(data) < HEADER_BYTES:
        return None
    try:
        return read_header(memoryview(data), len(data), "the cable")
    except PeerError:
        return None
