"""What the device server tests share: a unit in RAM, commands, and how they ended."""

from __future__ import annotations

from collections.abc import Sequence

from hwvirt.buffers import Pieces, joined
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.opcodes import Cdb
from hwvirt.scsi.sense import Sense, SenseFormat, decode_sense
from hwvirt.scsi.server import DeviceServer, run_now
from hwvirt.scsi.status import Status
from hwvirt.scsi.volume import Access
from hwvirt.scsi.vpd import Identity
from tests.scsi.memory_volume import MemoryVolume

BLOCK = 512
IDENTITY = Identity("HWVIRT", "RAM", "1", "SN-1", 3 << 60 | 1)


class Bench:
    """A device server over a volume in RAM, driven without an event loop."""

    def __init__(
        self, blocks: int = 64, *, sense_format: SenseFormat = SenseFormat.FIXED, luns: Sequence[int] = (0,)
    ) -> None:
        self.volume = MemoryVolume(blocks, BLOCK)
        self.server = DeviceServer(self.volume, IDENTITY, luns=lambda: luns, sense_format=sense_format)

    def batch(self, *commands: Command) -> list[Completion]:
        return run_now(self.server.execute(commands))

    def send(self, cdb: bytes, data_out: Pieces = (), data_in_length: int = 0) -> Completion:
        (completion,) = self.batch(Command(cdb, data_out, data_in_length))
        return completion

    def fetch(self, row: Cdb, expected_bytes: int = 4096, **fields: int) -> bytes:
        """The Data-In of a command that must end with GOOD."""
        completion = self.send(row.encode(**fields), (), expected_bytes)
        assert completion.good, decode_sense(completion.sense)
        data = bytes(joined(completion.data))
        assert completion.residual == expected_bytes - len(data)
        return data

    def sense(self, row: Cdb, data_out: Pieces = (), data_in_length: int = 0, **fields: int) -> Sense:
        """The sense of a command that must end with CHECK CONDITION."""
        return sense_of(self.send(row.encode(**fields), data_out, data_in_length))

    def do(self, row: Cdb, data_out: Pieces = (), **fields: int) -> None:
        """A command without Data-In that must end with GOOD."""
        completion = self.send(row.encode(**fields), data_out)
        assert completion == Completion(Status.GOOD), decode_sense(completion.sense)

    def protect(self) -> None:
        self.volume.access = Access.READ_ONLY


def sense_of(completion: Completion) -> Sense:
    assert completion.status is Status.CHECK_CONDITION
    assert not completion.data
    return decode_sense(completion.sense)


def block(tag: int) -> bytes:
    """A block that tells its tag."""
    return (b"block %04d " % tag * BLOCK)[:BLOCK]


def blocks(*tags: int) -> bytes:
    return b"".join(map(block, tags))
