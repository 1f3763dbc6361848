"""When a session that is up says that it lives, and when its peer counts as gone. Pure: time is an argument."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from hwvirt.link.config import LinkTiming
from hwvirt.link.wire import HEADER_BYTES

__all__ = ["Life", "Sign"]

_SIGN_BYTES = HEADER_BYTES + 8
"""A Ping or a Pong on the wire."""


class Sign(Enum):
    """What is due."""

    NOTHING = "nothing"
    PING = "ping"
    SILENCE = "the peer was silent for too long"
    UNFINISHED = "a frame has begun and does not go on"


class _Look(NamedTuple):
    """What had arrived at that time: whole frames, and bytes of one more."""

    at: float
    frames: int
    more_bytes: int


class Life:
    """The signs of life of one session, which began `now`. `heard_at`: the last time that bytes arrived."""

    def __init__(self, timing: LinkTiming, now: float) -> None:
        self.heard_at = self.pinged_at = now
        self._timing = timing
        self._look = _Look(now, 0, 0)

    def next_deadline(self) -> float:
        """When `due` is to be asked."""
        return min(self.pinged_at + self._timing.ping_s, self.heard_at + self._timing.silence_s)

    def due(self, now: float, frames: int, more_bytes: int) -> Sign:
        """What is due, `frames` frames and `more_bytes` of another having arrived so far."""
        late_s = now - self.next_deadline()
        if late_s < 0:
            return Sign.NOTHING
        if late_s > self._timing.ping_s:
            self.heard_at += late_s  # this side slept: that is not the peer's silence
            self._look = self._look._replace(at=now)
        if now >= self.heard_at + self._timing.silence_s:
            return Sign.SILENCE
        if self._is_stuck(_Look(now, frames, more_bytes)):
            return Sign.UNFINISHED
        return Sign.PING

    def _is_stuck(self, look: _Look) -> bool:
        """A frame that has lost its end takes the peer's pings and pongs for the rest of itself: it grows by no more."""
        former, silence_s = self._look, self._timing.silence_s
        if look.frames != former.frames or not look.more_bytes:
            self._look = look
        elif look.at >= former.at + silence_s:
            self._look = look
            signs = 2 * (silence_s / self._timing.ping_s + 1)
            return look.more_bytes - former.more_bytes <= signs * _SIGN_BYTES
        return False
