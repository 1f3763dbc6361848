"""One table of messages: every kind, with empty, typical and extreme fields. It drives encoders and decoders alike."""

from __future__ import annotations

import random
from array import array

from hwvirt.digest import block_digests
from hwvirt.link import messages as m
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.sense import Sense
from hwvirt.scsi.status import SenseKey, Status

__all__ = ["BLOCKS", "MESSAGES", "REPLIES", "REQUESTS", "write_of"]

_U32, _U64 = 2**32 - 1, 2**64 - 1
_bytes = random.Random(42).randbytes

BLOCKS = _bytes(5 * 512)
MEDIUM_ERROR = Sense(SenseKey.MEDIUM_ERROR, 0x11, 0x00, information=77)


def write_of(data: bytes, block_bytes: int = 512, *, lba: int = 0, sequence: int = 1) -> m.Write:
    """A Write of one slice."""
    slices = [m.Slice(lba, len(data) // block_bytes, sequence)]
    return m.Write(0, 0, slices, (data,), block_digests((data,), block_bytes))


_CONTROLS: list[m.Control] = [
    m.Hello("a", 1, bytes(range(32)), 256, 1 << 26, 1 << 23),
    m.Hello("Ω" * 64, _U64, _bytes(32), _U32, _U64, _U32),
    m.Proof(_bytes(32)),
    m.Ping(12345),
    m.Pong(_U64),
    *(m.Bye(why) for why in m.Farewell),
]
REQUESTS: list[m.Request] = [
    m.Attach(7, 16384, 4096, 99),
    write_of(BLOCKS),
    m.Write(
        _U32,
        _U64,
        [m.Slice(3, 2, 8), m.Slice(_U64, 3, _U64)],
        (BLOCKS[:100], memoryview(BLOCKS)[100:1024], bytearray(BLOCKS[1024:])),
        block_digests((BLOCKS,), 512),
    ),
    m.Read(7, [m.Placement(0, 1, 1), m.Placement(_U64, _U32, _U32)]),
    m.Unmap(7, [m.Slice(10, _U32, 9)]),
    m.Flush(7),
    m.Free(7, [m.Placement(n, n + 1, n + 2) for n in range(100)]),
    m.Query(7, None, 4096),
    m.Query(7, 0, 1),
    m.Drop(7, 5, _U64),
    m.Execute(2, [Command(bytes(6)), Command(bytes(16), (BLOCKS[:512], BLOCKS[512:1024])), Command(b"\x88" * 16, (), _U32)]),
    m.Execute(2, [Command(bytes(6))], _U64, _U64 - 1),
]
REPLIES: list[m.Reply] = [
    m.Attached(_U64, 1 << 40, 12),
    m.Written(1, [m.Placement(4, 2, 5)]),
    m.ReadData((BLOCKS,), block_digests((BLOCKS,), 512)),
    m.ReadData((BLOCKS[:512],), block_digests((BLOCKS[:512],), 512), (m.Failure(1, MEDIUM_ERROR),)),
    m.ReadData((), array("I"), (m.Failure(0, MEDIUM_ERROR), m.Failure(1, Sense(SenseKey.ABORTED_COMMAND, 0x80, 1)))),
    m.Flushed(99),
    m.LedgerPage((b"\x05" * 200,), 123),
    m.LedgerPage((), None),
    m.Executed(
        [
            Completion(Status.GOOD, (BLOCKS[:300],), residual=4),
            Completion(Status.CHECK_CONDITION, (), b"\x70" + bytes(17), 512),
            Completion(Status.BUSY),
            Completion(Status.GOOD, (BLOCKS[300:],)),
        ]
    ),
    m.Done(),
    m.Refused(MEDIUM_ERROR, 3, "the second disk says no: ÄÖ"),
    m.Refused(Sense(SenseKey.DATA_PROTECT, 0x27, 0x07, deferred=True)),
    m.Busy(),
]
MESSAGES: list[m.Message] = [*_CONTROLS, *REQUESTS, *REPLIES]
