"""FaultyDisk: fails the command it was told to fail, and no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwvirt.buffers import joined
from hwvirt.digest import crc32c
from hwvirt.disk.faulty import FOR_EVER, FaultyDisk, Moment, Rule
from hwvirt.disk.loop import LoopDisk, create_image
from hwvirt.disk.reader import digest_blocks, read_blocks
from hwvirt.errors import DiskError
from hwvirt.scsi.cdb import read_16, synchronize_cache_16, unmap, write_16
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.sense import UNRECOVERED_READ_ERROR, WRITE_ERROR, decode_sense
from hwvirt.scsi.status import Status
from hwvirt.scsi.volume import Extent
from hwvirt.units import FOREVER, Deadline

BLOCK = 512
READ_16, WRITE_16 = 0x88, 0x8A


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[FaultyDisk]:
    create_image(tmp_path / "disk.img", 512 * BLOCK)
    disk = FaultyDisk(LoopDisk(str(tmp_path / "disk.img"), BLOCK))
    yield disk
    disk.close()


def read(disk: FaultyDisk, lba: int, blocks: int = 1) -> Completion:
    return disk.execute(Command(read_16(lba, blocks), (), blocks * BLOCK), FOREVER)


def write(disk: FaultyDisk, lba: int, value: int) -> Completion:
    return disk.execute(Command(write_16(lba, 1), (bytes([value]) * BLOCK,)), FOREVER)


def goods(disk: FaultyDisk, count: int) -> str:
    return "".join("+" if read(disk, 1).good else "-" for _ in range(count))


@pytest.mark.parametrize(
    ("nth", "times", "expected"), [(1, 1, "-+++++"), (3, 1, "++-+++"), (2, 3, "+---++"), (4, FOR_EVER, "+++---")]
)
def test_nth_matching_command_fails_once_or_for_ever(disk: FaultyDisk, nth: int, times: int, expected: str) -> None:
    disk.set_rules([Rule(UNRECOVERED_READ_ERROR, nth=nth, times=times)])
    assert goods(disk, 6) == expected
    assert disk.commands == 6


def test_only_the_operation_code_and_blocks_of_the_rule_match_and_count(disk: FaultyDisk) -> None:
    disk.set_rules([Rule(UNRECOVERED_READ_ERROR, frozenset({READ_16}), Extent(10, 4), nth=2)])
    assert write(disk, 11, 1).good
    assert read(disk, 9).good
    assert read(disk, 14).good
    assert read(disk, 13).good
    failed = read(disk, 5, 20)
    assert decode_sense(failed.sense) == UNRECOVERED_READ_ERROR.at(10)
    assert failed.residual == 20 * BLOCK
    assert failed.data == ()


def test_unmap_matches_by_any_of_its_extents(disk: FaultyDisk) -> None:
    disk.set_rules([Rule(WRITE_ERROR, extent=Extent(10, 4), times=FOR_EVER)])
    assert disk.execute(unmap([Extent(0, 10), Extent(14, 2)]), FOREVER).good
    assert not disk.execute(unmap([Extent(0, 2), Extent(13, 2)]), FOREVER).good
    assert disk.execute(Command(synchronize_cache_16()), FOREVER).good


def test_first_rule_counts_and_all_matching_rules_are_counted(disk: FaultyDisk) -> None:
    disk.set_rules([Rule(Status.BUSY, nth=2), Rule(Status.TASK_ABORTED, nth=2, times=2)])
    assert [read(disk, 1).status for _ in range(4)] == [Status.GOOD, Status.BUSY, Status.TASK_ABORTED, Status.GOOD]


@pytest.mark.parametrize(("moment", "expected"), [(Moment.INSTEAD, 0), (Moment.AFTERWARDS, 7)])
def test_failed_write_has_happened_or_not_as_the_rule_says(disk: FaultyDisk, moment: Moment, expected: int) -> None:
    disk.set_rules([Rule(WRITE_ERROR, frozenset({WRITE_16}), moment=moment)])
    assert not write(disk, 3, 7).good
    assert bytes(joined(read(disk, 3).data)) == bytes([expected]) * BLOCK


def test_disk_error_is_raised_with_its_text(disk: FaultyDisk) -> None:
    disk.set_rules([Rule("the cable is out")])
    with pytest.raises(DiskError, match=r"disk\.img: the cable is out"):
        read(disk, 1)
    disk.set_rules([Rule("the cable is out", nth=2)])
    command = Command(read_16(1, 1), (), BLOCK)
    kinds = [type(end) for end in disk.execute_batch([command] * 3, FOREVER)]
    assert kinds == [Completion, DiskError, Completion]


def test_delay_delays_and_then_executes(disk: FaultyDisk) -> None:
    disk.set_rules([Rule(None, delay_s=0.03)])
    began = time.monotonic()
    assert read(disk, 1).good
    assert time.monotonic() - began >= 0.03


def test_delay_beyond_the_deadline_ends_at_the_deadline_and_does_nothing(disk: FaultyDisk) -> None:
    disk.set_rules([Rule(None, delay_s=60.0)])
    with pytest.raises(DiskError, match="did not answer in time"):
        disk.execute(Command(write_16(3, 1), (b"x" * BLOCK,)), Deadline.after(0.01))
    assert bytes(joined(read(disk, 3).data)) == bytes(BLOCK)


def test_delay_ends_when_the_disk_has_to_go(disk: FaultyDisk) -> None:
    disk.set_rules([Rule(None, delay_s=3_600_000.0, times=2)])
    ends: list[bool] = []
    thread = threading.Thread(target=lambda: ends.append(read(disk, 1).good))
    thread.start()
    disk.hurry()
    thread.join(60)
    assert ends == [True]
    assert read(disk, 1).good, "delays that come later are none"


def test_disk_is_quick_again_when_its_last_delay_is_over(disk: FaultyDisk) -> None:
    assert disk.quick
    disk.set_rules([Rule(None, nth=2, times=2, delay_s=0.001), Rule(Status.BUSY, times=9)])
    assert [(read(disk, 1).good, disk.quick) for _ in range(3)] == [(False, False), (True, False), (True, True)]


def test_disk_knows_how_often_each_rule_has_struck(disk: FaultyDisk) -> None:
    disk.set_rules([Rule(Status.BUSY, nth=2, times=2), Rule(WRITE_ERROR, times=3), Rule(None, nth=99)])
    assert goods(disk, 6) == "---+++"
    assert list(disk.struck) == [2, 1, 0]
    disk.set_rules([Rule(Status.BUSY)])
    assert list(disk.struck) == [0]


def test_count_is_exact_with_many_threads(disk: FaultyDisk) -> None:
    disk.set_rules([Rule(UNRECOVERED_READ_ERROR, nth=50, times=10)])
    failures: list[bool] = []

    def reader() -> None:
        failures.extend(not read(disk, 1).good for _ in range(25))

    threads = [threading.Thread(target=reader) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (disk.commands, sum(failures)) == (100, 10)


def test_judge_s_reader_reads_whole_windows_in_chunks(disk: FaultyDisk) -> None:
    data = b"".join(value.to_bytes(2, "big") * (BLOCK // 2) for value in range(300))
    disk.execute(Command(write_16(100, 300), (data,)), FOREVER)
    assert read_blocks(disk, 100, 300) == data
    assert read_blocks(disk, 399, 1) == data[-BLOCK:]
    assert read_blocks(disk, 5, 0) == b""
    digests = digest_blocks(disk, Extent(100, 300))
    assert list(digests) == [crc32c(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK)]
    assert digests.typecode == "I"


def test_judge_s_reader_names_command_and_sense(disk: FaultyDisk) -> None:
    disk.set_rules([Rule(UNRECOVERED_READ_ERROR, extent=Extent(205, 1))])
    with pytest.raises(DiskError) as caught:
        digest_blocks(disk, Extent(100, 300))
    assert str(caught.value) == (
        f"{disk.name}: READ(16) lba=0x64 blocks=128 ended with "
        "medium error, unrecovered read error (3/11/00), information 0xcd."
    )
    disk.set_rules([Rule(Status.TASK_SET_FULL, frozenset({READ_16}))])
    with pytest.raises(DiskError, match=r"READ\(16\) lba=0x1 blocks=1 ended with TASK_SET_FULL\."):
        read_blocks(disk, 1, 1)
