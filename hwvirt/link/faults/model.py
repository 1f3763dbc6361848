"""What can be wrong with a cable, as values. The words are those of rig files, and the same on every kind of link."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from hwvirt.units import format_duration

__all__ = ["FAULTS", "SEALED", "Extent", "FaultKind", "Form", "LinkFault", "Medium", "format_rate"]


class FaultKind(Enum):
    """The faults in the order in which data meets them. A frame is the unit: on a serial line, a run of bytes."""

    CUT = "cut"  # nothing passes, in neither direction; then connections are reset
    HALF_OPEN = "half-open"  # nothing passes in one direction, and nobody is told
    DELAY = "delay"  # everything arrives so much later
    JITTER = "jitter"  # each frame is late by another part of so much; none overtakes
    DROP = "drop"  # frames are lost
    DUPLICATE = "duplicate"  # frames arrive twice
    REORDER = "reorder"  # frames change places with the next one
    TRUNCATE = "truncate"  # a frame that is longer ends at that byte
    FLIP = "flip"  # one bit of a frame, drawn from the seed, is wrong
    GARBAGE = "garbage"  # random bytes come before a frame
    REPLAY = "replay"  # frames of the session before come again
    FORGE = "forge"  # a reply that the sender never gave comes before the true one
    RATE = "rate"  # bytes leave at this rate; the slowest that is at work holds


class Extent(Enum):
    """How a fault comes to its end."""

    TIME = "time"  # after so many seconds
    COUNT = "count"  # after so many frames


class Medium(Enum):
    """What a cable carries."""

    STREAM = "stream"  # bytes: a unit may come in bit by bit, in several pieces
    LINE = "line"  # the same on a serial line, whose rate counts start and stop bits
    PACKETS = "packets"  # a unit arrives whole or not at all


class Form(NamedTuple):
    """What goes with a kind of fault: how it ends, and its words for people."""

    extent: Extent
    text: str


FAULTS: dict[FaultKind, Form] = {
    FaultKind.CUT: Form(Extent.TIME, "cut link"),
    FaultKind.HALF_OPEN: Form(Extent.TIME, "half-open link"),
    FaultKind.DELAY: Form(Extent.TIME, "delay frames by {delay}"),
    FaultKind.JITTER: Form(Extent.TIME, "delay frames by up to {delay}"),
    FaultKind.DROP: Form(Extent.COUNT, "drop {count}"),
    FaultKind.DUPLICATE: Form(Extent.COUNT, "duplicate {count}"),
    FaultKind.REORDER: Form(Extent.COUNT, "reorder {count}"),
    FaultKind.TRUNCATE: Form(Extent.COUNT, "truncate {count} at byte {amount:.0f}"),
    FaultKind.FLIP: Form(Extent.COUNT, "flip a bit in {count}"),
    FaultKind.GARBAGE: Form(Extent.COUNT, "{amount:.0f} bytes of garbage before {count}"),
    FaultKind.REPLAY: Form(Extent.COUNT, "replay {count} of a former session"),
    FaultKind.FORGE: Form(Extent.COUNT, "forged reply before {count}"),
    FaultKind.RATE: Form(Extent.TIME, "slow link to {rate}"),
}


SEALED = frozenset({FaultKind.REPLAY, FaultKind.FORGE})
"""Faults of a cable that reads the session: one of bare Ethernet frames knows no former ones of it, and no replies."""


@dataclass(frozen=True, slots=True)
class LinkFault:
    """One fault. `amount`: seconds of delay, the byte of truncation, bytes of garbage, bits a second of a rate.

    It ends after `for_s` seconds or `count` frames, as its kind does; one with neither stands for good.
    """

    kind: FaultKind
    amount: float = 0.0
    for_s: float | None = None
    count: int | None = None

    @property
    def text(self) -> str:
        """For people: "drop 3 frames", "slow link to 10Mbit for 2s"."""
        frames = "1 frame" if self.count == 1 else f"{self.count} frames"
        delay, rate = format_duration(self.amount), format_rate(self.amount)
        what = FAULTS[self.kind].text.format(count=frames, amount=self.amount, delay=delay, rate=rate)
        return what if self.for_s is None else f"{what} for {self.for_s:g}s"


def format_rate(bits_per_s: float) -> str:
    """The shortest exact form: 10000000 → "10Mbit"."""
    for unit, factor in (("Gbit", 1e9), ("Mbit", 1e6), ("kbit", 1e3)):
        if bits_per_s >= factor:
            return f"{bits_per_s / factor:g}{unit}"
    return f"{bits_per_s:g}bit"
