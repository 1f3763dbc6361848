"""Logical units of the other controller: whole CDBs go there and their completions come back."""

from __future__ import annotations

from collections.abc import Sequence

from hwvirt.controller.link_store import Asker
from hwvirt.link.messages import Execute, Executed, Refused
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.sense import INTERNAL_TARGET_FAILURE, CheckCondition, encode_fixed
from hwvirt.scsi.status import Status

__all__ = ["ForwardUnit"]


class ForwardUnit:
    """A `LogicalUnit` that lies behind the link. It looks into no CDB."""

    def __init__(self, asker: Asker, remote_lun: int) -> None:
        self._asker = asker
        self._remote_lun = remote_lun

    async def execute(self, batch: Sequence[Command]) -> list[Completion]:
        """See `LogicalUnit.execute`. Without a link: CHECK CONDITION, COMMUNICATION TIMEOUT after the stall time."""
        try:
            reply = await self._asker.ask(Execute(self._remote_lun, batch))
        except CheckCondition as error:
            return [_failed(error)] * len(batch)
        if isinstance(reply, Executed) and len(reply.completions) == len(batch):
            return list(reply.completions)
        sense = reply.sense if isinstance(reply, Refused) else INTERNAL_TARGET_FAILURE
        return [_failed(CheckCondition(sense))] * len(batch)


def _failed(error: CheckCondition) -> Completion:
    return Completion(Status.CHECK_CONDITION, (), encode_fixed(error.sense))
