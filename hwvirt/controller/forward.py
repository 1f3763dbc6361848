"""Logical units of the other controller: whole CDBs go there and their completions come back."""

from __future__ import annotations

from collections.abc import Sequence

from hwvirt.controller.link_store import Asker
from hwvirt.controller.repeats import changes_medium
from hwvirt.link.messages import Execute, Executed, Refused, Reply
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.sense import INTERNAL_TARGET_FAILURE, CheckCondition, encode_fixed
from hwvirt.scsi.status import Status

__all__ = ["ForwardUnit"]


class ForwardUnit:
    """A `LogicalUnit` that lies behind the link. It looks into no CDB."""

    def __init__(self, asker: Asker, remote_lun: int) -> None:
        self._asker = asker
        self._remote_lun = remote_lun
        self._number = 0
        self._open: dict[int, None] = {}  # numbers of those that wait, in order

    async def execute(self, batch: Sequence[Command]) -> list[Completion]:
        """See `LogicalUnit.execute`. Without a link: CHECK CONDITION, COMMUNICATION TIMEOUT after the stall time."""
        try:
            reply = await self._ask(batch)
        except CheckCondition as error:
            return [_failed(error)] * len(batch)
        if isinstance(reply, Executed) and len(reply.completions) == len(batch):
            return list(reply.completions)
        sense = reply.sense if isinstance(reply, Refused) else INTERNAL_TARGET_FAILURE
        return [_failed(CheckCondition(sense))] * len(batch)

    async def _ask(self, batch: Sequence[Command]) -> Reply:
        if not changes_medium(batch):
            return await self._asker.ask(Execute(self._remote_lun, batch))
        self._number += 1
        number = self._number
        self._open[number] = None
        try:
            return await self._asker.ask(Execute(self._remote_lun, batch, number, next(iter(self._open)) - 1))
        finally:
            del self._open[number]


def _failed(error: CheckCondition) -> Completion:
    return Completion(Status.CHECK_CONDITION, (), encode_fixed(error.sense))
