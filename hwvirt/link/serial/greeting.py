"""How two ends of a line find each other, at any moment of the byte stream, whoever started or restarted first.

Each end has a number that it changes whenever it begins anew. It is up when it has heard its own number come back:

    who has started               the other end
    hello (own 7, echo 0)       →
                                ←  hello (own 3, echo 7)      up at the left
    hello (own 7, echo 3, up)   →                             up at the right

An end that is up with somebody else is not torn down by a hello alone, which may be a replay: it answers with whom it is
up, and believes who then echoes its number. It takes a new number before it is up again, so no pair of numbers ever is up
twice, and frames of an old pair are refused by their CRC (see `frames`).
"""

from __future__ import annotations

from enum import Enum, auto

from hwvirt.link.serial.frames import Hello, HelloFlag

__all__ = ["Greeting", "News"]

_NUMBERS = 0xFFFF_FFFF
_PATIENCE = 32
"""A pause between signs is at least this part of the time without an answer: a year of knocking is 480 bytes, which fit a
buffer that nobody reads."""


class News(Enum):
    """What a hello has changed."""

    NOTHING = auto()
    UP = auto()
    LOST = auto()  # the other end has begun anew


class Greeting:
    """The numbers of both ends, and when to say hello. `own`: any number but 0; pauses double from `first_s` to `last_s`."""

    def __init__(self, own: int, now: float, first_s: float, last_s: float) -> None:
        self.own = own
        self.peer = 0
        self.up = False
        self._first_s, self._last_s = first_s, last_s
        self._begin(now)

    def _begin(self, at: float) -> None:
        self.peer, self.up = 0, False
        self._began = self._sign_at = at
        self._pause_s = self._first_s
        self._said_at = float("-inf")
        self._heard = True  # the first sign is a hello
        self._answer = False

    def begin_anew(self, at: float) -> None:
        """This end ends what was up, and greets again from that moment on."""
        self.own = self.own % _NUMBERS + 1
        self._begin(at)

    def heard_something(self, now: float) -> None:
        """Bytes came, whatever they were: somebody may be there who has not heard our hello."""
        if not self.up and now >= self._began:
            self._heard = True
            self._sign_at = min(self._sign_at, max(now, self._said_at + self._first_s))

    def heard(self, hello: Hello, now: float) -> News:
        """A hello of another end came."""
        if now < self._began:
            return News.NOTHING
        theirs_up = bool(hello.flags & HelloFlag.UP)
        if not self.up:
            self.peer = hello.own
            self.up = hello.echo == self.own
            self._answer = not (self.up and theirs_up)
            return News.UP if self.up else News.NOTHING
        if hello.own == self.peer or hello.echo != self.own:
            self._answer = self._answer or not theirs_up
            return News.NOTHING
        self.begin_anew(now)
        self.peer = hello.own
        self._answer = True
        return News.LOST

    def heard_packet(self) -> bool:
        """A packet came that only our peer, being up with us, can have sent. True when we are up by that."""
        was_up, self.up = self.up, True
        return not was_up

    def sign_at(self) -> float:
        """When to say something."""
        if self._answer:
            return self._began
        return float("inf") if self.up else self._sign_at

    def sign(self, now: float) -> tuple[int, bool] | None:
        """What to say, at `sign_at` or later: the echo of a hello and whether we are up; None: only a knock."""
        hello = self._answer or self._heard
        if not self.up:
            self._sign_at = now + max(self._pause_s, (now - self._began) / _PATIENCE)
            self._pause_s = min(self._last_s, 2 * self._pause_s)
        if not hello:
            return None
        self._answer = self._heard = False
        self._said_at = now
        return self.peer, self.up
