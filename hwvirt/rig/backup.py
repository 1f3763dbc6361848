"""A backup client: reads a frozen LUN from end to end and compares every block with the original."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable

import numpy as np

from hwvirt.digest import block_digests
from hwvirt.host.initiator import Initiator
from hwvirt.rig.evidence import read_through
from hwvirt.rig.judge.card import Card
from hwvirt.rig.judge.verdict import CARDS_KEPT, Outcome, Property, Verdict
from hwvirt.trace import Trace

__all__ = ["BackupClient"]

_CHUNK_BYTES = 1 << 20
_TELL_S = 0.25
"""How far a backup is, is told no more often than this: a pass may be over in a moment, and the next one begins."""


class BackupClient:
    """The backups of one step. `original` has the CRC-32C of each block.

    How far it is goes to the trace as `progress`, at once and then at most four times a second. Of a pass it tells only
    where that meets a block that is not the original: at once, with the first such block.
    """

    def __init__(
        self,
        path: Initiator,
        name: str,
        original: array[int],
        trace: Trace,
        *,
        progress: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._name, self._original = path, name, original
        self._trace, self._progress, self._clock = trace, progress, clock
        self._told_at = float("-inf")
        self._passes = self._checked = self._wrong = 0
        self._blocks: dict[int, None] = {}  # those that were wrong, in order

    async def read(self) -> None:
        """One pass. Raises InfrastructureError when a block cannot be read."""
        path, told = self._path, False
        chunk = max(1, _CHUNK_BYTES // path.block_bytes)
        for lba in range(0, path.blocks, chunk):
            blocks = min(chunk, path.blocks - lba)
            found = block_digests([await read_through(path, lba, blocks)], path.block_bytes)
            expected = self._original[lba : lba + blocks]
            self._checked += blocks
            if found != expected:
                wrong = (np.flatnonzero(np.array(found) != np.array(expected)) + lba).tolist()
                self._wrong += len(wrong)
                self._blocks |= dict.fromkeys(wrong)
                if not told:
                    self._trace.emit("backup.mismatch", lun=self._name, lba=wrong[0], number=self._passes + 1)
                told = True
            if (now := self._clock()) - self._told_at >= _TELL_S:
                self._told_at = now
                self._trace.emit(self._progress, done=lba + blocks, total=path.blocks, number=self._passes + 1)
        self._passes += 1

    @property
    def mismatches(self) -> int:
        """Blocks that were not the original, in all passes together."""
        return self._wrong

    def end(self, replay: str) -> Verdict | None:
        """Tells what came out, and judges it; None when not a block was read."""
        if not self._checked:
            return None
        self._trace.emit(
            "backup.read", lun=self._name, passes=self._passes, blocks=self._checked, mismatches=self._wrong
        )
        outcome = Outcome.BROKEN if self._wrong else Outcome.HELD
        cards = tuple(self._card(lba, replay) for lba in list(self._blocks)[:CARDS_KEPT])
        return Verdict(Property.FROZEN, outcome, self._checked, self._wrong, cards)

    def _card(self, lba: int, replay: str) -> Card:
        detail = f"a backup of {self._name} did not get the block as it was when redirection began"
        return Card(Property.FROZEN.value, "changed", lba, detail, replay=replay)
