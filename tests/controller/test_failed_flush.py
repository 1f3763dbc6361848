"""A flush of the second disk that fails has lost what it should have covered, and the next one does not tell of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from hwvirt.controller.link_store import LinkStore
from hwvirt.link.messages import Flush
from hwvirt.scsi.sense import WRITE_ERROR, CheckCondition
from hwvirt.scsi.volume import Extent

from .cut_sides import CutSides, first, on_cut_sides
from .desk import BLOCK


class LossyDisk:
    """The second disk of a desk behind a cache, as Linux has it: what a failed flush has lost can be read, until the power
    goes. It takes the place of the volume's methods."""

    def __init__(self, sides: CutSides) -> None:
        self.sides = sides
        self.path = sides.folder / "second"
        self.durable = bytearray(self.path.read_bytes())
        self.dirty: set[int] = set()
        self.fails = False
        self.before_flush: Callable[[], Awaitable[None]] | None = None
        volume: Any = sides.second
        self._write, self._flush = volume.write, volume.flush
        volume.write, volume.flush = self.write, self.flush

    async def write(self, writes: Sequence[Any], durability: Any = None) -> list[CheckCondition | None]:
        self.dirty.update(write.lba for write in writes)
        done: list[CheckCondition | None] = await self._write(writes)
        return done

    async def flush(self) -> CheckCondition | None:
        dirty, self.dirty = self.dirty, set()
        if self.before_flush is not None:
            meanwhile, self.before_flush = self.before_flush, None
            await meanwhile()
        if self.fails:
            return CheckCondition(WRITE_ERROR)
        now = self.path.read_bytes()
        for lba in dirty:
            self.durable[lba * BLOCK : (lba + 1) * BLOCK] = now[lba * BLOCK : (lba + 1) * BLOCK]
        done: CheckCondition | None = await self._flush()
        return done

    def power_cut(self) -> None:
        """Only what is durable is left."""
        self.path.write_bytes(self.durable)
        self.dirty.clear()


def _on_lossy_disk(folder: Path, story: Callable[[CutSides, LossyDisk], Awaitable[None]]) -> None:
    on_cut_sides(folder, lambda sides: story(sides, LossyDisk(sides)))


async def _failing_flush(sides: CutSides, disk: LossyDisk) -> None:
    disk.fails = True
    with pytest.raises(CheckCondition) as caught:
        await sides.flush()
    assert caught.value.sense == WRITE_ERROR
    disk.fails = False


async def _survives(sides: CutSides, disk: LossyDisk, lba: int, *fills: int) -> None:
    """Both are gone without a word, and the disk has lost its cache: what a flush has covered is there."""
    await sides.stop_a()
    await sides.stop_b()
    disk.power_cut()
    await sides.start()
    assert await sides.read(lba, len(fills)) == [*fills]
    sides.check_one_to_one()


def test_what_a_failed_flush_has_lost_is_sent_again_before_the_next_one_is_good(tmp_path: Path) -> None:
    async def story(sides: CutSides, disk: LossyDisk) -> None:
        await sides.write(4, 1, 2, 3)
        await sides.flush()
        await sides.write(5, 7)
        await sides.unmap(6, 1)
        await _failing_flush(sides, disk)
        assert await sides.read(4, 3) == [1, 7, 0]
        await sides.flush()
        assert len(sides.said("redirect.sent-again")) == 1
        sides.check_one_to_one()
        await _survives(sides, disk, 4, 1, 7, 0)

    _on_lossy_disk(tmp_path, story)


def test_flushes_that_go_on_failing_say_so_and_keep_the_session(tmp_path: Path) -> None:
    async def story(sides: CutSides, disk: LossyDisk) -> None:
        for fill in range(5):
            await sides.write(4, fill)
            await _failing_flush(sides, disk)
        assert sides.said("link.down") == []
        assert len([*sides.volume.unflushed]) == 5
        await sides.flush()
        assert len([*sides.volume.unflushed]) == 0
        await _survives(sides, disk, 4, 4)

    _on_lossy_disk(tmp_path, story)


def test_what_is_written_while_the_flush_fails_is_in_doubt_too(tmp_path: Path) -> None:
    async def story(sides: CutSides, disk: LossyDisk) -> None:
        async def meanwhile() -> None:
            await sides.write(9, 8)
            disk.dirty.clear()  # it went with what the flush has lost

        await sides.write(4, 1)
        disk.before_flush = meanwhile
        await _failing_flush(sides, disk)
        await sides.flush()
        await _survives(sides, disk, 9, 8)

    _on_lossy_disk(tmp_path, story)


def test_what_is_under_way_when_the_flush_fails_is_in_doubt_too(tmp_path: Path) -> None:
    async def story(sides: CutSides, disk: LossyDisk) -> None:
        written, go_on = asyncio.Event(), asyncio.Event()
        volume: Any = sides.second
        whole = volume.write

        async def slow(writes: Sequence[Any], durability: Any = None) -> list[CheckCondition | None]:
            done: list[CheckCondition | None] = await whole(writes)
            written.set()
            await go_on.wait()
            return done

        volume.write = slow
        writing = asyncio.ensure_future(sides.write(9, 8))
        await written.wait()
        await _failing_flush(sides, disk)
        go_on.set()
        await writing
        await sides.flush()
        await _survives(sides, disk, 9, 8)

    _on_lossy_disk(tmp_path, story)


@pytest.mark.parametrize("answered_first", [False, True], ids=["request lost", "reply lost"])
def test_a_session_that_ends_at_the_next_flush_changes_nothing(tmp_path: Path, answered_first: bool) -> None:
    async def story(sides: CutSides, disk: LossyDisk) -> None:
        await sides.write(4, 1)
        await _failing_flush(sides, disk)
        sides.answered_first, sides.cut_when = answered_first, first(Flush)
        await sides.flush()
        assert sides.cuts == 1
        await _survives(sides, disk, 4, 1)

    _on_lossy_disk(tmp_path, story)


def test_mending_that_meets_it_begins_anew(tmp_path: Path) -> None:
    async def story(sides: CutSides, disk: LossyDisk) -> None:
        await sides.write(4, 1)
        await _failing_flush(sides, disk)
        sides.side_a.patient.lost.add(0)  # as after a write that was given up
        await sides.heal()
        assert sides.said("link.mend-failed") == []
        await sides.flush()
        await _survives(sides, disk, 4, 1)

    _on_lossy_disk(tmp_path, story)


def test_a_new_life_of_the_first_controller_gets_what_was_durable(tmp_path: Path) -> None:
    async def story(sides: CutSides, disk: LossyDisk) -> None:
        await sides.write(4, 1)
        await sides.flush()
        await sides.write(4, 2)
        await _failing_flush(sides, disk)
        await sides.stop_a()
        await sides.start_a_side()
        assert await sides.read(4) == [1]
        await _survives(sides, disk, 4, 1)

    _on_lossy_disk(tmp_path, story)


def test_what_the_store_is_told_to_forget_is_in_doubt_no_more(tmp_path: Path) -> None:
    async def story(sides: CutSides, disk: LossyDisk) -> None:
        await sides.write(4, 1)
        await _failing_flush(sides, disk)
        await LinkStore(sides.side_a.patient, BLOCK).drop(0, Extent(0, sides.blocks))
        assert not sides.store.records.give_up_doubtful()

    _on_lossy_disk(tmp_path, story)
