"""What a server offers: exports, and the metadata contexts that tell where their blocks lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from hwvirt.host.nbd.wire import MAX_TRANSFER_BYTES, PREFERRED_BYTES, State, TransmissionFlag
from hwvirt.scsi.command import LogicalUnit
from hwvirt.scsi.volume import Extent, Residency

__all__ = ["CONTEXTS", "Export", "block_status"]

CONTEXTS: Final[Mapping[str, Mapping[Residency, int]]] = {
    "base:allocation": {Residency.FIRST: 0, Residency.REDIRECTED: 0, Residency.ZERO: State.HOLE | State.ZERO},
    "hwvirt:residency": {Residency.FIRST: 0, Residency.REDIRECTED: 1, Residency.ZERO: 2},
}
"""Metadata contexts and the status value that each gives a block. A write to a block with `hwvirt:residency` 0 or 2 takes
room on the second volume and may fail with ENOSPC."""

_STATUS_BLOCKS = 1 << 16  # one answer looks at no more, so that a scattered map cannot hold up the loop


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Export:
    """One logical unit under a name. `residency` gives runs of (blocks, where they lie) that cover an extent in order.

    `cut_off` tells whether redirected blocks are out of reach now: reads that need none of them are then not kept waiting.
    """

    name: str
    lun: LogicalUnit
    blocks: int
    block_bytes: int
    description: str
    read_only: bool
    residency: Callable[[Extent], list[tuple[int, Residency]]]
    cut_off: Callable[[], bool] = _never

    @property
    def size_bytes(self) -> int:
        """Bytes that a host can address."""
        return self.blocks * self.block_bytes

    @property
    def sizes_bytes(self) -> tuple[int, int, int]:
        """Minimum, preferred and maximum length of a request."""
        return self.block_bytes, max(PREFERRED_BYTES, self.block_bytes), MAX_TRANSFER_BYTES

    @property
    def flags(self) -> TransmissionFlag:
        """What hosts may use. CAN_MULTI_CONN: all connections share one logical unit, so a flush on one covers all."""
        flags = TransmissionFlag.HAS_FLAGS | TransmissionFlag.SEND_FLUSH | TransmissionFlag.SEND_FUA
        flags |= TransmissionFlag.CAN_MULTI_CONN
        if self.read_only:
            return flags | TransmissionFlag.READ_ONLY
        return (
            flags
            | TransmissionFlag.SEND_TRIM
            | TransmissionFlag.SEND_WRITE_ZEROES
            | TransmissionFlag.SEND_FAST_ZERO
        )


def block_status(export: Export, extent: Extent, context: str, most_runs: int) -> list[tuple[int, int]]:
    """Runs of (blocks, status value) from the front of `extent`, neighbours of one value joined; at least one run.

    Covers less than the extent when it is long or has more than `most_runs` runs.
    """
    values = CONTEXTS[context]
    runs: list[tuple[int, int]] = []
    for blocks, residency in export.residency(Extent(extent.lba, min(extent.blocks, _STATUS_BLOCKS))):
        value = values[residency]
        if runs and runs[-1][1] == value:
            runs[-1] = (runs[-1][0] + blocks, value)
        elif len(runs) == most_runs:
            break
        else:
            runs.append((blocks, value))
    return runs
