"""What can be wrong with a cable, as values. The words are those of rig files, and the same on every kind of link."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from hwvirt.units import format_duration

__all__ = ["FAULTS", "Extent", "FaultKind", "Form", "LinkFault", "format_rate"]


class FaultKind(Enum):
    """The faults in the order in which data meets them. A frame is the unit: on a serial line, a run of bytes."""

    CUT = "cut"
    HALF_OPEN = "half-open"
    DELAY = "delay"
    JITTER = "jitter"
    DROP = "drop"
    DUPLICATE = "duplicate"
    REORDER = "reorder"
    TRUNCATE = "truncate"
    FLIP = "flip"
    GARBAGE = "garbage"
    REPLAY = "replay"
    FORGE = "forge"
    RATE = "rate"


class Extent(Enum):
    """How a fault comes to its end."""

    TIME = "time"  # after so many seconds
    COUNT = "count"  # after so many frames


class Form(NamedTuple):
    """What goes with a kind of fault: how it ends, what happens for people, and to what."""

    extent: Extent
    text: str
    meaning: str


FAULTS: dict[FaultKind, Form] = {
    FaultKind.CUT: Form(Extent.TIME, "cut link", "nothing passes, in neither direction; then connections are reset"),
    FaultKind.HALF_OPEN: Form(Extent.TIME, "half-open link", "nothing passes in one direction, and nobody is told"),
    FaultKind.DELAY: Form(Extent.TIME, "delay frames by {delay}", "everything arrives so much later"),
    FaultKind.JITTER: Form(Extent.TIME, "delay frames by up to {delay}", "each frame is late by another part of it"),
    FaultKind.DROP: Form(Extent.COUNT, "drop {count}", "frames are lost"),
    FaultKind.DUPLICATE: Form(Extent.COUNT, "duplicate {count}", "frames arrive twice"),
    FaultKind.REORDER: Form(Extent.COUNT, "reorder {count}", "frames change places with the next one"),
    FaultKind.TRUNCATE: Form(Extent.COUNT, "truncate {count} at byte {amount:.0f}", "a longer frame ends there"),
    FaultKind.FLIP: Form(Extent.COUNT, "flip a bit in {count}", "one bit of each, drawn from the seed, is wrong"),
    FaultKind.GARBAGE: Form(Extent.COUNT, "{amount:.0f} bytes of garbage before {count}", "random bytes come in between"),
    FaultKind.REPLAY: Form(Extent.COUNT, "replay {count} of a former session", "frames that were sent before come again"),
    FaultKind.FORGE: Form(Extent.COUNT, "forged reply before {count}", "a reply that the sender never gave comes before the true one"),
    FaultKind.RATE: Form(Extent.TIME, "slow link to {rate}", "bytes leave at the rate of the line"),
}


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
