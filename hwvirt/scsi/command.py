"""What passes between an initiator and a device server: commands and completions, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from hwvirt.buffers import Pieces
from hwvirt.scsi.status import Status

__all__ = ["Command", "Completion", "LogicalUnit"]


class Command(NamedTuple):
    """One CDB with its Data-Out pieces and the length of the Data-In that the initiator expects, in bytes."""

    cdb: bytes
    data_out: Pieces = ()
    data_in_length: int = 0


class Completion(NamedTuple):
    """How a command ended. GOOD does not mean durable.

    `sense` is raw sense data (SPC-4 4.5), empty unless CHECK CONDITION; `data` is the Data-In; `residual` is the number of
    bytes of the expected transfer that did not happen.
    """

    status: Status
    data: Pieces = ()
    sense: bytes = b""
    residual: int = 0

    @property
    def good(self) -> bool:
        """Whether the device server reported success."""
        return self.status == Status.GOOD


class LogicalUnit(Protocol):
    """Executes batches of commands: the device server of a volume here, or a unit of another controller."""

    async def execute(self, batch: Sequence[Command]) -> list[Completion]:
        """One completion for each command, in the batch's order. Never raises for what a device can answer."""
        ...
