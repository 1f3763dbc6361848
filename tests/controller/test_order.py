"""The order in which things become durable: what a power cut between any two of them would find."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hwvirt.link.messages import Placement

from .desk import Desk, on_desk


class Order:
    """Writes down when the named calls end."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.ended: list[str] = []
        self._patch = patch

    def watch(self, owner: object, method: str, name: str) -> None:
        inner: Callable[..., Any] = getattr(owner, method)

        def plain(*arguments: Any) -> Any:
            result = inner(*arguments)
            self.ended.append(name)
            return result

        async def waiting(*arguments: Any) -> Any:
            result = await inner(*arguments)
            self.ended.append(name)
            return result

        import asyncio

        self._patch.setattr(owner, method, waiting if asyncio.iscoroutinefunction(inner) else plain)

    def watch_all(self, desk: Desk) -> None:
        self.watch(desk.first, "write", "first disk written")
        self.watch(desk.first, "flush", "first disk durable")
        self.watch(desk.second, "write", "second disk written")
        self.watch(desk.second, "flush", "second disk durable")
        self.watch(desk.ledger_journal, "sync", "ledger durable")
        self.watch(desk.map_journal, "sync", "map durable")
        self.watch(desk.store, "free", "positions given up")


def test_a_flush_makes_data_then_ledger_then_map_durable_and_gives_up_positions_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(desk: Desk) -> None:
        await desk.write(1, 5)
        order = Order(monkeypatch)
        order.watch_all(desk)
        await desk.write(1, 6)
        await desk.flush()
        assert order.ended == [
            "second disk written",
            "second disk durable",
            "ledger durable",
            "map durable",
            "positions given up",
        ]

    on_desk(tmp_path, story)


def test_a_commit_makes_the_first_disk_durable_before_the_map_forgets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(desk: Desk) -> None:
        await desk.write(1, 5)
        await desk.flush()
        order = Order(monkeypatch)
        order.watch_all(desk)
        await desk.lifecycle.commit()
        await desk.lifecycle.settled()
        written = order.ended.index("first disk written")
        assert order.ended[written : written + 2] == ["first disk written", "first disk durable"]
        assert "map durable" in order.ended[written + 2 :]

    on_desk(tmp_path, story)


def test_redirection_begins_when_the_first_disk_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(desk: Desk) -> None:
        await desk.lifecycle.discard()
        order = Order(monkeypatch)
        order.watch_all(desk)
        await desk.lifecycle.redirect()
        assert order.ended == ["first disk durable", "map durable"]

    on_desk(tmp_path, story)


def test_positions_after_a_restart_have_a_generation_that_none_before_it_had(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        await desk.write(1, 5)
        before = _place(desk, 1)
        desk.ledger_journal.close()
        desk.start_b()  # the write was not flushed: the new store does not know that the position was taken
        desk.volume.store = desk.store
        await desk.write(2, 6)
        after = _place(desk, 2)
        assert after.lba == before.lba
        assert after.generation > before.generation

    on_desk(tmp_path, story)


def _place(desk: Desk, lba: int) -> Placement:
    from hwvirt.scsi.volume import Extent

    (run,) = desk.volume.map.lookup(Extent(lba, 1))
    assert run.placement is not None
    return run.placement


def test_a_flush_that_another_epoch_answered_is_not_believed(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        await desk.write(1, 5)
        inner, answers = desk.store.flush, [desk.store.epoch + 1]

        async def flush(volume: int) -> int:
            epoch = await inner(volume)
            if answers:
                assert desk.volume.unflushed.size_bytes, "given up before a flush of its epoch"
                return answers.pop()
            return epoch

        desk.store.flush = flush  # type: ignore[method-assign]  # a store that restarts while it flushes
        size = desk.map_journal.size_bytes
        await desk.flush()
        assert answers == []
        assert desk.map_journal.size_bytes - size == 24 + 32, "the map was journalled for an epoch that is gone"

    on_desk(tmp_path, story)


@pytest.mark.parametrize("lost", [False, True], ids=["map there", "map lost"])
def test_start_has_the_ledger_made_durable_and_then_asks_for_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    """It may be gigabytes on a thin line; and what is taken over from it must not be lost once more."""

    async def story(desk: Desk) -> None:
        await desk.write(1, 5)
        order = Order(monkeypatch)
        order.watch(desk.store, "flush", "store durable")
        order.watch(desk.store, "ledger", "ledger told")
        if lost:
            (tmp_path / "map-0.journal").unlink()
        await desk.crash_a()
        assert order.ended[:2] == ["store durable", "ledger told"]
        assert order.ended.count("ledger told") == 1
        assert await desk.read(1) == [5]
        desk.check_one_to_one()

    on_desk(tmp_path, story)
