"""What a controller tells of itself, as the console reads it. Every field may be missing: a viewer shows what there is."""

from __future__ import annotations

from typing import Any

import msgspec

from hwvirt.console.text import cleaned

__all__ = [
    "ControllerReport",
    "Counters",
    "DiskReport",
    "LineReport",
    "LinkReport",
    "LunReport",
    "Percentiles",
    "StoreReport",
    "read_report",
]


class Percentiles(msgspec.Struct, frozen=True):
    """Latency in microseconds; None before the first request."""

    p50: float | None = None
    p99: float | None = None


class Counters(msgspec.Struct, frozen=True):
    """What hosts asked of a LUN since the controller started."""

    reads: int = 0
    read_blocks: int = 0
    writes: int = 0
    written_blocks: int = 0
    flushes: int = 0
    unmaps: int = 0
    errors: int = 0

    @property
    def operations(self) -> int:
        """Requests of all kinds."""
        return self.reads + self.writes + self.flushes + self.unmaps

    @property
    def blocks(self) -> int:
        """Blocks moved in either direction."""
        return self.read_blocks + self.written_blocks


class LunReport(msgspec.Struct, frozen=True):
    """One logical unit. `strip` holds the redirected fraction, 0 to 1, of equal parts of the volume in order."""

    lun: int = 0
    mode: str = ""
    state: str = ""
    target: str = ""
    blocks: int = 0
    block_bytes: int = 0
    mapped_blocks: int = 0
    zero_blocks: int = 0
    unflushed_bytes: int = 0
    export: str = ""
    counters: Counters = Counters()
    latency_us: dict[str, Percentiles] = {}
    strip: list[float] = []

    @property
    def word(self) -> str:
        """What the unit is right now, in one word: the state of its redirection, or its mode."""
        return self.state or self.mode


class LineReport(msgspec.Struct, frozen=True):
    """One end of a serial line, below the link."""

    resent_segments: int = 0
    damaged_frames: int = 0


class LinkReport(msgspec.Struct, frozen=True):
    """One end of the link; `line`: on a serial line only."""

    state: str = ""
    peer: str = ""
    kind: str = ""
    epoch: str | int = ""
    rtt_us: float | None = None
    sent_bytes: int = 0
    received_bytes: int = 0
    reconnects: int = 0
    refused: int = 0
    corrupt: int = 0
    in_flight: int = 0
    line: LineReport | None = None


class StoreReport(msgspec.Struct, frozen=True):
    """The second volume's blocks: live and free ones, and those freed but not yet reusable."""

    blocks: int = 0
    live: int = 0
    free: int = 0
    freed: int = 0
    lap: int = 0


class DiskReport(msgspec.Struct, frozen=True):
    """The disk under a controller."""

    name: str = ""
    commands: int = 0
    block_bytes: int = 0
    blocks: int = 0


class ControllerReport(msgspec.Struct, frozen=True):
    """The reply to the control verb "status"."""

    controller: str = ""
    pid: int = 0
    epoch: str | int = ""
    uptime_s: float = 0.0
    link: LinkReport | None = None
    luns: list[LunReport] = []
    store: StoreReport | None = None
    disk: DiskReport | None = None
    last_sense: str = ""

    @property
    def operations(self) -> int:
        """Requests of hosts, over all LUNs."""
        return sum(lun.counters.operations for lun in self.luns)

    @property
    def moved_bytes(self) -> int:
        """Bytes read and written by hosts, over all LUNs."""
        return sum(lun.counters.blocks * lun.block_bytes for lun in self.luns)

    @property
    def errors(self) -> int:
        """Requests that ended with an error, over all LUNs."""
        return sum(lun.counters.errors for lun in self.luns)

    @property
    def mapped_blocks(self) -> int:
        """Correlations, over all LUNs."""
        return sum(lun.mapped_blocks for lun in self.luns)

    @property
    def unflushed_bytes(self) -> int:
        """Bytes that a crash of the other side would have us send again."""
        return sum(lun.unflushed_bytes for lun in self.luns)

    @property
    def busiest(self) -> LunReport | None:
        """The LUN with most requests: whose latency stands for the controller's."""
        return max(self.luns, key=lambda lun: lun.counters.operations, default=None)

    @property
    def redirected(self) -> LunReport | None:
        """The first LUN that has a correlation strip."""
        return next((lun for lun in self.luns if lun.mode == "redirect" and lun.strip), None)


def read_report(raw: Any) -> ControllerReport:
    """Raises ValueError with the reason when a field has the wrong type."""
    try:
        return msgspec.convert(cleaned(raw), ControllerReport)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error
