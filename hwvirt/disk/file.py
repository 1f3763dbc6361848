"""A volume over a file descriptor: a regular file or a block device, through the page cache."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence

from hwvirt.buffers import Buffer, Pieces, length
from hwvirt.disk.disk import LOST_WRITES
from hwvirt.disk.linux import punch_hole, size_bytes
from hwvirt.disk.runs import runs, sliced
from hwvirt.scsi.sense import CheckCondition, Sense
from hwvirt.scsi.status import SenseKey
from hwvirt.scsi.volume import Access, Durability, Extent, Residency, Write

__all__ = ["FileVolume"]

_READ_ERROR = Sense(SenseKey.MEDIUM_ERROR, 0x11, 0x00)  # UNRECOVERED READ ERROR
_WRITE_ERROR = Sense(SenseKey.MEDIUM_ERROR, 0x0C, 0x00)  # WRITE ERROR
_SENSES = {
    errno.ENOSPC: Sense(SenseKey.DATA_PROTECT, 0x27, 0x07),  # SPACE ALLOCATION FAILED WRITE PROTECT
    errno.EDQUOT: Sense(SenseKey.DATA_PROTECT, 0x27, 0x07),
    errno.EBADF: Sense(SenseKey.DATA_PROTECT, 0x27, 0x00),  # WRITE PROTECTED: the node was opened for reading
    errno.EPERM: Sense(SenseKey.DATA_PROTECT, 0x27, 0x00),
    errno.EROFS: Sense(SenseKey.DATA_PROTECT, 0x27, 0x00),
    errno.ENXIO: Sense(SenseKey.HARDWARE_ERROR, 0x08, 0x00),  # LOGICAL UNIT COMMUNICATION FAILURE: the device left
    errno.ENODEV: Sense(SenseKey.HARDWARE_ERROR, 0x08, 0x00),
}
_IOV_MAX = os.sysconf("SC_IOV_MAX")
_MAX_RUN_BYTES = 1 << 26
_ZEROES = bytes(1 << 16)


class _CutShortError(Exception):
    """A transfer that ended early: why, and after how many bytes."""

    def __init__(self, error: OSError, done_bytes: int) -> None:
        super().__init__(str(error))
        self.error = error
        self.done_bytes = done_bytes


class FileVolume:
    """All blocks of `fd`, which stays the caller's. Its methods never suspend; safe to use from several threads at once.

    A block is written by one system call, but only the page cache makes it whole: a power cut may tear a 4 KiB block.
    """

    def __init__(self, fd: int, block_bytes: int, *, access: Access = Access.READ_WRITE) -> None:
        self._fd = fd
        self.block_bytes = block_bytes
        self.blocks = size_bytes(fd) // block_bytes
        self.access = access
        self._max_blocks = _MAX_RUN_BYTES // block_bytes

    async def read(self, extents: Sequence[Extent]) -> list[Pieces | CheckCondition]:
        """Neighbours in the batch are one system call."""
        results: list[Pieces | CheckCondition] = []
        for run in runs(extents, self._max_blocks):
            data = self._read(run.lba, run.blocks)
            if run.items == 1:
                results.append(data if isinstance(data, CheckCondition) else (data,))
                continue
            items = extents[run.first : run.first + run.items]
            if isinstance(data, CheckCondition):
                for item in items:
                    results += await self.read([item])
            else:
                results += [(piece,) for piece in sliced(data, [item.blocks * self.block_bytes for item in items])]
        return results

    async def write(
        self, writes: Sequence[Write], durability: Durability = Durability.VOLATILE
    ) -> list[CheckCondition | None]:
        """Neighbours in the batch are one system call; durable writes of a batch share one fdatasync."""
        results: list[CheckCondition | None] = []
        extents = [(lba, length(data) // self.block_bytes) for lba, data in writes]
        for run in runs(extents, self._max_blocks):
            items = writes[run.first : run.first + run.items]
            pieces = items[0].data if run.items == 1 else [piece for item in items for piece in item.data]
            error = self._write(run.lba, pieces)
            if error is None or run.items == 1:
                results += [error] * run.items
            else:
                results += [self._write(item.lba, item.data) for item in items]
        if durability is Durability.DURABLE:
            unsafe = await self.flush()
            return [result or unsafe for result in results]
        return results

    async def unmap(self, extents: Sequence[Extent]) -> list[CheckCondition | None]:
        """Holes where the file system or the device can make them, else zeroes."""
        return [self._unmap(lba, blocks) for lba, blocks in extents]

    async def flush(self) -> CheckCondition | None:
        """fdatasync. Linux tells of lost writes once: a flush after a failed one may succeed without them."""
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            return CheckCondition(_sense(error, LOST_WRITES))
        return None

    def residency(self, extent: Extent) -> list[tuple[int, Residency]]:
        """Everything lies here."""
        return [(extent.blocks, Residency.FIRST)]

    def _read(self, lba: int, blocks: int) -> bytes | CheckCondition:
        try:
            return _pread(self._fd, blocks * self.block_bytes, lba * self.block_bytes)
        except _CutShortError as cut:
            return self._failed_at(cut, lba, _READ_ERROR)

    def _write(self, lba: int, pieces: Pieces) -> CheckCondition | None:
        try:
            _pwrite(self._fd, pieces, length(pieces), lba * self.block_bytes)
        except _CutShortError as cut:
            return self._failed_at(cut, lba, _WRITE_ERROR)
        return None

    def _unmap(self, lba: int, blocks: int) -> CheckCondition | None:
        if not blocks:
            return None
        try:
            punch_hole(self._fd, lba * self.block_bytes, blocks * self.block_bytes)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                return CheckCondition(_sense(error, _WRITE_ERROR).at(lba))
            return self._write_zeroes(lba, blocks)
        return None

    def _write_zeroes(self, lba: int, blocks: int) -> CheckCondition | None:
        step = len(_ZEROES) // self.block_bytes
        for first in range(lba, lba + blocks, step):
            size_bytes = min(step, lba + blocks - first) * self.block_bytes
            error = self._write(first, [memoryview(_ZEROES)[:size_bytes]])
            if error is not None:
                return error
        return None

    def _failed_at(self, cut: _CutShortError, lba: int, sense: Sense) -> CheckCondition:
        return CheckCondition(_sense(cut.error, sense).at(lba + cut.done_bytes // self.block_bytes))


def _sense(error: OSError, otherwise: Sense) -> Sense:
    return _SENSES.get(error.errno or 0, otherwise)


def _pread(fd: int, size_bytes: int, offset_bytes: int) -> bytes:
    """Exactly `size_bytes`; the usual case, one whole transfer, is not copied. Raises _CutShortError."""
    parts: list[bytes] = []
    done = 0
    while True:
        try:
            data = os.pread(fd, size_bytes - done, offset_bytes + done)
        except OSError as error:
            raise _CutShortError(error, done) from error
        done += len(data)
        if done == size_bytes:
            return b"".join((*parts, data)) if parts else data
        if not data:
            raise _CutShortError(OSError(errno.EIO, "the file is shorter than its volume"), done)
        parts.append(data)


def _pwrite(fd: int, pieces: Pieces, size_bytes: int, offset_bytes: int) -> None:
    """All `size_bytes` of all pieces. Raises _CutShortError."""
    done = 0
    while True:
        try:
            written = os.pwritev(fd, pieces[:_IOV_MAX], offset_bytes + done)
        except OSError as error:
            raise _CutShortError(error, done) from error
        done += written
        if done == size_bytes:
            return
        pieces = list(_after(pieces, written))


def _after(pieces: Pieces, skip_bytes: int) -> Iterator[Buffer]:
    """What is left of `pieces` after their first `skip_bytes`."""
    for piece in pieces:
        if skip_bytes < len(piece):
            yield memoryview(piece)[skip_bytes:]
        skip_bytes = max(0, skip_bytes - len(piece))
