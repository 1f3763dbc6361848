"""A pulled disk fails every request at once, with one defined sense, whoever notices first."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hwvirt.disk.discovery.place import Place
from hwvirt.disk.discovery.removable import REMOVED, Presence, RemovableDisk
from hwvirt.disk.disk import BatchDisk, Ends, execute_each
from hwvirt.errors import DiskError
from hwvirt.scsi.cdb import read_16
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.sense import decode_sense
from hwvirt.scsi.status import SenseKey, Status
from hwvirt.units import FOREVER, Deadline

READ = Command(read_16(0, 1), data_in_length=512)
GOOD = Completion(Status.GOOD, (bytes(512),))


class Slot:
    """Where the disk is plugged in."""

    def __init__(self) -> None:
        self.occupied = True
        self.asked = 0

    def look(self) -> bool:
        self.asked += 1
        return self.occupied


class Plain:
    name = "/dev/sg0"
    quick = False

    def __init__(self) -> None:
        self.failing = False
        self.executed = 0
        self.closed = False

    def execute(self, command: Command, deadline: Deadline) -> Completion:
        self.executed += 1
        if self.failing:
            raise DiskError("/dev/sg0: the disk is gone.")
        return GOOD

    def close(self) -> None:
        self.closed = True


class Batching(Plain):
    """Fails every second command of a batch."""

    quick = True

    def execute_batch(self, batch: Sequence[Command], deadline: Deadline) -> Ends:
        ends = execute_each(self, batch, deadline)
        return [DiskError("gone") if self.failing or index % 2 else end for index, end in enumerate(ends)]


def is_removed(end: Completion | DiskError) -> bool:
    assert isinstance(end, Completion)
    if end.status == Status.GOOD:
        return False
    assert (end.status, decode_sense(end.sense), end.residual) == (Status.CHECK_CONDITION, REMOVED, 512)
    return True


def test_sense_says_that_somebody_has_to_do_something() -> None:
    assert (REMOVED.key, REMOVED.asc, REMOVED.ascq) == (SenseKey.NOT_READY, 0x04, 0x03)


def test_present_disk_answers_for_itself_and_is_not_looked_for() -> None:
    slot, inner = Slot(), Plain()
    disk = RemovableDisk(inner, slot.look)
    assert disk.execute(READ, FOREVER) is GOOD
    assert (disk.name, disk.quick, slot.asked) == ("/dev/sg0", False, 0)
    disk.close()
    assert inner.closed


@pytest.mark.parametrize("inner", [Plain(), Batching()])
def test_removed_disk_is_not_asked_any_more(inner: Plain) -> None:
    slot = Slot()
    disk = RemovableDisk(inner, slot.look)
    slot.occupied = False
    assert disk.look() is Presence.REMOVED
    assert is_removed(disk.execute(READ, FOREVER))
    assert [is_removed(end) for end in disk.execute_batch([READ, READ], FOREVER)] == [True, True]
    assert inner.executed == 0


def test_command_under_way_when_the_disk_goes_gets_the_sense() -> None:
    slot, inner = Slot(), Plain()
    disk = RemovableDisk(inner, slot.look)
    inner.failing, slot.occupied = True, False
    assert is_removed(disk.execute(READ, FOREVER))
    assert inner.executed == 1


def test_another_failure_stays_what_it_is() -> None:
    slot, inner = Slot(), Plain()
    disk = RemovableDisk(inner, slot.look)
    inner.failing = True
    with pytest.raises(DiskError, match="gone"):
        disk.execute(READ, FOREVER)
    assert disk.look() is Presence.PRESENT


def test_disk_that_comes_back_stays_removed() -> None:
    slot = Slot()
    disk = RemovableDisk(Plain(), slot.look)
    slot.occupied = False
    disk.look()
    slot.occupied = True
    assert disk.look() is Presence.REMOVED
    assert is_removed(disk.execute(READ, FOREVER))


@pytest.mark.parametrize("inner", [Plain(), Batching()])
def test_batches(inner: Plain) -> None:
    slot = Slot()
    disk: BatchDisk = RemovableDisk(inner, slot.look)
    assert disk.execute_batch([READ], FOREVER) == [GOOD]
    inner.failing, slot.occupied = True, False
    assert [is_removed(end) for end in disk.execute_batch([READ, READ, READ], FOREVER)] == [True] * 3


def test_only_what_failed_in_a_batch_gets_the_sense() -> None:
    slot = Slot()
    disk = RemovableDisk(Batching(), slot.look)
    slot.occupied = False
    assert [is_removed(end) for end in disk.execute_batch([READ] * 4, FOREVER)] == [False, True, False, True]


def test_batch_that_fails_otherwise_is_passed_on() -> None:
    ends = RemovableDisk(Batching(), lambda: True).execute_batch([READ] * 2, FOREVER)
    assert ends[0] is GOOD
    assert isinstance(ends[1], DiskError)


@pytest.mark.parametrize("node", ["/dev/null", "/dev/hwvirt-none"])
def test_node_of_no_scsi_disk_has_no_place(node: str) -> None:
    with pytest.raises(DiskError, match=f"^{node} is no SCSI disk's node: No such file or directory"):
        Place(node)
