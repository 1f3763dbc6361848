"""A logical unit in memory that understands just the commands that the NBD server makes, and can be told to misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from hwvirt.buffers import joined
from hwvirt.host.nbd.export import Export
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.status import Status
from hwvirt.scsi.volume import Extent, Residency

READ_16, WRITE_16, SYNCHRONIZE_CACHE_16, UNMAP, WRITE_SAME_16 = 0x88, 0x8A, 0x91, 0x42, 0x93

GOOD = Completion(Status.GOOD)


def fixed_sense(key: int, asc: int, ascq: int) -> bytes:
    """Fixed format sense data, SPC-4 4.5.3."""
    return bytes([0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0])


def check_condition(key: int, asc: int, ascq: int = 0) -> Completion:
    return Completion(Status.CHECK_CONDITION, sense=fixed_sense(key, asc, ascq))


class RamUnit:
    """`blocks` zeroed blocks. `batches` are the operation codes of each batch; `gate` holds every batch while it is clear;
    `fault` may answer a command in the unit's place."""

    def __init__(self, blocks: int, block_bytes: int = 4096) -> None:
        self.blocks, self.block_bytes = blocks, block_bytes
        self.content = bytearray(blocks * block_bytes)
        self.where = [Residency.FIRST] * blocks
        self.batches: list[list[int]] = []
        self.commands: list[Command] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()
        self.fault: Callable[[Command], Completion | None] = lambda command: None

    async def execute(self, batch: Sequence[Command]) -> list[Completion]:
        self.batches.append([command.cdb[0] for command in batch])
        self.commands += batch
        self.begun.set()
        await self.gate.wait()
        return [self.fault(command) or self._execute(command) for command in batch]

    def _execute(self, command: Command) -> Completion:
        cdb = command.cdb
        lba, blocks = int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[10:14], "big")
        size = self.block_bytes
        assert cdb[0] == UNMAP or lba + blocks <= self.blocks
        match cdb[0]:
            case 0x88:
                assert command.data_in_length == blocks * size
                return Completion(Status.GOOD, (bytes(self.content[lba * size : (lba + blocks) * size]),))
            case 0x8A:
                data = joined(command.data_out)
                assert len(data) == blocks * size
                self.content[lba * size : (lba + blocks) * size] = data
                self.where[lba : lba + blocks] = [Residency.REDIRECTED] * blocks
            case 0x91:
                pass
            case 0x42:
                parameters = bytes(joined(command.data_out))
                for at in range(8, len(parameters), 16):
                    self._forget(
                        int.from_bytes(parameters[at : at + 8], "big"), int.from_bytes(parameters[at + 8 : at + 12], "big")
                    )
            case 0x93:
                assert cdb[1] & 0x08, "UNMAP"
                assert not any(bytes(joined(command.data_out))) if command.data_out else cdb[1] & 0x01
                self._forget(lba, blocks)
            case other:
                raise AssertionError(f"operation code {other:#x}")
        return GOOD

    def _forget(self, lba: int, blocks: int) -> None:
        assert lba + blocks <= self.blocks
        size = self.block_bytes
        self.content[lba * size : (lba + blocks) * size] = bytes(blocks * size)
        self.where[lba : lba + blocks] = [Residency.ZERO] * blocks

    def forget(self) -> None:
        """The commands so far, and with them the buffers that they hold."""
        self.batches.clear()
        self.commands.clear()

    def residency(self, extent: Extent) -> list[tuple[int, Residency]]:
        return [(1, where) for where in self.where[extent.lba : extent.lba + extent.blocks]]

    def export(self, name: str = "disk", *, read_only: bool = False, cut_off: bool = False) -> Export:
        blocks, size, what = self.blocks, self.block_bytes, "a disk in memory"
        return Export(name, self, blocks, size, what, read_only, self.residency, lambda: cut_off)
