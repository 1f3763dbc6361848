"""What a line is like, and what went over it."""

from __future__ import annotations

from dataclasses import dataclass

from hwvirt.link.baud import bytes_per_s, line_s
from hwvirt.link.serial.frames import FRAME_MOST_BYTES

__all__ = ["LineStatistics", "LineTraits"]

_FRAME_S = 0.05
_FRAME_LEAST_BYTES = 256
_FRAMES_IN_BUFFER = 6
_THINKING_LEAST_S = 0.005


@dataclass(frozen=True, slots=True)
class LineTraits:
    """A line as one end sees it: its rate, what this end can leave unread, whether it packs, and the pauses of its signs."""

    baud: int
    buffer_bytes: int
    packs: bool
    first_retry_s: float
    last_retry_s: float
    place: str

    def line_s(self, size_bytes: int) -> float:
        """How long so many bytes take on the line."""
        return line_s(size_bytes, self.baud)

    def frame_bytes(self, buffer_bytes: int) -> int:
        """The longest frame for an end with that buffer: short enough to be sent again, long enough to cost little."""
        fitting = min(FRAME_MOST_BYTES, buffer_bytes // _FRAMES_IN_BUFFER, int(_FRAME_S * bytes_per_s(self.baud)))
        return max(_FRAME_LEAST_BYTES, fitting)

    def thinking_s(self, frame_bytes: int) -> float:
        """How long an end waits for something that its answer can go with, when frames have that size."""
        return max(_THINKING_LEAST_S, self.line_s(frame_bytes) / 2)


@dataclass(slots=True)
class LineStatistics:
    """Counts over all sessions of a line."""

    sent_bytes: int = 0
    sent_frames: int = 0
    resent_segments: int = 0
    probes: int = 0
    received_bytes: int = 0
    received_frames: int = 0
    damaged_frames: int = 0  # junk, and frames of an older session
    duplicate_segments: int = 0
