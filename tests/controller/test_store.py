"""The store in the moments between: while a flush is under way, and after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from hwvirt.controller.ledger import ROW, Kind
from hwvirt.controller.link_store import LinkStore
from hwvirt.errors import PeerError
from hwvirt.link.messages import LedgerPage, Query, Reply, Request, Slice
from hwvirt.scsi.sense import CheckCondition
from hwvirt.scsi.volume import Extent

from .desk import Desk, on_desk


def test_no_generation_of_a_former_start_is_used_again(tmp_path: Path) -> None:
    """The other controller may know positions of laps of which nothing became durable."""

    async def story(desk: Desk) -> None:
        allocator = desk.store.allocator
        first = allocator.lap
        for fill in range(3 * desk.store_blocks):
            await desk.write(5, fill % 250)
            allocator.settle(allocator.pending())  # as flushes would that were lost
            desk.store.records.free(0, desk.volume.superseded)
            desk.volume.superseded.clear()
        last = allocator.lap
        assert last > first + 1
        desk.ledger_journal.close()
        desk.start_b()
        assert desk.store.allocator.lap > last

    on_desk(tmp_path, story)


def test_a_checkpoint_of_the_ledger_keeps_laps_and_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what is taken after a restart could have the generation of what was known before."""
    monkeypatch.setattr("hwvirt.controller.journal._CHECKPOINT_BYTES", 0)

    async def story(desk: Desk) -> None:
        for fill in range(3 * desk.store_blocks):
            await desk.write(5, fill % 250)
        await desk.unmap(5, 1)
        await desk.flush()
        await desk.store.drop(0, Extent(0, desk.blocks))
        lap, sequence = desk.store.allocator.lap, desk.store.records.last_sequence
        desk.ledger_journal.close()
        desk.start_b()
        assert desk.store.allocator.lap == lap + 1
        assert desk.store.records.last_sequence == sequence > 3 * desk.store_blocks
        desk.volume.map.clear()

    on_desk(tmp_path, story)


def test_what_is_given_up_while_a_flush_is_under_way_is_free_with_the_next_one(tmp_path: Path) -> None:
    """Its rows were not in what that flush made durable: after a crash they would be there again."""

    async def story(desk: Desk) -> None:
        await desk.write(5, 1)
        await desk.write(6, 2)
        await desk.flush()
        gone = desk.volume.map.unmap([Slice(5, 1, 9)])
        assert len(gone) == 1
        flush = desk.second.flush

        async def flush_and_free() -> CheckCondition | None:
            await desk.store.free(0, gone)
            return await flush()

        desk.second.flush = flush_and_free  # type: ignore[method-assign]  # in the middle of it
        await desk.store.flush(0)
        desk.second.flush = flush  # type: ignore[method-assign]  # as it was
        assert (desk.store.allocator.freed, desk.store.allocator.live) == (1, 1)
        await desk.store.flush(0)
        assert (desk.store.allocator.freed, desk.store.allocator.live) == (0, 1)

    on_desk(tmp_path, story)


class Pages:
    """A peer that answers queries with these pages."""

    store_epoch = 1

    def __init__(self, pages: Sequence[tuple[bytes, int | None]]) -> None:
        self._pages = iter(pages)
        self.asked: list[int | None] = []

    def settled_sequence(self, _volume: int) -> int:
        return 0

    async def ask(self, message: Request) -> Reply:
        assert isinstance(message, Query)
        self.asked.append(message.after)
        rows, following = next(self._pages)
        return LedgerPage((rows,) if rows else (), following)


def rows_at(*positions: int) -> bytes:
    rows = np.zeros(len(positions), ROW)
    rows["position"], rows["kind"] = positions, Kind.LIVE
    return rows.tobytes()


@pytest.mark.parametrize("fills", [1, 40])
def test_ledger_is_told_whole_in_pages(fills: int) -> None:
    async def story() -> None:
        pages = Pages([(rows_at(*range(at * 3, at * 3 + 3)), at * 3 + 2) for at in range(fills)] + [(rows_at(500), None)])
        rows = await LinkStore(pages, 512).ledger(0)
        assert rows["position"].tolist() == [*range(fills * 3), 500]
        assert pages.asked == [None, *range(2, fills * 3, 3)]

    asyncio.run(story())


@pytest.mark.parametrize(
    "pages",
    [
        [(rows_at(1), 1), (rows_at(2), 1)],
        [(rows_at(1), 5), (rows_at(2), 4)],
        [(rows_at(1, 2)[:-1], None)],
        [(rows_at(1, 2)[:-1], 2), (rows_at(3)[:1], None)],
    ],
    ids=["no further", "back", "cut", "cut elsewhere"],
)
def test_pages_that_do_not_follow_each_other_are_refused(pages: list[tuple[bytes, int | None]]) -> None:
    async def story() -> None:
        with pytest.raises(PeerError, match=r"^link: a page of the ledger that follows none\.$"):
            await LinkStore(Pages(pages), 512).ledger(0)

    asyncio.run(story())
