"""Evidence of what a disk was asked to change: written down before the disk is asked.

The judge reads the file to prove that the first disk saw no write while redirecting.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hwvirt.disk.disk import BatchDisk, Disk, Ends, execute_each
from hwvirt.disk.touched import touched
from hwvirt.errors import DiskError
from hwvirt.scsi.cdb import medium_changing
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.volume import Extent
from hwvirt.units import Deadline

__all__ = ["Record", "WitnessedDisk", "parse_witness", "read_witness"]

_RECORD = struct.Struct("<QQQIB3x")  # as in Record; little-endian, 32 bytes
_ANY_BLOCKS = Extent(0, 0xFFFFFFFF)
_WRITE_16 = 0x8A
_EXTENT_16 = struct.Struct(">2xQI")  # LBA and blocks of a WRITE(16)


class Record(NamedTuple):
    """An extent that a medium-changing command named; FFFFFFFFh blocks from LBA 0 when it may have meant any."""

    unix_ns: int
    monotonic_ns: int
    lba: int
    blocks: int
    opcode: int


class WitnessedDisk:
    """`inner`, with an append to `log_path` before every command that may change the medium.

    The append is in the page cache before the command is sent: it survives the death of this process, not a power cut.
    """

    def __init__(self, inner: Disk, log_path: str) -> None:
        self._inner = inner
        self._batches = inner if isinstance(inner, BatchDisk) else None
        self._log_path = log_path
        try:
            self._log_fd = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise DiskError(f"cannot write {log_path}, the witness of {inner.name}: {error.strerror}.") from error

    @property
    def name(self) -> str:
        """The inner disk's."""
        return self._inner.name

    @property
    def quick(self) -> bool:
        """The inner disk's: a record costs microseconds."""
        return self._inner.quick

    def execute(self, command: Command, deadline: Deadline) -> Completion:
        """Records, then executes. What cannot be recorded is not executed: DiskError."""
        self._record([command])
        return self._inner.execute(command, deadline)

    def execute_batch(self, batch: Sequence[Command], deadline: Deadline) -> Ends:
        """As `execute`; all records of the batch are one append, before its first command."""
        try:
            self._record(batch)
        except DiskError as error:
            return [error] * len(batch)
        if self._batches is not None:
            return self._batches.execute_batch(batch, deadline)
        return execute_each(self._inner, batch, deadline)

    def close(self) -> None:
        """Closes the log and the inner disk. Idempotent."""
        if self._log_fd >= 0:
            os.close(self._log_fd)
            self._log_fd = -1
        self._inner.close()

    def _record(self, batch: Sequence[Command]) -> None:
        now = time.time_ns(), time.monotonic_ns()
        rows: list[bytes] = []
        for command in batch:
            cdb = command.cdb
            if cdb[0] == _WRITE_16 and len(cdb) == 16:  # what the data path writes with; `touched` would take it apart
                rows.append(_RECORD.pack(*now, *_EXTENT_16.unpack_from(cdb), _WRITE_16))
            elif medium_changing(cdb):
                extents = touched(command) or [_ANY_BLOCKS]
                rows += [_RECORD.pack(*now, lba, blocks, cdb[0]) for lba, blocks in extents]
        if not rows:
            return
        records = b"".join(rows)
        try:
            written = os.write(self._log_fd, records)
        except OSError as error:
            raise DiskError(f"cannot write {self._log_path}, the witness of {self.name}: {error.strerror}.") from error
        if written != len(records):
            raise DiskError(f"cannot write {self._log_path}, the witness of {self.name}: it took half a record.")


def read_witness(path: str) -> list[Record]:
    """All records in their order. Raises DiskError when the file cannot be read or ends within a record."""
    try:
        return parse_witness(Path(path).read_bytes(), path)
    except OSError as error:
        raise DiskError(f"cannot read the witness {path}: {error.strerror}.") from error


def parse_witness(data: bytes, path: str) -> list[Record]:
    """The records in a witness's bytes; `path` is what errors call it. Raises DiskError when it ends within a record."""
    if len(data) % _RECORD.size:
        whole = len(data) // _RECORD.size
        raise DiskError(f"the witness {path} is torn: {len(data)} bytes, {whole} whole records of {_RECORD.size} bytes.")
    return [Record(*fields) for fields in _RECORD.iter_unpack(data)]
