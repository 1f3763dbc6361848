"""What two controllers say to each other. Each may ask, and answers what it is asked.

All counts are blocks of the attached volume, all addresses are block addresses. Message data must not be changed once it is
handed over; received data lies where it was received. How a message lies on the wire is in `codec`.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from hwvirt.buffers import Pieces
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.sense import Sense

__all__ = [
    "Attach",
    "Attached",
    "Busy",
    "Bye",
    "Control",
    "Done",
    "Drop",
    "Execute",
    "Executed",
    "Failure",
    "Farewell",
    "Flush",
    "Flushed",
    "Free",
    "Hello",
    "LedgerPage",
    "Message",
    "Ping",
    "Placement",
    "Pong",
    "Proof",
    "Query",
    "Read",
    "ReadData",
    "Refused",
    "Reply",
    "Request",
    "Slice",
    "Unmap",
    "Write",
    "Written",
]


class Placement(NamedTuple):
    """A run of positions: `blocks` blocks from `lba` on the second volume, all of one generation."""

    lba: int
    generation: int
    blocks: int


class Slice(NamedTuple):
    """A run of blocks on the first volume that one write changed; all have its sequence number."""

    lba: int
    blocks: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A placement that could not be read: its index in the request, and why; INFORMATION is an LBA of the second volume."""

    index: int
    sense: Sense


# Requests


@dataclass(frozen=True, slots=True)
class Attach:
    """Makes the store ready for a volume of `blocks` blocks. Answered by Attached.

    `durable_sequence`: the newest sequence in the sender's durable map. A ledger that ends before it is not the one that
    the map belongs to, or has been lost: it refuses.
    """

    volume: int
    blocks: int
    block_bytes: int
    durable_sequence: int


@dataclass(frozen=True, slots=True)
class Write:
    """Stores new blocks where the store likes. Answered by Written.

    `data` and `digests` (one CRC-32C for each block) follow the slices in order. `settled_sequence`: every write up to it
    has ended at the sender, so nothing at or below it will be sent again.
    """

    volume: int
    settled_sequence: int
    slices: Sequence[Slice]
    data: Pieces
    digests: array[int]


@dataclass(frozen=True, slots=True)
class Read:
    """Asks for the blocks at these positions. Answered by ReadData."""

    volume: int
    placements: Sequence[Placement]


@dataclass(frozen=True, slots=True)
class Unmap:
    """These blocks of the first volume read as zeroes from their sequence on. Answered by Done."""

    volume: int
    slices: Sequence[Slice]


@dataclass(frozen=True, slots=True)
class Flush:
    """Everything that was answered before becomes durable. Answered by Flushed."""

    volume: int


@dataclass(frozen=True, slots=True)
class Free:
    """Positions that the volume's durable map names no more. Answered by Done."""

    volume: int
    placements: Sequence[Placement]


@dataclass(frozen=True, slots=True)
class Query:
    """At most `limit` rows of the ledger that follow position `after`; None: from the start. Answered by LedgerPage."""

    volume: int
    after: int | None
    limit: int


@dataclass(frozen=True, slots=True)
class Drop:
    """Forgets what the volume has stored for this run of its blocks, durably. Answered by Done."""

    volume: int
    lba: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Execute:
    """Whole CDBs for logical unit `lun` of the other controller. Answered by Executed.

    `number`: those of the sender's requests that may change the medium count up from 1, for each unit; all up to `settled`
    have ended at the sender, so none of them will be sent again. 0: nothing changes, and it may be executed twice.
    """

    lun: int
    commands: Sequence[Command]
    number: int = 0
    settled: int = 0


# Replies


@dataclass(frozen=True, slots=True)
class Attached:
    """The store is ready; `last_sequence` is the highest one that its ledger holds for the volume."""

    store_epoch: int
    capacity: int
    last_sequence: int


@dataclass(frozen=True, slots=True)
class Written:
    """Where the blocks are: the placements cover the blocks of the request in order."""

    store_epoch: int
    placements: Sequence[Placement]


@dataclass(frozen=True, slots=True)
class ReadData:
    """The blocks in the order asked, without those of the placements that failed; one digest for each block.

    The digests must be those of this data: a store that finds a block unlike its ledger reports a Failure.
    """

    data: Pieces
    digests: array[int]
    failures: Sequence[Failure] = ()


@dataclass(frozen=True, slots=True)
class Flushed:
    """All that was answered in this store epoch is durable."""

    store_epoch: int


@dataclass(frozen=True, slots=True)
class LedgerPage:
    """Ledger rows as the ledger packs them; `next` continues a query as its `after`, None: these were the last."""

    rows: Pieces
    next: int | None


@dataclass(frozen=True, slots=True)
class Executed:
    """One completion for each command, in order."""

    completions: Sequence[Completion]


@dataclass(frozen=True, slots=True)
class Done:
    """It is done and there is nothing more to say."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing of the request was done. `index` is the slice or placement to blame, None: the request as a whole."""

    sense: Sense
    index: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Busy:
    """Nothing of the request was done; asking again later will help."""


# The session's own


@dataclass(frozen=True, slots=True)
class Hello:
    """The first frame of each side: who speaks, and how much it takes. Needs no proof, so nothing in it is trusted."""

    name: str
    boot_epoch: int
    nonce: bytes
    credit_requests: int
    credit_bytes: int
    frame_bytes: int


@dataclass(frozen=True, slots=True)
class Proof:
    """Shows that the sender knows the secret: an HMAC over both hellos."""

    mac: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """Shows that the sender is alive; answered by a Pong with the same stamp, which is the sender's time in microseconds."""

    stamp: int


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a Ping."""

    stamp: int


class Farewell(IntEnum):
    """Why one side ends the session."""

    CLOSING = 1
    BROKEN = 2
    WRONG_SECRET = 3
    SAME_NAME = 4
    OTHER_PEER = 5


@dataclass(frozen=True, slots=True)
class Bye:
    """The sender ends the session."""

    why: Farewell


Request: TypeAlias = Attach | Write | Read | Unmap | Flush | Free | Query | Drop | Execute
Reply: TypeAlias = Attached | Written | ReadData | Flushed | LedgerPage | Executed | Done | Refused | Busy
Control: TypeAlias = Hello | Proof | Ping | Pong | Bye
Message: TypeAlias = Request | Reply | Control
