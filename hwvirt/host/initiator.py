"""How a rig plays the host: requests in, answers back through callbacks, many in flight."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, Protocol

from hwvirt.buffers import Pieces

__all__ = ["Answer", "Initiator", "Op"]


class Op(Enum):
    """What a host may ask for. UNMAP gives room back, ZERO makes the blocks read as zeroes; both carry no data."""

    READ = "read"
    WRITE = "write"
    FLUSH = "flush"
    UNMAP = "unmap"
    ZERO = "zero"


class Answer(NamedTuple):
    """How a request ended: `error` is an errno, 0 when it is done; `data` is what a READ returned.

    `in_doubt`: the connection was lost before the answer came; the request may have happened, or not.
    """

    error: int
    in_doubt: bool = False
    data: Pieces = ()


class Initiator(Protocol):
    """One path to one logical unit."""

    @property
    def block_bytes(self) -> int:
        """Bytes of a block, the unit of every request."""
        ...

    @property
    def blocks(self) -> int:
        """Blocks of the logical unit."""
        ...

    @property
    def read_only(self) -> bool:
        """Whether the logical unit refuses writes."""
        ...

    def submit(
        self, op: Op, lba: int, blocks: int, data: Pieces, done: Callable[[Answer], None], *, fua: bool = False
    ) -> None:
        """Sends one request and calls `done` exactly once, later, never from within this call; `done` must not raise.

        Everything submitted in one step of the event loop leaves in one vectored write; the pieces must not change until
        `done`. `data` is empty except for WRITE, where it holds exactly `blocks` blocks. FLUSH ignores `lba` and `blocks`.
        Raises ValueError for a request that cannot be expressed.
        """
        ...

    async def close(self) -> None:
        """Ends the path. Requests without an answer are answered in doubt. Idempotent."""
        ...
