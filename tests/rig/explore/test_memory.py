"""Disks and journals in memory know what a power cut takes."""

from __future__ import annotations

from hwvirt.controller.journal import Record
from hwvirt.rig.explore.loop import HandLoop
from hwvirt.rig.explore.memory import BLOCK_BYTES, Image, Loss, MemoryDisk, MemoryJournal
from hwvirt.scsi.volume import Durability, Extent, Write

OLD, NEW, NEWER = (bytes([fill]) * BLOCK_BYTES for fill in range(3))
START = Image.of([OLD, OLD])


def disk_of(*, slow: bool) -> MemoryDisk:
    return MemoryDisk(START, HandLoop(0), slow=slow)


def step(disk: MemoryDisk, *work: object) -> None:
    with disk._loop.inside():
        for one in work:
            disk._loop.begin(one)  # type: ignore[arg-type]  # a coroutine
        disk._loop.run()


def finish(disk: MemoryDisk) -> None:
    with disk._loop.inside():
        disk._loop.jobs.pop(0).finish()
        disk._loop.run()


def test_write_is_in_the_cache_and_a_flush_makes_it_durable() -> None:
    disk = disk_of(slow=False)
    step(disk, disk.write([Write(1, (NEW,))]))
    assert (disk.content, disk.durable) == ([OLD, NEW], [OLD, OLD])
    assert disk.changed == [Extent(1, 1)]
    step(disk, disk.flush())
    assert disk.durable == [OLD, NEW]


def test_durable_write_is_durable() -> None:
    disk = disk_of(slow=False)
    step(disk, disk.write([Write(0, (NEW, NEW))], Durability.DURABLE))
    assert disk.durable == [NEW, NEW]


def test_slow_flush_covers_what_was_there_when_it_began() -> None:
    disk = disk_of(slow=True)
    step(disk, disk.write([Write(0, (NEW,))]))
    finish(disk)
    step(disk, disk.flush(), disk.write([Write(0, (NEWER,))]))
    assert disk.durable == [OLD, OLD]
    finish(disk)
    assert (disk.content, disk.durable) == ([NEWER, OLD], [NEW, OLD])


def test_what_a_failed_flush_has_lost_is_read_until_the_power_goes_and_is_durable_when_it_is_written_again() -> None:
    disk = disk_of(slow=False)
    step(disk, disk.write([Write(0, (NEW, NEW))]))
    disk.fails = True
    step(disk, disk.flush(), disk.write([Write(0, (NEWER,))]), disk.flush())
    assert (disk.content, disk.durable) == ([NEWER, NEW], [NEWER, OLD])
    left = Image(tuple(disk.content), tuple(disk.durable), (), 0, frozenset(disk.lost))
    assert [left.after(loss).blocks for loss in left.losses()] == [(NEWER, OLD), (NEWER, NEW)]
    assert left.after(Loss.NOTHING).lost == {1}
    assert left.after(Loss.FILES).blocks == (NEWER, OLD)


def test_journal_keeps_what_was_synced() -> None:
    journal = MemoryJournal(START)
    journal.append([Record(1, b"one")])
    journal.sync()
    journal.append([Record(1, b"two")])
    left = Image((OLD,), (OLD,), tuple(journal.records), journal.synced)
    assert [record.payload for record in left.after(Loss.ALL).records] == [b"one"]
    assert [record.payload for record in left.after(Loss.NOTHING).records] == [b"one", b"two"]
    assert [record.payload for record in MemoryJournal(left).recover()] == [b"one", b"two"]


def test_crash_takes_what_its_kind_says() -> None:
    records = (Record(1, b"one"), Record(1, b"two"))
    image = Image((NEW,), (OLD,), records, 1)
    assert image.losses() == [Loss.ALL, Loss.NOTHING, Loss.CACHE, Loss.FILES]
    left = {loss: image.after(loss) for loss in image.losses()}
    assert {loss: (one.blocks, len(one.records)) for loss, one in left.items()} == {
        Loss.ALL: ((OLD,), 1),
        Loss.NOTHING: ((NEW,), 2),
        Loss.CACHE: ((OLD,), 2),
        Loss.FILES: ((NEW,), 1),
    }


def test_crash_of_a_machine_with_nothing_to_lose_is_one_crash() -> None:
    assert START.losses() == [Loss.ALL]
