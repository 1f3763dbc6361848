"""Frames by number: a frame is the same wherever it lies, and a state names it by its number."""

from __future__ import annotations

from typing import NamedTuple

from hwvirt.link.codec import FIRST_REQUEST, Kind, decode
from hwvirt.link.messages import Message
from hwvirt.link.wire import OPEN_SEAL, Header, Seal, read_header

__all__ = ["CLOSED", "Frame", "FrameTable"]

CLOSED = 0
"""In place of a frame's number: the other end has closed the connection."""
_NO_LIMIT = 1 << 40


class Frame(NamedTuple):
    """The bytes of one frame, its header, and the seal of its session."""

    header: Header
    data: bytes
    seal: Seal

    @property
    def of_session(self) -> bool:
        """Whether it belongs to the session itself: to its handshake, or to its signs of life."""
        return self.header.kind < FIRST_REQUEST

    def message(self) -> Message:
        """What it says."""
        return decode(self.header, memoryview(self.data), "the cable", self.seal if self.header.epoch else OPEN_SEAL)

    def text(self) -> str:
        """For people: "WRITE", "WRITTEN"."""
        return Kind(self.header.kind).name


class FrameTable:
    """All frames that were ever sent in one exploration."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {b"": CLOSED}
        self._frames: list[Frame | None] = [None]

    def __getitem__(self, number: int) -> Frame:
        frame = self._frames[number]
        assert frame is not None
        return frame

    def numbers_of(self, data: bytes, seal: Seal) -> list[int]:
        """The numbers of the frames that these bytes of a session with that seal consist of."""
        numbers = []
        while data:
            header = read_header(memoryview(data), _NO_LIMIT, "the cable")
            assert header is not None
            size = header.frame_bytes
            frame, data = (data, b"") if size == len(data) else (data[:size], data[size:])
            number = self._numbers.get(frame)
            if number is None:
                number = self._numbers[frame] = len(self._frames)
                self._frames.append(Frame(header, frame, seal))
            numbers.append(number)
        return numbers
