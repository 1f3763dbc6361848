"""What is sent and not known to have come: window, losses, and when to ask.

Rule 1: every transmission has a number of its own. A line delivers in order: when a later one came, an earlier one that did
not is lost, and its segment is sent again at once.
Rule 2: what was transmitted after the newest transmission that came may lie unread at the other end. With the next frame
it never exceeds the other end's buffer.
Rule 3: silence proves nothing. After it a probe asks what came; nothing is sent again on suspicion.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from hwvirt.link.serial.numbers import unwrapped
from hwvirt.link.serial.traits import LineStatistics

__all__ = ["MISSED_BITS", "SEGMENTS_MOST", "Sender"]

MISSED_BITS = 32
"""How far back an answer tells what came, in transmissions: no more are under way."""
SEGMENTS_MOST = 64
"""Segments from the first that the receiver still lacks to the last that was sent: what it has to hold at most."""
_PROBE_RESERVE_BYTES = 192  # of the buffer, for packets without data: answers and probes
_HELLO_RESERVE_BYTES = 64  # of the buffer, for what goes over the line outside sessions
_LEAST_WAIT_S = 0.02
_PATIENT_PROBES = 2  # on a bad line a probe or its answer is lost as anything else; only then pauses double
_DOUBLINGS_MOST = 6


class _Sent(NamedTuple):
    segment: int | None
    wants_answer: bool
    size_bytes: int
    gone_at: float


class Sender:
    """The sending side of one session. `cut` gives the data of the next segment, empty when there is none.

    `delay_s`: how long the other end may think before it answers, with the time of a frame on the line in it.
    """

    def __init__(self, buffer_bytes: int, delay_s: float, cut: Callable[[], bytes], statistics: LineStatistics) -> None:
        self.number = 0
        self._cut = cut
        self._statistics = statistics
        self._delay_s = delay_s
        self._small_limit_bytes = buffer_bytes - _HELLO_RESERVE_BYTES
        self._limit_bytes = self._small_limit_bytes - _PROBE_RESERVE_BYTES
        self._under_way: dict[int, _Sent] = {}
        self._under_way_bytes = 0
        self._segments: dict[int, bytes] = {}  # not known to have come, in order
        self._again: deque[int] = deque()  # of these, those whose transmission was lost; all others have one under way
        self._next_segment = 0
        self._asked_at = 0.0
        self._probes = 0  # since the last answer
        self._rtt_s: float | None = None
        self._rtt_spread_s = 0.0

    @property
    def idle(self) -> bool:
        """Whether all that was cut has come."""
        return not self._segments

    def has_room(self, size_bytes: int, *, data: bool) -> bool:
        """Whether a frame of that size may be sent now."""
        limit = self._limit_bytes if data else self._small_limit_bytes
        return self._under_way_bytes + size_bytes <= limit and (not data or len(self._under_way) < MISSED_BITS)

    def has_segment(self, unsent: bool) -> bool:
        """Whether `next_segment` has one, if `cut` has data."""
        return bool(self._again) or (unsent and self._window_is_open)

    def next_segment(self) -> tuple[int, bytes] | None:
        """The segment to send now and its data: one that was lost, or else a new one."""
        if self._again:
            segment = self._again.popleft()
            self._statistics.resent_segments += 1
            return segment, self._segments[segment]
        data = self._cut() if self._window_is_open else b""
        if not data:
            return None
        segment = self._next_segment
        self._next_segment += 1
        self._segments[segment] = data
        return segment, data

    @property
    def _window_is_open(self) -> bool:
        return not self._segments or self._next_segment - next(iter(self._segments)) < SEGMENTS_MOST

    def sent(self, segment: int | None, *, wants_answer: bool, size_bytes: int, gone_at: float) -> None:
        """Transmission `number` + 1 has `size_bytes` on the line and will have left at `gone_at`."""
        self.number += 1
        self._under_way[self.number] = _Sent(segment, wants_answer, size_bytes, gone_at)
        self._under_way_bytes += size_bytes
        if wants_answer:
            self._asked_at = gone_at

    def answered(self, heard: int, missed: int, now: float) -> bool:
        """The other end has told what came. False when that cannot be."""
        newest = unwrapped(heard, self.number)
        if newest > self.number:
            return False
        news = [number for number in self._under_way if number <= newest]
        for number in news:
            sent = self._under_way.pop(number)
            self._under_way_bytes -= sent.size_bytes
            back = newest - number
            came = back <= MISSED_BITS and not (back and missed >> (back - 1) & 1)
            if number == newest and sent.wants_answer and (self._rtt_s is None or self._probes < _PATIENT_PROBES):
                self._measure(now - sent.gone_at)  # not after more probes: it stood still, and is not slow for that
            if sent.segment is None:
                continue
            if came:
                del self._segments[sent.segment]
            else:
                self._again.append(sent.segment)
        if news:
            self._probes = 0
        return True

    def probe_at(self) -> float:
        """When to ask, if no answer comes before."""
        if not any(sent.wants_answer for sent in self._under_way.values()):
            return float("inf")
        wait_s = 2 * self._delay_s if self._rtt_s is None else self._rtt_s + 4 * self._rtt_spread_s
        doublings = min(max(0, self._probes - _PATIENT_PROBES), _DOUBLINGS_MOST)
        return self._asked_at + max(_LEAST_WAIT_S, wait_s + self._delay_s) * 2.0**doublings

    def probed(self, now: float) -> None:
        """A probe is sent, or would be if it had room."""
        self._statistics.probes += 1
        self._probes += 1
        self._asked_at = now

    def _measure(self, rtt_s: float) -> None:
        """Ref: RFC 6298 2.2, 2.3."""
        rtt_s = max(0.0, rtt_s)
        if self._rtt_s is None:
            self._rtt_s, self._rtt_spread_s = rtt_s, rtt_s / 2
            return
        self._rtt_spread_s += (abs(self._rtt_s - rtt_s) - self._rtt_spread_s) / 4
        self._rtt_s += (rtt_s - self._rtt_s) / 8
