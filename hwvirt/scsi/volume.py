"""What a device server asks of the volume behind it: a run of blocks that works in batches of extents."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from hwvirt.buffers import Pieces
from hwvirt.scsi.sense import CheckCondition

__all__ = ["Access", "Durability", "Extent", "Residency", "Volume", "Write"]


class Extent(NamedTuple):
    """`blocks` blocks from `lba`."""

    lba: int
    blocks: int


class Write(NamedTuple):
    """Data for the blocks from `lba`; its length is a whole number of blocks."""

    lba: int
    data: Pieces


class Access(Enum):
    """What hosts may do to a volume."""

    READ_WRITE = "read-write"
    READ_ONLY = "read-only"


class Durability(Enum):
    """What GOOD has to mean for a write."""

    VOLATILE = "volatile"
    DURABLE = "durable"  # FUA: also safe from a power cut


class Residency(Enum):
    """Where the newest version of a block lies."""

    FIRST = "first"
    REDIRECTED = "redirected"
    ZERO = "zero"  # unmapped while redirecting: reads as zeroes, lies nowhere


class Volume(Protocol):
    """Blocks `0 ≤ lba < blocks` of `block_bytes` (512 or 4096).

    A batch answers item by item, in the batch's order: the result, or the CHECK CONDITION that belongs to that item with
    the volume's own LBA in INFORMATION. Extents lie inside the volume: the device server has checked that.
    """

    @property
    def block_bytes(self) -> int:
        """Bytes of a block."""
        ...

    @property
    def blocks(self) -> int:
        """Blocks of the volume."""
        ...

    @property
    def access(self) -> Access:
        """What hosts may do; may change while the volume is in use."""
        ...

    async def read(self, extents: Sequence[Extent]) -> list[Pieces | CheckCondition]:
        """The newest version of every block, each one whole: never torn, never another block's."""
        ...

    async def write(
        self, writes: Sequence[Write], durability: Durability = Durability.VOLATILE
    ) -> list[CheckCondition | None]:
        """Visible to every reader at once. The volume may keep the pieces until its next flush: do not change them."""
        ...

    async def unmap(self, extents: Sequence[Extent]) -> list[CheckCondition | None]:
        """The blocks read as zeroes from now on; their room may be given back."""
        ...

    async def flush(self) -> CheckCondition | None:
        """Everything that completed before is durable when this returns None."""
        ...

    def residency(self, extent: Extent) -> list[tuple[int, Residency]]:
        """Runs of (blocks, where they lie) that cover the extent in order."""
        ...
