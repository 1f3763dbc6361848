"""What has come: segments in order, once, and what the other end is to be told about it."""

from __future__ import annotations

from hwvirt.buffers import Buffer
from hwvirt.link.serial.frames import Packet
from hwvirt.link.serial.numbers import unwrapped
from hwvirt.link.serial.sender import MISSED_BITS, SEGMENTS_MOST
from hwvirt.link.serial.traits import LineStatistics

__all__ = ["Receiver"]

_ALL_MISSED = (1 << MISSED_BITS) - 1


class Receiver:
    """The receiving side of one session. Holds at most SEGMENTS_MOST segments that came before their turn.

    It answers at once when something is missing, when it is asked, and for every `answer_bytes`; else after `delay_s`,
    unless something else goes that way before.
    """

    def __init__(self, answer_bytes: int, delay_s: float, statistics: LineStatistics) -> None:
        self.heard = 0  # the highest transmission that came
        self.missed = 0  # see `Packet.missed`
        self.answer_at = float("inf")
        self._answer_bytes = answer_bytes
        self._delay_s = delay_s
        self._statistics = statistics
        self._unanswered_bytes = 0
        self._next_segment = 0
        self._held: dict[int, Buffer] = {}

    def take(self, packet: Packet, size_bytes: int, now: float) -> list[Buffer]:
        """A packet came, with `size_bytes` on the line: the data whose turn it now is."""
        segment = -1
        if packet.segment is not None:
            segment = unwrapped(packet.segment, self._next_segment)
            if segment >= self._next_segment + SEGMENTS_MOST:
                return []  # beyond what is held: not taken, so not confirmed
        in_order = self._note(unwrapped(packet.number, self.heard))
        if packet.wants_answer:
            self._unanswered_bytes += size_bytes
            at_once = packet.probe or not in_order or self._unanswered_bytes >= self._answer_bytes
            self.answer_at = min(self.answer_at, now if at_once else now + self._delay_s)
        if packet.segment is None:
            return []
        if segment < self._next_segment or segment in self._held:
            self._statistics.duplicate_segments += 1
            return []
        self._held[segment] = packet.data
        ready = []
        while (data := self._held.pop(self._next_segment, None)) is not None:
            ready.append(data)
            self._next_segment += 1
        return ready

    def answered(self) -> None:
        """The other end is being told `heard` and `missed`."""
        self.answer_at = float("inf")
        self._unanswered_bytes = 0

    def _note(self, number: int) -> bool:
        ahead = number - self.heard
        if ahead > 0:
            passed = min(ahead, MISSED_BITS + 1)
            self.missed = (self.missed << passed | (1 << passed - 1) - 1) & _ALL_MISSED
            self.heard = number
        elif -MISSED_BITS <= ahead < 0:
            self.missed &= ~(1 << -ahead - 1)
        return ahead == 1
