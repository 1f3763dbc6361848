"""State files of a controller: an append-only journal and the checkpoint that it continues.

    file    = HEADER record*
    HEADER  = magic "HWVJ", format version u16, reserved u16
    record  = magic u32, payload length u32, sequence u64, CRC-32C u32 of all of this but itself, kind u32; payload

A record that ends the file and is not whole was never acknowledged: it is cut. A bad record with a good one behind it is
damage: StateError with its offset, nothing is changed. A checkpoint is written beside, synced and renamed.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from hwvirt.buffers import Buffer
from hwvirt.digest import crc32c
from hwvirt.errors import StateError

__all__ = ["FORMAT_VERSION", "PORTION_ROWS", "Journal", "Record", "StateDirectory"]

FORMAT_VERSION = 1
PORTION_ROWS = 1 << 16
"""Rows of one record of a checkpoint: while it is encoded the event loop stands still."""

_CHECKPOINT_BYTES = 16 << 20
_HEADER = struct.Struct("<4sHH")
_MAGIC = b"HWVJ"
_RECORD = struct.Struct("<IIQII")
_RECORD_MAGIC = 0x4A524543
_MARK = 0  # carries the sequence number of a checkpoint, also of an empty one


class Record(NamedTuple):
    """One record: what kind (from 1), and the bytes."""

    kind: int
    payload: Buffer


class StateDirectory:
    """A directory that one daemon owns: locked from `open` to `close`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._lock, 32, 0).decode(errors="replace").strip()
            os.close(self._lock)
            raise StateError(
                f"state directory {path} is in use by process {owner or 'unknown'}.",
                next_step="Stop that controller, or give this one another state directory.",
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def journal(self, name: str) -> Journal:
        """The journal `name` of this directory."""
        return Journal(self.path, name)

    def close(self) -> None:
        """Gives the directory up. Idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class Journal:
    """`NAME.journal` and `NAME.checkpoint` in a locked directory. Call `recover()` first, exactly once."""

    def __init__(self, directory: Path, name: str) -> None:
        self._checkpoint = directory / f"{name}.checkpoint"
        self._path = directory / f"{name}.journal"
        self._file = -1
        self._sequence = 0
        self._unsynced: list[Buffer] = []
        self._sync_failed = False
        self.size_bytes = 0
        self.cut_bytes = 0

    def recover(self) -> Iterator[Record]:
        """The records of the checkpoint and then those of the journal, all durable when the last of them has been told.

        Cuts a torn tail. Raises StateError on damage.
        """
        yield from self.stored()
        size = self._path.stat().st_size if self._path.exists() else 0
        self.cut_bytes = size - self.size_bytes
        self._open(self.size_bytes)

    def stored(self) -> Iterator[Record]:
        """The records of the checkpoint and then those of the journal, as the files hold them now.

        After `recover` no tail is torn: what is bad is damage. In a thread of its own while nobody writes the journal.
        """
        first, opened = 0, self._file >= 0
        if self._checkpoint.exists():
            records, _ = _parse(self._checkpoint, self._checkpoint.read_bytes(), tail=False)
            for sequence, record in records:
                first = sequence
                if record.kind != _MARK:
                    yield record
        self._sequence = max(self._sequence, first)
        data = _front(self._path, self.size_bytes if opened else -1)
        records, self.size_bytes = _parse(self._path, data, tail=not opened) if data else ([], 0)
        for sequence, record in records:
            if sequence > first:
                self._sequence = max(self._sequence, sequence)
                yield record

    def _open(self, end: int) -> None:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.ftruncate(self._file, end)
        self.size_bytes = end
        if not end:
            self._write([_HEADER.pack(_MAGIC, FORMAT_VERSION, 0)])
        # What a process had not synced when it died has been read, and may be acted upon: a power cut must not take it now.
        os.fsync(self._file)
        self._unsynced.clear()
        _sync_directory(self._path.parent)

    @property
    def outgrown(self) -> bool:
        """Whether so much was appended that a checkpoint is due."""
        return self.size_bytes > _CHECKPOINT_BYTES

    def append(self, records: Sequence[Record]) -> None:
        """Adds records with one write. Not durable before `sync()`."""
        pieces: list[Buffer] = []
        for record in records:
            self._sequence += 1
            pieces += _encode(record, self._sequence)
        self._write(pieces)

    def _write(self, pieces: list[Buffer]) -> None:
        size = sum(map(len, pieces))
        written = os.pwritev(self._file, pieces, self.size_bytes)
        if written != size:
            raise StateError(f"{self._path}: {written} of {size} bytes written.", next_step="Make room on its file system.")
        self.size_bytes += size
        self._unsynced += pieces

    def sync(self) -> None:
        """Everything appended so far is durable when this returns."""
        # Linux tells of lost writes once: a sync after a failed one says nothing about what was written before.
        if self._sync_failed:
            self._write_again()
        unsynced, self._sync_failed = len(self._unsynced), True
        os.fdatasync(self._file)
        self._sync_failed = False
        del self._unsynced[:unsynced]

    def _write_again(self) -> None:
        size, again = self.size_bytes, self._unsynced
        self._unsynced = []
        try:
            self.size_bytes -= sum(map(len, again))
            self._write([b"".join(again)])
        except BaseException:
            self.size_bytes, self._unsynced = size, again
            raise

    def checkpoint(self, records: Iterable[Record]) -> None:
        """Replaces everything stored so far by these records, or by nothing of it: old or new, never a mixture.

        It takes the time that the records take: in a thread of its own while nobody writes the journal.
        """
        beside = self._checkpoint.with_suffix(".new")
        with open(beside, "wb") as file:
            file.write(_HEADER.pack(_MAGIC, FORMAT_VERSION, 0))
            # One sequence number for all: journal records up to it are in the checkpoint already.
            for record in chain([Record(_MARK, b"")], records):
                file.writelines(_encode(record, self._sequence))
            file.flush()
            os.fsync(file.fileno())
        beside.rename(self._checkpoint)
        _sync_directory(self._checkpoint.parent)
        os.ftruncate(self._file, _HEADER.size)
        os.fsync(self._file)
        self.size_bytes = _HEADER.size
        self._unsynced.clear()

    def close(self) -> None:
        """Closes the file; what was not synced is left to the kernel. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _front(path: Path, size_bytes: int) -> bytes:
    """So much of the file, -1: all of it; nothing where there is none."""
    if not path.exists():
        return b""
    with open(path, "rb") as file:
        return file.read(size_bytes)


def _encode(record: Record, sequence: int) -> list[Buffer]:
    front = _RECORD.pack(_RECORD_MAGIC, len(record.payload), sequence, 0, record.kind)
    digest = crc32c(record.payload, crc32c(front))
    return [_RECORD.pack(_RECORD_MAGIC, len(record.payload), sequence, digest, record.kind), record.payload]


def _parse(path: Path, data: bytes, *, tail: bool) -> tuple[list[tuple[int, Record]], int]:
    """All whole records of a file and the offset behind the last; a torn tail is allowed where `tail`."""
    if len(data) < _HEADER.size and tail:
        return [], 0
    if len(data) < _HEADER.size or data[:4] != _MAGIC:
        raise StateError(f"{path}: not a hwvirt state file (bad magic at offset 0).", next_step=_RESTORE)
    version = _HEADER.unpack_from(data)[1]
    if version != FORMAT_VERSION:
        raise StateError(
            f"{path}: state format {version}, this program knows format {FORMAT_VERSION}.",
            next_step="Use the hwvirt version that wrote it.",
        )
    records: list[tuple[int, Record]] = []
    offset = _HEADER.size
    while offset < len(data):
        found = _record_at(data, offset)
        if found is None:
            if tail and not _any_record_after(data, offset + 1):
                break
            raise StateError(f"{path}: bad record at offset {offset}.", next_step=_RESTORE)
        sequence, record, offset = found
        records.append((sequence, record))
    return records, offset


_RESTORE = "Restore the state directory, or remove it to rebuild the map from the other controller's ledger."


def _record_at(data: bytes, offset: int) -> tuple[int, Record, int] | None:
    if len(data) - offset < _RECORD.size:
        return None
    magic, size, sequence, digest, kind = _RECORD.unpack_from(data, offset)
    end = offset + _RECORD.size + size
    if magic != _RECORD_MAGIC or end > len(data):
        return None
    payload = memoryview(data)[offset + _RECORD.size : end]
    if crc32c(payload, crc32c(_RECORD.pack(magic, size, sequence, 0, kind))) != digest:
        return None
    return sequence, Record(kind, payload), end


def _any_record_after(data: bytes, offset: int) -> bool:
    magic = struct.pack("<I", _RECORD_MAGIC)
    while (offset := data.find(magic, offset)) >= 0:
        if _record_at(data, offset) is not None:
            return True
        offset += 1
    return False


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
