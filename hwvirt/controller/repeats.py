"""Forwarded commands that come again after a loss of the link, and must not change a medium twice.

A peer that has lost the answer asks again. Meanwhile others may have written to the same blocks: a write that is executed
once more would undo theirs. So what a command that changes the medium was answered is remembered, and told again, until the
peer says that it asks no more. Other commands have nothing to undo, and may return much data: they are executed again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from hwvirt.controller.answers import Answers
from hwvirt.scsi.cdb import medium_changing
from hwvirt.scsi.command import Command, Completion, LogicalUnit

__all__ = ["Repeats", "changes_medium"]


def changes_medium(commands: Sequence[Command]) -> bool:
    """Whether any of them may."""
    return any(medium_changing(command.cdb) for command in commands)


class Repeats:
    """The batches of one life of a peer for one logical unit, each under the peer's number for it."""

    def __init__(self, unit: LogicalUnit) -> None:
        self._unit = unit
        self._answers: Answers[list[Completion]] = Answers()  # of the changing commands

    def settled(self, number: int) -> None:
        """The peer has what it waits for, or waits no more, for all batches up to this number."""
        self._answers.settled(number)

    async def execute(self, number: int, commands: Sequence[Command]) -> list[Completion]:
        """As the unit does it; of a batch that was here before only what changes no medium is executed."""
        if (before := self._answers.get(number)) is not None:
            return await self._again(commands, iter(await asyncio.shield(before)))
        with self._answers.coming(number) as answer:
            completions = await self._unit.execute(commands)
            pairs = zip(commands, completions, strict=True)
            answer.set_result([completion for command, completion in pairs if medium_changing(command.cdb)])
        return completions

    async def _again(self, commands: Sequence[Command], known: Iterator[Completion]) -> list[Completion]:
        others = [command for command in commands if not medium_changing(command.cdb)]
        done = iter(await self._unit.execute(others) if others else ())
        return [next(known if medium_changing(command.cdb) else done) for command in commands]
