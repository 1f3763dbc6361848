"""What a redirected volume finds after a restart: no more and no less than was made durable."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hwvirt.controller import map_journal
from hwvirt.controller.correlation import CorrelationMap
from hwvirt.controller.journal import Journal
from hwvirt.controller.map_journal import MapJournal
from hwvirt.controller.states import State
from hwvirt.link.messages import Placement, Slice
from hwvirt.scsi.volume import Extent


def opened(folder: Path) -> tuple[MapJournal, CorrelationMap, Journal]:
    correlation, journal = CorrelationMap(64), Journal(folder, "map-0")
    found = MapJournal(journal, correlation)
    found.recover()
    return found, correlation, journal


@pytest.mark.parametrize("checkpoint_bytes", [0, 1 << 30], ids=["compacted", "journal"])
def test_what_no_flush_has_covered_is_not_in_the_durable_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint_bytes: int
) -> None:
    """The map has it already, but the store may have lost it when it is looked for."""
    monkeypatch.setattr(map_journal, "_CHECKPOINT_BYTES", checkpoint_bytes)

    async def story() -> None:
        kept, correlation, journal = opened(tmp_path)
        await kept.enter(State.REDIRECTING, 7)
        correlation.bind([Slice(3, 1, 8)], [Placement(5, 1, 1)])
        changes = correlation.take_changes()
        correlation.bind([Slice(4, 1, 9)], [Placement(6, 1, 1)])
        correlation.bind([Slice(3, 1, 10)], [Placement(7, 1, 1)])
        await kept.add(changes, 30)
        assert (kept.sequence, kept.stored_sequence) == (30, 8)
        journal.close()
        again, durable, journal = opened(tmp_path)
        assert durable.lookup(Extent(3, 1))[0].placement == Placement(5, 1, 1)
        assert durable.is_empty(Extent(4, 1))
        assert (again.state, again.stored_sequence) == (State.REDIRECTING, 8)
        assert again.sequence == (30 if checkpoint_bytes == 0 else 8)  # rows alone say no more than their own numbers
        journal.close()

    asyncio.run(story())


@pytest.mark.parametrize("state", [State.OWN, State.DISCARDING])
def test_state_without_a_map_asks_no_number_of_the_store(tmp_path: Path, state: State) -> None:
    async def story() -> None:
        kept, correlation, journal = opened(tmp_path)
        await kept.enter(State.REDIRECTING, 0)
        correlation.bind([Slice(3, 1, 8)], [Placement(5, 1, 1)])
        await kept.add(correlation.take_changes(), 8)
        await kept.enter(state, 9)
        assert kept.stored_sequence == 0
        journal.close()
        again, durable, journal = opened(tmp_path)
        assert (again.state, again.sequence, again.stored_sequence) == (state, 9, 0)
        assert durable.is_empty(Extent(0, 64))
        journal.close()

    asyncio.run(story())
