"""The `faults:` of a tcmu disk: which commands it fails or delays, how, and how often."""

from __future__ import annotations

import re
from enum import Enum

from hwvirt.disk.faulty import Moment, Rule
from hwvirt.disk.touched import names_blocks
from hwvirt.rig.file.item import Item
from hwvirt.scsi import opcodes
from hwvirt.scsi.sense import INTERNAL_TARGET_FAILURE, NOT_READY, UNRECOVERED_READ_ERROR, WRITE_ERROR, Sense
from hwvirt.scsi.status import SenseKey, Status
from hwvirt.scsi.volume import Extent

__all__ = ["Answer", "On", "parse_disk_faults"]

_MOST = 1_000_000_000
_RANGE = re.compile(r"([0-9]{1,30})(?:\.\.([0-9]{1,30}))?")
_OPCODE = re.compile(r"0x[0-9a-fA-F]{1,2}")
_SENSE = re.compile(r"([0-9abdefABDEF])/([0-9a-fA-F]{2})/([0-9a-fA-F]{2})")  # key Ch is reserved, SPC-4 table 48


class On(Enum):
    """The commands that a fault is about, where it does not name them by operation code."""

    READ = "read"
    WRITE = "write"
    FLUSH = "flush"
    ANY = "any"  # of these


class Answer(Enum):
    """What the disk does instead of what it was asked for; the statuses are those of SAM-5 table 31."""

    MEDIUM_ERROR = "medium-error"
    HARDWARE_ERROR = "hardware-error"
    NOT_READY = "not-ready"
    ABORTED = "aborted"
    RECOVERED = "recovered"
    SILENCE = "silence"
    GOOD = "good"
    CONDITION_MET = "condition-met"
    BUSY = "busy"
    RESERVATION_CONFLICT = "reservation-conflict"
    TASK_SET_FULL = "task-set-full"
    ACA_ACTIVE = "aca-active"
    TASK_ABORTED = "task-aborted"


_ROWS = {
    On.READ: (opcodes.READ_6, opcodes.READ_10, opcodes.READ_12, opcodes.READ_16),
    On.WRITE: (
        *(opcodes.WRITE_6, opcodes.WRITE_10, opcodes.WRITE_12, opcodes.WRITE_16),
        *(opcodes.WRITE_SAME_10, opcodes.WRITE_SAME_16, opcodes.COMPARE_AND_WRITE, opcodes.UNMAP),
    ),
    On.FLUSH: (opcodes.SYNCHRONIZE_CACHE_10, opcodes.SYNCHRONIZE_CACHE_16),
}
_OPCODES = {on: frozenset(row.opcode for row in rows) for on, rows in _ROWS.items()}
_OPCODES[On.ANY] = frozenset[int]().union(*_OPCODES.values())
_OF_THE_KERNEL = (0xA0, 0x5E, 0x5F, 0x16, 0x17, 0x56, 0x57)
"""REPORT LUNS and all about reservations: target_core_user is never asked (drivers/target/target_core_device.c)."""

_ANSWERS: dict[Answer, Sense | Status | str] = {
    Answer.HARDWARE_ERROR: INTERNAL_TARGET_FAILURE,
    Answer.NOT_READY: NOT_READY,
    Answer.ABORTED: Sense(SenseKey.ABORTED_COMMAND, 0x47, 0x03),  # information unit CRC error, SPC-4 annex E
    Answer.RECOVERED: Sense(SenseKey.RECOVERED_ERROR, 0x18, 0x00),  # data recovered with error correction
    Answer.SILENCE: "silent, as the rig file says",
    **{answer: Status[answer.name] for answer in Answer if answer.name in Status.__members__},
}


def parse_disk_faults(item: Item, blocks: int) -> tuple[Rule, ...]:
    """The rules of a disk of `blocks` blocks; of several that match a command the first counts."""
    return tuple(_parse_fault(member, blocks) for member in item.items())


def _parse_fault(item: Item, blocks: int) -> Rule:
    found = item.fields(("on",), ("answer", "sense", "delay", "lba", "after", "times"))
    codes = _opcodes(found["on"])
    answer = _answer(item, found, codes)
    if "lba" in found:
        _check_names_blocks(found["lba"], codes)
    told = isinstance(answer, Sense) and answer.key is SenseKey.RECOVERED_ERROR
    return Rule(
        answer=answer,
        opcodes=codes,
        extent=_extent(found["lba"], blocks) if "lba" in found else None,
        nth=1 + (found["after"].integer(0, _MOST) if "after" in found else 0),
        times=found["times"].integer(1, _MOST) if "times" in found else 1,
        delay_s=_delay_s(found["delay"]) if "delay" in found else 0.0,
        moment=Moment.AFTERWARDS if told else Moment.INSTEAD,
    )


def _opcodes(item: Item) -> frozenset[int]:
    members = item.items() if item.is_list else [item]
    if not members:
        raise item.error("names no command", "Write a word like `read`, an operation code like 0x9e, or a list of them.")
    return frozenset[int]().union(*map(_some_opcodes, members))


def _some_opcodes(item: Item) -> frozenset[int]:
    text = item.text()
    if not text[0].isdigit():
        return _OPCODES[item.word(On)]
    if not _OPCODE.fullmatch(text):
        raise item.error(f"{text!r} is no operation code; write it like 0x9e")
    opcode = int(text, 16)
    if opcode in _OF_THE_KERNEL:
        raise item.error(f"the kernel's target answers {opcode:#04x} itself, no disk behind it ever meets one")
    return frozenset({opcode})


def _answer(item: Item, found: dict[str, Item], codes: frozenset[int]) -> Sense | Status | str | None:
    if "answer" in found and "sense" in found:
        raise item.error("has an answer and a sense", "A sense is an answer: leave out one of them.")
    if "sense" in found:
        return _sense(found["sense"])
    if "answer" not in found:
        if "delay" not in found:
            raise item.error("does nothing", "Give it an `answer`, a `sense` or a `delay`.")
        return None
    if found["answer"].is_scalar and found["answer"].text() == "check-condition":
        raise found["answer"].error("a check condition comes with its sense", "Write `sense: 6/29/00` instead of an answer.")
    answer = found["answer"].word(Answer)
    if answer is Answer.MEDIUM_ERROR:
        return WRITE_ERROR if codes & (_OPCODES[On.WRITE] | _OPCODES[On.FLUSH]) else UNRECOVERED_READ_ERROR
    return _ANSWERS[answer]


def _sense(item: Item) -> Sense:
    match = _SENSE.fullmatch(item.text())
    if match is None:
        raise item.error(f"{item.text()!r} is no sense; write it like 6/29/00: sense key, asc and ascq, hexadecimal")
    key, asc, ascq = (int(digits, 16) for digits in match.groups())
    return Sense(SenseKey(key), asc, ascq)


def _delay_s(item: Item) -> float:
    delay_s = item.duration()
    if not delay_s:
        raise item.error("must be more than nothing")
    return delay_s


def _check_names_blocks(item: Item, codes: frozenset[int]) -> None:
    """Commands that are named by more than `any` must be able to match."""
    if codes == _OPCODES[On.ANY]:
        return
    if codes & _OPCODES[On.FLUSH]:
        raise item.error("a flush is of the whole disk, it has no LBA")
    for code in sorted(codes):
        if not names_blocks(code):
            raise item.error(f"a command {code:#04x} names no blocks, it has no LBA")


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
