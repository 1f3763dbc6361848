"""A disk that fails on purpose: by operation code, LBA range and count."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from hwvirt.disk.disk import Disk, Ends, execute_each
from hwvirt.disk.touched import touched
from hwvirt.errors import DiskError
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.sense import Sense, encode_sense
from hwvirt.scsi.status import Status
from hwvirt.scsi.volume import Extent
from hwvirt.units import Deadline

__all__ = ["FOR_EVER", "FaultyDisk", "Moment", "Rule"]

FOR_EVER = 1 << 62
"""As `times` of a rule: it never ends."""


class Moment(Enum):
    """Whether the command that fails was executed."""

    INSTEAD = "the disk does nothing"
    AFTERWARDS = "the disk executes the command, then reports the failure"


@dataclass(frozen=True, slots=True)
class Rule:
    """Of the commands that match, the `nth` (from 1) and the `times` - 1 behind it are answered so.

    `opcodes` empty: any command; `extent` None: any blocks, or none. `answer` is the sense of a CHECK CONDITION (with the
    first matching LBA in INFORMATION when the rule has an extent), another status, the text of a DiskError, or None: only
    the delay. A delay beyond the command's deadline is a DiskError at the deadline, before the disk does anything.
    """

    answer: Sense | Status | str | None
    opcodes: frozenset[int] = frozenset()
    extent: Extent | None = None
    nth: int = 1
    times: int = 1
    delay_s: float = 0.0
    moment: Moment = Moment.INSTEAD


class FaultyDisk:
    """`inner`, except where a rule matches; of several the first counts. Rules may be replaced while it is in use.

    Deterministic: which command fails depends only on the order in which commands arrive.
    """

    def __init__(self, inner: Disk, rules: Sequence[Rule] = ()) -> None:
        self._inner = inner
        self._lock = threading.Lock()
        self._commands = 0
        self._hurry = threading.Event()
        self.set_rules(rules)

    @property
    def name(self) -> str:
        """The inner disk's."""
        return self._inner.name

    @property
    def quick(self) -> bool:
        """The inner disk's, while no rule is left that delays."""
        with self._lock:
            left = any(
                rule.delay_s and matched < rule.nth + rule.times - 1
                for rule, matched in zip(self._rules, self._matched, strict=True)
            )
        return self._inner.quick and not left

    @property
    def commands(self) -> int:
        """Commands that have arrived since the rules were set."""
        return self._commands

    def set_rules(self, rules: Sequence[Rule]) -> None:
        """Forgets the old rules and all counts."""
        with self._lock:
            self._rules = tuple(rules)
            self._matched = [0] * len(self._rules)
            self._struck = [0] * len(self._rules)
            self._commands = 0

    @property
    def struck(self) -> tuple[int, ...]:
        """How many commands each rule has answered or delayed since the rules were set."""
        with self._lock:
            return tuple(self._struck)

    def hurry(self) -> None:
        """Ends all delays, now and from now on."""
        self._hurry.set()

    def execute(self, command: Command, deadline: Deadline) -> Completion:
        """The inner disk's completion, or what the rule says."""
        rule = self._rule_for(command)
        if rule is None:
            return self._inner.execute(command, deadline)
        if rule.delay_s:
            self._hurry.wait(min(rule.delay_s, deadline.remaining))
            if deadline.expired:
                raise DiskError(f"{self.name} did not answer in time.")
        if rule.answer is None:
            return self._inner.execute(command, deadline)
        if rule.moment is Moment.AFTERWARDS:
            self._inner.execute(command, deadline)
        if isinstance(rule.answer, str):
            raise DiskError(f"{self.name}: {rule.answer}")
        if isinstance(rule.answer, Status):
            return Completion(rule.answer, residual=command.data_in_length)
        sense = _located(rule.answer, rule.extent, command)
        return Completion(Status.CHECK_CONDITION, sense=encode_sense(sense), residual=command.data_in_length)

    def execute_batch(self, batch: Sequence[Command], deadline: Deadline) -> Ends:
        """As `execute`, one command after the other."""
        return execute_each(self, batch, deadline)

    def close(self) -> None:
        """Closes the inner disk. Idempotent."""
        self._inner.close()

    def _rule_for(self, command: Command) -> Rule | None:
        with self._lock:
            self._commands += 1
            due = None
            for number, rule in enumerate(self._rules):
                if _matches(rule, command):
                    self._matched[number] += 1
                    if due is None and rule.nth <= self._matched[number] < rule.nth + rule.times:
                        due = rule
                        self._struck[number] += 1
            return due


def _matches(rule: Rule, command: Command) -> bool:
    if rule.opcodes and command.cdb[0] not in rule.opcodes:
        return False
    return rule.extent is None or _first_common(rule.extent, command) is not None


def _first_common(extent: Extent, command: Command) -> int | None:
    """The lowest LBA that is in the extent and in the command's blocks."""
    common = [
        max(extent.lba, lba)
        for lba, blocks in touched(command)
        if max(extent.lba, lba) < min(extent.lba + extent.blocks, lba + blocks)
    ]
    return min(common, default=None)


def _located(sense: Sense, extent: Extent | None, command: Command) -> Sense:
    lba = _first_common(extent, command) if extent is not None else None
    return sense if lba is None else sense.at(lba)
