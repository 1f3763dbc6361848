"""The `faults:` of a tcmu disk: which commands it fails, how, and how often."""

from __future__ import annotations

import re
from enum import Enum

from hwvirt.disk.faulty import Moment, Rule
from hwvirt.rig.file.item import Item
from hwvirt.scsi import opcodes
from hwvirt.scsi.sense import INTERNAL_TARGET_FAILURE, NOT_READY, UNRECOVERED_READ_ERROR, WRITE_ERROR, Sense
from hwvirt.scsi.status import SenseKey, Status
from hwvirt.scsi.volume import Extent

__all__ = ["parse_disk_faults"]

_MOST = 1_000_000_000
_RANGE = re.compile(r"([0-9]{1,30})(?:\.\.([0-9]{1,30}))?")


class _On(Enum):
    """The commands that a fault is about."""

    READ = "read"
    WRITE = "write"
    FLUSH = "flush"
    ANY = "any"  # of these


class _Answer(Enum):
    """What the disk does instead of what it was asked for."""

    MEDIUM_ERROR = "medium-error"
    HARDWARE_ERROR = "hardware-error"
    NOT_READY = "not-ready"
    BUSY = "busy"
    ABORTED = "aborted"
    RECOVERED = "recovered"
    SILENCE = "silence"


_ROWS = {
    _On.READ: (opcodes.READ_6, opcodes.READ_10, opcodes.READ_12, opcodes.READ_16),
    _On.WRITE: (
        *(opcodes.WRITE_6, opcodes.WRITE_10, opcodes.WRITE_12, opcodes.WRITE_16),
        *(opcodes.WRITE_SAME_10, opcodes.WRITE_SAME_16, opcodes.COMPARE_AND_WRITE, opcodes.UNMAP),
    ),
    _On.FLUSH: (opcodes.SYNCHRONIZE_CACHE_10, opcodes.SYNCHRONIZE_CACHE_16),
}
_ANSWERS: dict[_Answer, Sense | Status | str] = {
    _Answer.HARDWARE_ERROR: INTERNAL_TARGET_FAILURE,
    _Answer.NOT_READY: NOT_READY,
    _Answer.BUSY: Status.BUSY,
    _Answer.ABORTED: Sense(SenseKey.ABORTED_COMMAND, 0x47, 0x03),  # information unit CRC error, SPC-4 annex E
    _Answer.RECOVERED: Sense(SenseKey.RECOVERED_ERROR, 0x18, 0x00),  # data recovered with error correction
    _Answer.SILENCE: "silent, as the rig file says",
}


def parse_disk_faults(item: Item, blocks: int) -> tuple[Rule, ...]:
    """The rules of a disk of `blocks` blocks; of several that match a command the first counts."""
    return tuple(_parse_fault(member, blocks) for member in item.items())


def _parse_fault(item: Item, blocks: int) -> Rule:
    found = item.fields(("on", "answer"), ("lba", "after", "times"))
    on, answer = found["on"].word(_On), found["answer"].word(_Answer)
    if on is _On.FLUSH and "lba" in found:
        raise found["lba"].error("a flush is of the whole disk, it has no LBA")
    return Rule(
        answer=(UNRECOVERED_READ_ERROR if on is _On.READ else WRITE_ERROR)
        if answer is _Answer.MEDIUM_ERROR
        else _ANSWERS[answer],
        opcodes=frozenset(row.opcode for kind, rows in _ROWS.items() if on in (kind, _On.ANY) for row in rows),
        extent=_extent(found["lba"], blocks) if "lba" in found else None,
        nth=1 + (found["after"].integer(0, _MOST) if "after" in found else 0),
        times=found["times"].integer(1, _MOST) if "times" in found else 1,
        moment=Moment.AFTERWARDS if answer is _Answer.RECOVERED else Moment.INSTEAD,
    )


def _extent(item: Item, blocks: int) -> Extent:
    match = _RANGE.fullmatch(item.text())
    if match is None:
        raise item.error(f"{item.text()!r} is no range of LBAs; write it like 100 or 100..107")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise item.error(f"{first}..{last} is no range; the second number is not smaller than the first")
    if last >= blocks:
        raise item.error(f"LBA {last} does not exist; the last one of the disk is {blocks - 1}")
    return Extent(first, last - first + 1)
