"""What the host sees when a disk below a controller fails: fault, side, host command -> status and sense.

One row a test. Both controllers' storage runs in one guest, on real SCSI disks of its kernel, through SG_IO.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hwvirt.controller.states import State
from hwvirt.disk.discovery.removable import REMOVED
from hwvirt.disk.faulty import FOR_EVER, Moment, Rule
from hwvirt.lab.jobs import Job
from hwvirt.lab.kernel import Kernel
from hwvirt.rig.file.disk_faults import parse_disk_faults
from hwvirt.rig.file.item import compose
from hwvirt.scsi.sense import (
    INTERNAL_TARGET_FAILURE,
    NOT_READY,
    RESET_OCCURRED,
    SPACE_ALLOCATION_FAILED_WRITE_PROTECT,
    UNRECOVERED_READ_ERROR,
    WRITE_ERROR,
    WRITE_PROTECTED,
    Sense,
)
from hwvirt.scsi.status import SenseKey, Status
from hwvirt.scsi.volume import Extent
from hwvirt.units import Deadline
from tests.lab.fault_bench import Event, Row, Side

pytestmark = pytest.mark.lab

FIRST, SECOND = Side.FIRST, Side.SECOND
READ, WRITE, FLUSH = frozenset({0x88}), frozenset({0x8A}), frozenset({0x91})
RECOVERED = Sense(SenseKey.RECOVERED_ERROR, 0x18, 0)
ABORTED = Sense(SenseKey.ABORTED_COMMAND, 0x47, 0x03)
PARAMETERS_CHANGED = Sense(SenseKey.UNIT_ATTENTION, 0x2A, 0x01)
SILENCE = "silent"



def in_a_rig(*faults: str) -> tuple[Rule, ...]:
    """What a rig file says about a tcmu disk, as its device server gets it."""
    return parse_disk_faults(compose(f"[{', '.join(faults)}]", "rig.yaml"), blocks=1024)


UNREADABLE = "medium error, unrecovered read error (3/11/00), information {:#x}"
UNWRITABLE = "medium error, write error (3/0c/00), information {:#x}"
MAY_BE_LOST = "hardware error, write error (4/0c/00)"
NO_ROOM = SPACE_ALLOCATION_FAILED_WRITE_PROTECT
PULLED = str(REMOVED)
NO_ANSWER = "hardware error, logical unit communication failure (4/08/00)"

ROWS = {
    # Medium errors: the host's LBA, whichever disk it is and wherever the block lies there.
    "medium-error-of-the-first-disk-has-the-hosts-lba": Row(
        FIRST, (Rule(UNRECOVERED_READ_ERROR, READ, Extent(40, 1), times=FOR_EVER),),
        ("read 40 1", "read 36 8", "read 41 8", "read 39 1"),
        (UNREADABLE.format(40), UNREADABLE.format(40), "GOOD", "GOOD"),
        before=("write 36 8", "flush"), state=State.OWN,
    ),
    "medium-error-under-a-block-that-was-not-redirected-has-the-hosts-lba": Row(
        FIRST, (Rule(UNRECOVERED_READ_ERROR, READ, Extent(40, 1), times=FOR_EVER),),
        ("read 40 1", "read 32 16", "read 48 8"), (UNREADABLE.format(40), UNREADABLE.format(40), "GOOD"),
        before=("write 32 4",),
    ),
    "medium-error-of-the-second-disk-has-the-hosts-lba": Row(
        SECOND, (Rule(UNRECOVERED_READ_ERROR, READ, Extent(103, 1), times=FOR_EVER),),
        ("read 103 1", "read 100 8", "read 96 16", "read 104 4", "read 100 3"),
        (UNREADABLE.format(103), UNREADABLE.format(103), UNREADABLE.format(103), "GOOD", "GOOD"),
        before=("write 7 3", "write 100 8"),
    ),
    "medium-error-of-the-second-disk-has-the-hosts-lba-with-4-kib-blocks": Row(
        SECOND, (Rule(UNRECOVERED_READ_ERROR, READ, Extent(103, 1), times=FOR_EVER),),
        ("read 103 1", "read 96 16", "read 104 4"), (UNREADABLE.format(103), UNREADABLE.format(103), "GOOD"),
        before=("write 7 3", "write 100 8"), block_bytes=4096,
    ),
    "medium-error-of-the-first-disk-has-the-hosts-lba-with-4-kib-blocks": Row(
        FIRST, (Rule(UNRECOVERED_READ_ERROR, READ, Extent(40, 1), times=FOR_EVER),),
        ("read 36 8", "read 41 8"), (UNREADABLE.format(40), "GOOD"), block_bytes=4096,
    ),
    "medium-error-under-a-redirected-block-does-not-matter": Row(
        FIRST, (Rule(UNRECOVERED_READ_ERROR, READ, Extent(40, 1), times=FOR_EVER),),
        ("read 40 1", "read 36 12"), ("GOOD", "GOOD"), before=("write 40 1",),
    ),
    "write-error-of-the-first-disk-has-the-hosts-lba": Row(
        FIRST, (Rule(WRITE_ERROR, WRITE, Extent(50, 1)),),
        ("write 48 4", "read 48 4", "write 48 4", "read 48 4"), (UNWRITABLE.format(50), "GOOD", "GOOD", "GOOD"),
        state=State.OWN,
    ),
    "write-error-of-the-second-disk-has-the-hosts-lba-and-leaves-the-old-blocks": Row(
        SECOND, (Rule(WRITE_ERROR, WRITE),),
        ("write 48 4", "read 48 4", "write 48 4", "read 48 4"), (UNWRITABLE.format(48), "GOOD", "GOOD", "GOOD"),
        before=("write 48 2",),
    ),
    # Errors that the disk got over.
    "recovered-error-of-the-first-disk-is-success": Row(
        FIRST, (Rule(RECOVERED, READ, moment=Moment.AFTERWARDS), Rule(RECOVERED, WRITE, moment=Moment.AFTERWARDS)),
        ("write 8 8", "read 8 8", "flush"), ("GOOD", "GOOD", "GOOD"), state=State.OWN,
    ),
    "recovered-error-of-the-second-disk-is-success": Row(
        SECOND,
        tuple(Rule(RECOVERED, opcodes, moment=Moment.AFTERWARDS) for opcodes in (READ, WRITE, FLUSH)),
        ("write 8 8", "read 8 8", "flush"), ("GOOD", "GOOD", "GOOD"),
    ),
    # Silence: an answer of ours at the deadline.
    "silence-of-the-first-disk-is-a-failure-at-the-deadline": Row(
        FIRST, (Rule(SILENCE, READ),), ("read 8 8", "read 8 8"), (NO_ANSWER, "GOOD"),
    ),
    "silence-of-the-first-disk-while-writing-is-a-failure-that-may-have-happened": Row(
        FIRST, (Rule(SILENCE, WRITE),), ("write 8 8", "read 8 8", "write 8 8", "read 8 8", "flush"),
        (NO_ANSWER, "GOOD", "GOOD", "GOOD", "GOOD"), state=State.OWN,
    ),
    "silence-of-the-first-disk-while-flushing-fails-the-hosts-flush-and-the-next": Row(  # the kernel may have reset it
        FIRST, (Rule(SILENCE, FLUSH),), ("flush", "read 8 8", "flush", "flush"),
        (NO_ANSWER, "GOOD", MAY_BE_LOST, "GOOD"),
        before=("write 8 8",), state=State.OWN,
    ),
    "silence-of-the-second-disk-while-reading-is-a-failure-at-the-deadline": Row(
        SECOND, (Rule(SILENCE, READ),), ("read 8 8", "read 8 8", "flush"), (NO_ANSWER, "GOOD", "GOOD"),
        before=("write 8 8", "flush"),
    ),
    "silence-of-the-second-disk-while-writing-is-a-failure-that-is-not-read-back": Row(
        SECOND, (Rule(SILENCE, WRITE),), ("write 8 8", "read 8 8", "write 8 8", "read 8 8", "flush"),
        (f"{NO_ANSWER}, information 0x8", "GOOD", "GOOD", "GOOD", "GOOD"),
    ),
    "silence-of-the-second-disk-while-flushing-fails-the-hosts-flush-and-the-next": Row(
        SECOND, (Rule(SILENCE, FLUSH),), ("flush", "read 8 8", "flush", "flush"),
        (NO_ANSWER, "GOOD", MAY_BE_LOST, "GOOD"), before=("write 8 8",),
    ),
    # Statuses without sense, and commands that may be sent again.
    "busy-first-disk-is-asked-again": Row(
        FIRST, (Rule(Status.BUSY, times=3),), ("read 8 8", "write 8 8"), ("GOOD", "GOOD"), state=State.OWN,
    ),
    "full-task-set-of-the-second-disk-is-asked-again": Row(
        SECOND, (Rule(Status.TASK_SET_FULL, times=3),), ("write 8 8", "read 8 8", "flush"), ("GOOD", "GOOD", "GOOD"),
    ),
    "reservation-of-somebody-else-fails-the-write-and-nothing-is-bound": Row(
        SECOND, (Rule(Status.RESERVATION_CONFLICT, WRITE),), ("write 8 8", "read 8 8"),
        (f"{NO_ANSWER}, information 0x8", "GOOD"),
    ),
    # Attentions.
    "attentions-of-the-first-disk-are-not-the-hosts": Row(
        FIRST, (Rule(PARAMETERS_CHANGED, times=5),), ("read 8 8", "flush"), ("GOOD", "GOOD"),
        before=("write 8 8",), state=State.OWN,
    ),
    "attentions-of-the-second-disk-are-not-the-hosts": Row(
        SECOND, (Rule(PARAMETERS_CHANGED, WRITE, times=5),), ("write 8 8", "read 8 8", "flush"), ("GOOD", "GOOD", "GOOD"),
    ),
    "reset-told-by-the-second-disk-fails-the-flush-of-what-was-written-before": Row(
        SECOND, (Rule(RESET_OCCURRED, WRITE),), ("write 8 8", "flush", "flush"), ("GOOD", MAY_BE_LOST, "GOOD"),
        before=("write 30 8",),
    ),
    "reset-told-by-the-second-disk-after-a-flush-costs-nothing": Row(
        SECOND, (Rule(RESET_OCCURRED, WRITE),), ("write 8 8", "flush"), ("GOOD", "GOOD"),
        before=("write 30 8", "flush"),
    ),
    "reset-of-the-first-disk-fails-the-flush-of-what-was-written-before": Row(
        FIRST, Event.RESET, ("read 8 8", "flush", "flush"), ("GOOD", MAY_BE_LOST, "GOOD"),
        before=("write 8 8",), state=State.OWN,
    ),
    "reset-of-the-second-disk-fails-the-flush-of-what-was-written-before": Row(
        SECOND, Event.RESET, ("read 8 8", "flush", "flush"), ("GOOD", MAY_BE_LOST, "GOOD"), before=("write 8 8",),
    ),
    # Disks that say no.
    "first-disk-not-ready-is-told": Row(
        FIRST, (Rule(NOT_READY),), ("read 8 8", "read 8 8"), (str(NOT_READY), "GOOD"),
    ),
    "second-disk-not-ready-is-told": Row(
        SECOND, (Rule(NOT_READY, WRITE), Rule(NOT_READY, READ)),
        ("write 8 8", "read 8 8", "write 8 8", "read 8 8", "read 8 8"),
        (f"{NOT_READY}, information 0x8", "GOOD", "GOOD", str(NOT_READY), "GOOD"),
    ),
    "first-disk-write-protected-is-told": Row(
        FIRST, (Rule(WRITE_PROTECTED, WRITE),), ("write 8 8", "read 8 8"), (str(WRITE_PROTECTED), "GOOD"),
        state=State.OWN,
    ),
    "first-disk-write-protected-does-not-matter-while-redirecting": Row(
        FIRST, (Rule(WRITE_PROTECTED, WRITE, times=FOR_EVER),), ("write 8 8", "read 8 8", "flush"),
        ("GOOD", "GOOD", "GOOD"),
    ),
    "second-disk-write-protected-is-told": Row(
        SECOND, (Rule(WRITE_PROTECTED, WRITE),), ("write 8 8", "read 8 8"),
        (f"{WRITE_PROTECTED}, information 0x8", "GOOD"),
    ),
    "hardware-error-in-the-first-disks-flush-fails-the-hosts-flush": Row(
        FIRST, (Rule(INTERNAL_TARGET_FAILURE, FLUSH),), ("flush", "flush"), (str(INTERNAL_TARGET_FAILURE), "GOOD"),
        before=("write 8 8",), state=State.OWN,
    ),
    "hardware-error-in-the-second-disks-flush-fails-the-hosts-flush": Row(
        SECOND, (Rule(INTERNAL_TARGET_FAILURE, FLUSH),), ("flush", "read 8 8", "flush"),
        (str(INTERNAL_TARGET_FAILURE), "GOOD", "GOOD"), before=("write 8 8",),
    ),
    # Aborted commands are told as such: whether to send one again is the host's decision, and it works then.
    "read-that-the-first-disk-aborted-may-be-sent-again": Row(
        FIRST, (Rule(ABORTED, READ),), ("read 8 8", "read 8 8"), (str(ABORTED), "GOOD"),
    ),
    "write-that-the-first-disk-aborted-may-be-sent-again": Row(
        FIRST, (Rule(ABORTED, WRITE),), ("write 8 8", "read 8 8", "write 8 8", "read 8 8"),
        (str(ABORTED), "GOOD", "GOOD", "GOOD"), state=State.OWN,
    ),
    "read-that-the-second-disk-aborted-may-be-sent-again": Row(
        SECOND, (Rule(ABORTED, READ),), ("read 8 8", "read 8 8"), (str(ABORTED), "GOOD"), before=("write 8 8",),
    ),
    "write-that-the-second-disk-aborted-is-not-bound-and-may-be-sent-again": Row(
        SECOND, (Rule(ABORTED, WRITE),), ("write 8 8", "read 8 8", "write 8 8", "read 8 8"),
        (f"{ABORTED}, information 0x8", "GOOD", "GOOD", "GOOD"),
    ),
    "flush-that-the-second-disk-aborted-fails-the-hosts-flush": Row(
        SECOND, (Rule(ABORTED, FLUSH),), ("flush", "flush"), (str(ABORTED), "GOOD"), before=("write 8 8",),
    ),
    # Faults as a rig file says them.
    "reset-of-a-rig-file-told-by-the-second-disk-fails-the-flush-of-what-was-written-before": Row(
        SECOND, in_a_rig("{on: write, sense: 6/29/00}"), ("write 8 8", "flush", "flush"), ("GOOD", MAY_BE_LOST, "GOOD"),
        before=("write 30 8",),
    ),
    "attention-of-a-rig-file-after-a-delay-is-not-the-hosts": Row(
        SECOND, in_a_rig("{on: [write, 0x91], sense: 6/2a/01, delay: 20ms}"), ("write 8 8", "read 8 8", "flush"),
        ("GOOD", "GOOD", "GOOD"),
    ),
    "delay-of-a-rig-file-beyond-the-deadline-is-a-failure": Row(
        FIRST, in_a_rig("{on: read, delay: 1h}"), ("read 8 8", "read 8 8"), (NO_ANSWER, "GOOD"),
    ),
    "delay-of-a-rig-file-within-the-deadline-is-borne": Row(
        FIRST, in_a_rig("{on: read, delay: 20ms, times: 2}"), ("read 8 8", "read 8 8"), ("GOOD", "GOOD"),
    ),
    "status-of-a-rig-file-fails-the-command-that-it-names": Row(
        FIRST, in_a_rig("{on: 0x88, answer: aca-active}", "{on: 0x8a, answer: condition-met}"),
        ("read 8 8", "read 8 8", "write 8 8", "write 8 8"), (NO_ANSWER, "GOOD", NO_ANSWER, "GOOD"), state=State.OWN,
    ),
    # Room given back.
    "unmapped-blocks-of-a-thin-first-disk-read-zero": Row(
        FIRST, Event.NOTHING, ("unmap 8 4", "read 4 16", "flush"), ("GOOD", "GOOD", "GOOD"),
        before=("write 4 12",), state=State.OWN,
    ),
    "unmapped-blocks-of-a-thin-disk-with-4-kib-blocks-read-zero": Row(
        FIRST, (), ("unmap 8 4", "read 4 16", "flush"), ("GOOD", "GOOD", "GOOD"),
        before=("write 4 12",), state=State.OWN, block_bytes=4096,
    ),
    "thin-first-disk-without-room-is-told": Row(
        FIRST, (Rule(NO_ROOM, WRITE),), ("write 8 8", "read 8 8", "flush"),
        (str(NO_ROOM), "GOOD", "GOOD"), state=State.OWN,
    ),
    "thin-second-disk-without-room-is-told-and-nothing-acknowledged-is-lost": Row(
        SECOND, (Rule(NO_ROOM, WRITE, times=FOR_EVER),),
        ("write 8 8", "write 32 4", "read 8 8", "read 30 8", "flush"),
        (f"{NO_ROOM}, information 0x8", f"{NO_ROOM}, information 0x20",
         "GOOD", "GOOD", "GOOD"),
        before=("write 30 8",),
    ),
    "unmapped-redirected-blocks-read-zero": Row(
        SECOND, Event.NOTHING, ("unmap 8 4", "read 4 16", "flush"), ("GOOD", "GOOD", "GOOD"), before=("write 4 12",),
    ),
    # Pulled disks.
    "pulled-first-disk-fails-and-redirected-blocks-stay-readable": Row(
        FIRST, Event.REMOVAL, ("read 8 8", "read 30 8", "write 8 8", "read 8 8", "flush"),
        (PULLED, "GOOD", "GOOD", "GOOD", "GOOD"), before=("write 30 8",),
    ),
    "pulled-first-disk-fails-writes-and-flushes-without-redirection": Row(
        FIRST, Event.REMOVAL, ("write 8 8", "read 8 8", "flush"), (f"{PULLED}", PULLED, PULLED),
        before=("write 30 8",), state=State.OWN,
    ),
    "pulled-second-disk-fails-and-blocks-that-were-not-redirected-stay-readable": Row(
        SECOND, Event.REMOVAL, ("read 30 8", "read 8 8", "write 8 8", "flush"),
        (PULLED, "GOOD", f"{PULLED}, information 0x8", PULLED), before=("write 30 8",),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def bench(kernel: Kernel) -> Iterator[Job]:
    """The program that plays rows."""
    job = kernel.start([sys.executable, str(Path(__file__).parent / "fault_bench.py")])
    yield job
    kernel.signal(job, "KILL")


@pytest.mark.parametrize("row", [pytest.param(row, id=claim) for claim, row in ROWS.items()])
def test_host_sees(bench: Job, kernel: Kernel, row: Row) -> None:
    bench.send(msgspec.json.encode(row) + b"\n", Deadline.after(10))
    line = bench.line(Deadline.after(60))
    assert line is not None, kernel.console.read_text()[-2000:]
    assert tuple(msgspec.json.decode(line, type=list[str])) == row.sees
