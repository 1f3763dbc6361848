"""Which blocks a command is about. Ref: T10 SBC-4 5."""

from __future__ import annotations

from hwvirt.buffers import joined
from hwvirt.scsi import opcodes
from hwvirt.scsi.command import Command
from hwvirt.scsi.parameters import decode_unmap_list
from hwvirt.scsi.volume import Extent

__all__ = ["names_blocks", "touched"]

_UNMAP = 0x42


def touched(command: Command) -> list[Extent]:
    """The extents a command names, in its CDB or in UNMAP's parameter list; none when it names no blocks."""
    if command.cdb[0] == _UNMAP:
        return _unmapped(bytes(joined(command.data_out)) if command.data_out else b"")
    row = opcodes.find(command.cdb)
    if row is None:
        return []
    fields = row.layout.decode(command.cdb)
    if "lba_low" in fields:  # READ(6) and WRITE(6): 21 bits of LBA, and no blocks stand for 256
        return [Extent(fields["lba_high"] << 16 | fields["lba_low"], fields["blocks"] or 256)]
    if "lba" not in fields or "blocks" not in fields:
        return []
    return [Extent(fields["lba"], fields["blocks"])]


def names_blocks(opcode: int) -> bool:
    """Whether a command with this operation code can be about blocks that it names."""
    rows = ({field.name for field in row.layout.fields} for row in opcodes.COMMANDS if row.opcode == opcode)
    return opcode == _UNMAP or any({"lba", "blocks"} <= names or "lba_low" in names for names in rows)


def _unmapped(parameters: bytes) -> list[Extent]:
    try:
        return decode_unmap_list(parameters)
    except ValueError:  # the disk will refuse it
        return []
