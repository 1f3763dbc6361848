"""The second disk is pulled, or fails every command: what is told, and that telling it is cheap."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from hwvirt.disk.discovery.removable import REMOVED
from hwvirt.scsi.sense import COMMUNICATION_FAILURE, UNRECOVERED_READ_ERROR, CheckCondition, Sense
from hwvirt.scsi.volume import Durability, Write

from .desk import BLOCK, CountingVolume, Desk, on_desk

BROKEN = [REMOVED, COMMUNICATION_FAILURE, UNRECOVERED_READ_ERROR]


class BreakingVolume(CountingVolume):
    """A volume that fails writes and flushes with `sense` while there is one, and counts what it was asked."""

    sense: Sense | None = None
    writes = flushes = 0

    async def write(
        self, writes: Sequence[Write], durability: Durability = Durability.VOLATILE
    ) -> list[CheckCondition | None]:
        self.writes += 1
        if self.sense is not None:
            return [CheckCondition(self.sense)] * len(writes)
        return await super().write(writes, durability)  # type: ignore[no-any-return, no-untyped-call]  # as FileVolume

    async def flush(self) -> CheckCondition | None:
        self.flushes += 1
        return CheckCondition(self.sense) if self.sense is not None else await super().flush()

    def breaks(self, sense: Sense | None) -> None:
        self.sense, self.writes, self.flushes = sense, 0, 0


def second_disk_of(desk: Desk) -> BreakingVolume:
    """Puts a disk that breaks in the place of the second one."""
    disk = BreakingVolume(desk.second_fd, BLOCK)
    desk.second = desk.store._volume = disk
    return disk


@pytest.mark.parametrize("sense", BROKEN, ids=str)
def test_writes_that_fail_ask_for_no_flush_and_take_no_room(tmp_path: Path, sense: Sense) -> None:
    async def story(desk: Desk) -> None:
        disk = second_disk_of(desk)
        await desk.write(5, 1, 2)
        before = desk.store.status()
        disk.breaks(sense)
        for _ in range(3 * desk.store_blocks):
            (failed,) = await desk.volume.write([Write(7, [bytes(BLOCK)])])
            assert failed is not None
            assert (failed.sense.key, failed.sense.asc, failed.sense.information) == (sense.key, sense.asc, 7)
        assert (disk.flushes, disk.writes) == (0, 3 * desk.store_blocks)
        assert {**desk.store.status(), "lap": 0} == {**before, "lap": 0}
        disk.breaks(None)
        await desk.write(7, 9)
        assert await desk.read(5, 3) == [1, 2, 9]
        await desk.flush()
        desk.check_one_to_one()

    on_desk(tmp_path, story)


def test_room_of_writes_that_failed_is_taken_in_another_generation(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        disk = second_disk_of(desk)
        disk.breaks(UNRECOVERED_READ_ERROR)
        lap = desk.store.allocator.lap
        assert (await desk.volume.write([Write(7, [bytes(BLOCK)])]))[0] is not None
        disk.breaks(None)
        await desk.write(7, 1)  # a bad place is left behind: whoever tries again gets another one
        for fill in range(desk.store_blocks):
            await desk.write(8, fill)
        rows = desk.store.records.rows_of(0)
        places = {(int(row["position"]), int(row["generation"])) for row in rows}
        assert (1, lap) in places
        assert (0, lap) not in places

    on_desk(tmp_path, story)


@pytest.mark.parametrize(
    ("sense", "tries"), [(REMOVED, 1), (COMMUNICATION_FAILURE, 1), (UNRECOVERED_READ_ERROR, 11)], ids=str
)
def test_a_batch_is_tried_block_by_block_only_where_that_can_help(tmp_path: Path, sense: Sense, tries: int) -> None:
    async def story(desk: Desk) -> None:
        disk = second_disk_of(desk)
        disk.breaks(sense)
        results = await desk.volume.write([Write(lba, [bytes(BLOCK)]) for lba in range(10)])
        assert [result and result.sense.information for result in results] == [*range(10)]
        assert disk.writes == tries

    on_desk(tmp_path, story)


@pytest.mark.parametrize("sense", BROKEN, ids=str)
def test_unmap_is_volatile_like_a_write_and_the_flush_tells_that_it_did_not_last(tmp_path: Path, sense: Sense) -> None:
    async def story(desk: Desk) -> None:
        disk = second_disk_of(desk)
        await desk.write(5, 1, 2)
        await desk.flush()
        disk.breaks(sense)
        await desk.unmap(5, 1)
        assert await desk.read(5) == [0]
        failed = await desk.volume.flush()
        assert failed is not None
        assert (failed.sense.key, failed.sense.asc) == (sense.key, sense.asc)
        durable = await desk.volume.write([Write(9, [bytes(BLOCK)])], Durability.DURABLE)
        assert [result is not None for result in durable] == [True]
        disk.breaks(None)
        await desk.flush()
        desk.ledger_journal.close()
        desk.start_b()
        await desk.crash_a()
        assert await desk.read(5, 2) == [0, 2]
        desk.check_one_to_one()

    on_desk(tmp_path, story)


def test_flush_after_one_that_failed_asks_the_disk_before_it_does_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(desk: Desk) -> None:
        disk = second_disk_of(desk)
        await desk.write(5, 1)
        disk.breaks(REMOVED)
        looked: list[int] = []
        take_changes = desk.store.records.take_changes
        monkeypatch.setattr(desk.store.records, "take_changes", lambda: (looked.append(disk.flushes), take_changes())[1])  # type: ignore[func-returns-value]
        for _ in range(5):
            assert await desk.volume.flush() is not None
        assert (disk.flushes, looked) == (5, [0])
        disk.breaks(None)
        await desk.flush_again()
        desk.ledger_journal.close()
        desk.start_b()
        await desk.crash_a()
        assert await desk.read(5) == [1]
        desk.check_one_to_one()

    on_desk(tmp_path, story)
