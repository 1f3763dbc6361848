"""What a redirected volume finds after a restart: no more and no less than was made durable."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hwvirt.controller.correlation import CorrelationMap
from hwvirt.controller.journal import Journal
from hwvirt.controller.map_journal import MapJournal
from hwvirt.controller.states import State
from hwvirt.errors import StateError
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
    monkeypatch.setattr("hwvirt.controller.journal._CHECKPOINT_BYTES", checkpoint_bytes)

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


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("unmapped", [False, True], ids=["mapped", "unmapped"])
def test_map_of_a_larger_volume_is_refused_and_its_files_stay(tmp_path: Path, unmapped: bool) -> None:
    async def story() -> None:
        kept, correlation, journal = opened(tmp_path)
        await kept.enter(State.REDIRECTING, 0)
        if unmapped:
            correlation.unmap([Slice(40, 24, 8)])
        else:
            correlation.bind([Slice(40, 24, 8)], [Placement(5, 1, 24)])
        await kept.add(correlation.take_changes(), 8)
        journal.close()
        files = contents(tmp_path)
        for blocks in (63, 40, 1):
            smaller = CorrelationMap(blocks)
            with pytest.raises(StateError) as caught:
                MapJournal(Journal(tmp_path, "map-0"), smaller, 7).recover()
            assert str(caught.value) == (
                f"volume 7: it has {blocks} blocks, and its own map knows 64. "
                "Correct `blocks` of the LUN: a volume that is redirected cannot shrink."
            )
            assert smaller.is_empty(Extent(0, blocks))
        assert contents(tmp_path) == files
        _, durable, journal = opened(tmp_path)
        assert not durable.is_empty(Extent(63, 1))
        journal.close()

    asyncio.run(story())


def test_volume_that_is_its_own_again_may_shrink(tmp_path: Path) -> None:
    async def story() -> None:
        kept, correlation, journal = opened(tmp_path)
        await kept.enter(State.REDIRECTING, 0)
        correlation.bind([Slice(63, 1, 8)], [Placement(5, 1, 1)])
        await kept.add(correlation.take_changes(), 8)
        await kept.enter(State.OWN, 9)
        journal.close()
        journal = Journal(tmp_path, "map-0")
        assert MapJournal(journal, CorrelationMap(8)).recover()
        journal.close()

    asyncio.run(story())
