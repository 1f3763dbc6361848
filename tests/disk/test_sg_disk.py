"""SgDisk: success is all clean; a command is repeated only where that is safe; a reset is not hidden from a flush."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator

import pytest

from hwvirt.buffers import joined
from hwvirt.disk import passthrough
from hwvirt.disk.disk import LOST_WRITES
from hwvirt.disk.passthrough import SgDisk
from hwvirt.errors import DiskError
from hwvirt.scsi.cdb import read_16, synchronize_cache_16, write_16
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.sense import decode_sense
from hwvirt.scsi.status import SenseKey, Status
from hwvirt.scsi.volume import Access
from hwvirt.units import Deadline
from tests.disk.fakekernel import Answer, FakeKernel, Seen

READ = Command(read_16(5, 1), data_in_length=512)
WRITE = Command(write_16(5, 1), (b"w" * 512,))
FLUSH = Command(synchronize_cache_16())
START_STOP_UNIT = Command(bytes.fromhex("1b0000000100"))
MEDIUM_ERROR = bytes.fromhex("f00003000000050a00000000110000000000")
RESET = bytes.fromhex("70000600000000 0a00000000 290000000000")
POWER_ON = bytes.fromhex("70000600000000 0a00000000 290100000000")
NEXUS_LOSS = bytes.fromhex("70000600000000 0a00000000 290700000000")
NEW_FIRMWARE = bytes.fromhex("70000600000000 0a00000000 3f0100000000")
MODE_CHANGED = bytes.fromhex("70000600000000 0a00000000 2a0100000000")

GOOD = Answer(data=b"d" * 512)


def check(sense: bytes) -> Answer:
    return Answer(status=2, sense=sense)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    return FakeKernel(otherwise=lambda seen: GOOD).install(monkeypatch)


@pytest.fixture
def disk(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> Iterator[SgDisk]:
    monkeypatch.setattr(passthrough, "_SHORTEST_PAUSE_S", 0.0001)
    disk = SgDisk("/dev/null", name="ZL2001")
    yield disk
    disk.close()


def execute(disk: SgDisk, command: Command, seconds: float = 5.0) -> Completion:
    return disk.execute(command, Deadline.after(seconds))


def test_clean_command_is_good_and_brings_its_data(disk: SgDisk, kernel: FakeKernel) -> None:
    completion = execute(disk, READ)
    assert (completion.good, bytes(joined(completion.data)), completion.residual) == (True, b"d" * 512, 0)
    assert 0 < kernel.seen[0].timeout_ms <= 5000


def test_residual_comes_out(disk: SgDisk, kernel: FakeKernel) -> None:
    kernel.answers = [Answer(data=b"d" * 512, residual=100)]
    completion = execute(disk, READ)
    assert (completion.residual, len(joined(completion.data))) == (100, 412)


def test_sense_of_the_disk_comes_out_whatever_the_host_status_says(disk: SgDisk, kernel: FakeKernel) -> None:
    kernel.answers = [Answer(status=2, sense=MEDIUM_ERROR, host_status=5, driver_status=8)]
    completion = execute(disk, READ)
    assert (completion.status, completion.sense) == (Status.CHECK_CONDITION, MEDIUM_ERROR)
    assert len(kernel.seen) == 1


@pytest.mark.parametrize("status", [Status.RESERVATION_CONFLICT, Status.TASK_ABORTED, Status.CONDITION_MET])
def test_other_statuses_come_out(disk: SgDisk, kernel: FakeKernel, status: Status) -> None:
    kernel.answers = [Answer(status=status, host_status=0x11 if status is Status.RESERVATION_CONFLICT else 0)]
    assert execute(disk, READ).status is status


@pytest.mark.parametrize(
    "bad",
    [
        Answer(host_status=7),
        Answer(host_status=8),
        Answer(host_status=0x0E),
        Answer(host_status=0x77),
        Answer(driver_status=4),
        Answer(status=2),
        Answer(status=0x7E),
        Answer(error=OSError(errno.EINTR, "interrupted")),
        Answer(error=OSError(errno.EIO, "input/output error")),
    ],
)
def test_undecided_command_is_repeated_once_where_harmless_and_never_where_it_writes(
    disk: SgDisk, kernel: FakeKernel, bad: Answer
) -> None:
    kernel.answers = [bad]
    assert execute(disk, READ).good
    assert len(kernel.seen) == 2
    kernel.answers = [bad, bad]
    with pytest.raises(DiskError, match="it may have been executed or not"):
        execute(disk, READ)
    for command in (WRITE, START_STOP_UNIT):
        kernel.seen.clear()
        kernel.answers = [bad]
        with pytest.raises(DiskError, match="it may have been executed or not"):
            execute(disk, command)
        assert len(kernel.seen) == 1


def test_error_names_disk_command_and_every_status(disk: SgDisk, kernel: FakeKernel) -> None:
    kernel.answers = [Answer(host_status=8, driver_status=6 - 2)]
    with pytest.raises(DiskError) as caught:
        execute(disk, WRITE)
    assert str(caught.value).startswith("ZL2001: WRITE(16)")
    assert str(caught.value).endswith(
        "it may have been executed or not (status 0x00, host status RESET, driver status ERROR, 3 ms)."
    )


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Answer(host_status=3), "there was no answer in time"),
        (Answer(driver_status=6), "there was no answer in time"),
        (Answer(host_status=1), "the disk is gone"),
        (Answer(error=OSError(errno.ENODEV, "no such device")), "the disk is gone"),
        (Answer(error=OSError(errno.ENXIO, "no such device or address")), "the disk is gone"),
    ],
)
def test_late_and_gone_are_told_at_once_and_not_repeated(
    disk: SgDisk, kernel: FakeKernel, bad: Answer, words: str
) -> None:
    kernel.answers = [bad]
    with pytest.raises(DiskError, match=words):
        execute(disk, READ)
    assert len(kernel.seen) == 1


def test_nothing_is_sent_after_the_deadline(disk: SgDisk, kernel: FakeKernel) -> None:
    with pytest.raises(DiskError, match="the deadline had passed"):
        execute(disk, READ, seconds=0.0)
    assert kernel.seen == []


@pytest.mark.parametrize(
    "busy",
    [Answer(status=0x08), Answer(status=0x28), Answer(error=OSError(errno.EDOM, "too many commands"))],
)
def test_busy_disk_is_asked_again_until_the_deadline(disk: SgDisk, kernel: FakeKernel, busy: Answer) -> None:
    kernel.answers = [busy] * 6
    assert execute(disk, WRITE).good
    assert len(kernel.seen) == 7
    kernel.otherwise = lambda seen: busy
    if busy.error is None:
        assert execute(disk, WRITE, seconds=0.3).status == busy.status
    else:
        with pytest.raises(DiskError, match="there was no room for it"):
            execute(disk, WRITE, seconds=0.3)


def test_disk_that_was_busy_to_the_last_was_busy_and_not_late(
    disk: SgDisk, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = time.sleep
    monkeypatch.setattr("hwvirt.disk.passthrough.time.sleep", lambda _: slept(0.6))  # who sleeps is woken late
    kernel.otherwise = lambda seen: Answer(status=0x08)
    assert execute(disk, WRITE, seconds=0.5).status == Status.BUSY
    assert len(kernel.seen) == 1


@pytest.mark.parametrize("attention", [RESET, POWER_ON, NEXUS_LOSS, MODE_CHANGED])
@pytest.mark.parametrize("command", [READ, WRITE, FLUSH])
def test_command_that_met_a_unit_attention_was_not_executed_and_is_repeated(
    disk: SgDisk, kernel: FakeKernel, attention: bytes, command: Command
) -> None:
    kernel.answers = [check(attention)]
    completion = execute(disk, command)
    assert completion.good
    assert [seen.cdb for seen in kernel.seen] == [command.cdb] * 2


@pytest.mark.parametrize("command", [READ, WRITE, FLUSH])
def test_disk_that_has_five_things_to_tell_first_is_heard_out(
    disk: SgDisk, kernel: FakeKernel, command: Command
) -> None:
    kernel.answers = [check(sense) for sense in (POWER_ON, RESET, NEW_FIRMWARE, NEXUS_LOSS, MODE_CHANGED)]
    assert execute(disk, command).good
    assert [seen.cdb for seen in kernel.seen] == [command.cdb] * 6


def test_sixth_unit_attention_in_a_row_comes_out(disk: SgDisk, kernel: FakeKernel) -> None:
    kernel.answers = [*[check(RESET)] * 5, check(MODE_CHANGED), GOOD]
    assert decode_sense(execute(disk, READ).sense).asc == 0x2A
    assert execute(disk, READ).good


def test_unit_attentions_are_not_counted_as_undecided_commands(disk: SgDisk, kernel: FakeKernel) -> None:
    lost = Answer(host_status=7)
    kernel.answers = [check(RESET), lost, check(MODE_CHANGED)]
    assert execute(disk, READ).good
    kernel.answers = [check(RESET), lost, check(MODE_CHANGED), lost]
    with pytest.raises(DiskError, match="it may have been executed or not"):
        execute(disk, READ)


@pytest.mark.parametrize("attention", [RESET, POWER_ON])
@pytest.mark.parametrize("command", [READ, WRITE, FLUSH])
def test_reset_after_an_unflushed_write_fails_the_next_flush_once(
    disk: SgDisk, kernel: FakeKernel, attention: bytes, command: Command
) -> None:
    execute(disk, WRITE)
    kernel.answers = [check(attention)]
    first = execute(disk, command)
    if command is not FLUSH:
        assert first.good
        first = execute(disk, FLUSH)
    assert first.status is Status.CHECK_CONDITION
    assert decode_sense(first.sense) == LOST_WRITES
    assert execute(disk, FLUSH).good


@pytest.mark.parametrize("attention", [NEXUS_LOSS, MODE_CHANGED])
def test_attention_that_is_no_reset_leaves_the_flush_alone(disk: SgDisk, kernel: FakeKernel, attention: bytes) -> None:
    execute(disk, WRITE)
    kernel.answers = [check(attention)]
    execute(disk, READ)
    assert execute(disk, FLUSH).good


def test_reset_after_a_flush_leaves_the_next_flush_alone(disk: SgDisk, kernel: FakeKernel) -> None:
    execute(disk, WRITE)
    execute(disk, FLUSH)
    kernel.answers = [check(RESET)]
    execute(disk, READ)
    assert execute(disk, FLUSH).good


@pytest.mark.parametrize("host_status", [3, 8])
def test_reset_by_the_kernel_s_error_handler_counts_too(disk: SgDisk, kernel: FakeKernel, host_status: int) -> None:
    for before, in_time in ((FLUSH, True), (WRITE, False)):
        execute(disk, before)
        kernel.answers = [Answer(host_status=host_status)]
        with pytest.raises(DiskError):
            execute(disk, WRITE)
        assert execute(disk, FLUSH).good is in_time


def test_reset_told_to_the_first_write_cost_nothing(disk: SgDisk, kernel: FakeKernel) -> None:
    kernel.answers = [check(POWER_ON)]
    assert execute(disk, WRITE).good
    assert execute(disk, FLUSH).good


def test_write_that_began_during_a_flush_is_not_covered_by_it(disk: SgDisk, kernel: FakeKernel) -> None:
    execute(disk, WRITE)

    def write_meanwhile(seen: Seen) -> Answer:
        kernel.otherwise = lambda seen: GOOD
        execute(disk, WRITE)
        return GOOD

    kernel.otherwise = write_meanwhile
    assert execute(disk, FLUSH).good
    kernel.answers = [check(RESET)]
    execute(disk, READ)
    assert not execute(disk, FLUSH).good


def test_read_only_disk_refuses_writes_before_they_are_sent(kernel: FakeKernel) -> None:
    disk = SgDisk("/dev/null", access=Access.READ_ONLY)
    try:
        assert execute(disk, READ).good
        refused = execute(disk, WRITE)
    finally:
        disk.close()
    sense = decode_sense(refused.sense)
    assert (sense.key, sense.asc, sense.ascq) == (SenseKey.DATA_PROTECT, 0x27, 0x00)
    assert [seen.cdb for seen in kernel.seen] == [READ.cdb]


@pytest.mark.parametrize(("said", "expected"), [(0, 128), (64, 64), (4096, 128)])
def test_block_limits_page_never_promises_more_than_the_path_carries(
    disk: SgDisk, kernel: FakeKernel, said: int, expected: int
) -> None:
    page = bytes.fromhex("00b0003c") + bytes(4) + said.to_bytes(4, "big") + bytes(52)
    capacity = (99).to_bytes(8, "big") + (512).to_bytes(4, "big") + bytes(20)
    kernel.answers = [Answer(data=page), Answer(data=capacity)]
    completion = execute(disk, Command(bytes.fromhex("1201b0004000"), data_in_length=64))
    data = bytes(joined(completion.data))
    assert int.from_bytes(data[8:12], "big") == expected
    assert data[:8] + data[12:] == page[:8] + page[12:]


def test_several_commands_are_under_way_at_once(disk: SgDisk, kernel: FakeKernel) -> None:
    together = threading.Barrier(4, timeout=5.0)

    def wait_for_the_others(seen: Seen) -> Answer:
        together.wait()
        return GOOD

    kernel.otherwise = wait_for_the_others
    ends: list[Completion] = []
    threads = [threading.Thread(target=lambda: ends.append(execute(disk, READ))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [end.good for end in ends] == [True] * 4


def test_missing_node_is_refused_with_the_next_step() -> None:
    with pytest.raises(DiskError) as caught:
        SgDisk("/dev/sg-none")
    assert str(caught.value) == (
        "cannot open /dev/sg-none: No such file or directory. "
        "Name a /dev/sgN or /dev/sdX node that exists and that you may open."
    )


def test_close_gives_the_node_back_and_may_be_repeated() -> None:
    before = len(os.listdir("/proc/self/fd"))
    disk = SgDisk("/dev/null")
    disk.close()
    disk.close()
    assert len(os.listdir("/proc/self/fd")) == before
