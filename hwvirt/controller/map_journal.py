"""What a redirected volume keeps across restarts: its state, and the changes of its correlation map."""

from __future__ import annotations

import asyncio
from itertools import chain

import numpy as np

from hwvirt.controller.correlation import CHANGE, CorrelationMap, Rows
from hwvirt.controller.journal import PORTION_ROWS, Journal, Record
from hwvirt.controller.position import UNMAPPED, Columns
from hwvirt.controller.states import State
from hwvirt.errors import StateError

__all__ = ["MapJournal", "refuse_beyond"]

_STATE, _CHANGES = 1, 2
_CODES = {State.OWN: 0, State.REDIRECTING: 1, State.COMMITTING: 2, State.DISCARDING: 3}
_STATES = {code: state for state, code in _CODES.items()}


class MapJournal:
    """The durable copy of one correlation map. What it wrote is durable when its methods return.

    `sequence`: no smaller number is used again. `stored_sequence`: the newest that the store must know, because the durable
    map has an entry from it; blocks that a commit has brought back have numbers that no store ever saw.
    """

    def __init__(self, journal: Journal, correlation: CorrelationMap, volume: int = 0) -> None:
        self._journal = journal
        self._volume = volume
        self._map = correlation
        self._busy = asyncio.Lock()
        self.state = State.OWN
        self.sequence = self.stored_sequence = 0

    def recover(self) -> bool:
        """Fills the map; returns whether a state was stored: a mere file says nothing.

        Raises StateError on damage, and where the volume was larger: the files stay as they are.
        """
        known = False
        for record in self._journal.recover():
            if record.kind == _STATE:
                known = True
                code, self.sequence = np.frombuffer(record.payload, "<u8").tolist()
                self.state = _STATES[code]
                if not self.state.uses_map:
                    self._map.clear()
            else:
                changes = np.frombuffer(record.payload, CHANGE)
                refuse_beyond(self._volume, self._map.blocks, changes["lba"] + changes["blocks"], "its own map")
                self._map.apply(changes)
        self.sequence = max(self.sequence, self._map.last_sequence())
        self.stored_sequence = self._map.last_stored_sequence()
        return known

    async def enter(self, state: State, sequence: int) -> None:
        """The volume is in `state`; sequence numbers up to `sequence` are used. OWN and DISCARDING empty the map."""
        async with self._busy:
            record = Record(_STATE, np.array([_CODES[state], sequence], "<u8").tobytes())
            if not state.uses_map:
                self._journal.checkpoint([record])
                self.stored_sequence = 0
            else:
                self._journal.append([record])
                await self._sync()
            self.state = state
            self.sequence = sequence

    async def add(self, changes: Rows, sequence: int) -> None:
        """These changes of the map are durable when it returns."""
        if not len(changes):
            return
        async with self._busy:
            self._journal.append([Record(_CHANGES, changes.tobytes())])
            await self._sync()
            self.sequence = max(self.sequence, sequence)
            self.stored_sequence = max(self.stored_sequence, _newest_stored(changes))
            if self._journal.outgrown:
                await self._compact()

    async def _compact(self) -> None:
        state = Record(_STATE, np.array([_CODES[self.state], self.sequence], "<u8").tobytes())
        await asyncio.get_running_loop().run_in_executor(None, self._rewrite, state)

    def _rewrite(self, state: Record) -> None:
        # What is durable, not what the map says now: its newest entries may name data that no flush has covered yet.
        durable = CorrelationMap(self._map.blocks)
        for record in self._journal.stored():
            if record.kind == _CHANGES:
                durable.apply(np.frombuffer(record.payload, CHANGE))
        rows = durable.rows()
        portions = (rows[at : at + PORTION_ROWS] for at in range(0, len(rows), PORTION_ROWS))
        self._journal.checkpoint(chain([state], (Record(_CHANGES, portion.tobytes()) for portion in portions)))

    async def _sync(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self._journal.sync)


def refuse_beyond(volume: int, blocks: int, ends: Columns, who: str) -> None:
    """Raises StateError when runs that `who` knows end beyond the volume's so many blocks."""
    if (end := int(ends.max(initial=0))) > blocks:
        raise StateError(
            f"volume {volume}: it has {blocks} blocks, and {who} knows {end}.",
            next_step="Correct `blocks` of the LUN: a volume that is redirected cannot shrink.",
        )


def _newest_stored(rows: Rows) -> int:
    return int(rows["sequence"][rows["position"] != UNMAPPED].max(initial=0))
