"""SCSI disks of the kernel: /dev/sgN and /dev/sdX through SG_IO.

Rule 1: GOOD means that status, host status and driver status are all clean.
Rule 2: a command is repeated only when it was not executed (UNIT ATTENTION, BUSY, TASK SET FULL) or does no harm twice.
Rule 3: a reset may have cost the disk its volatile cache: with writes not yet flushed, the next SYNCHRONIZE CACHE fails.

Ref: T10 SAM-5 5.3 (status), 5.14 (unit attention), SPC-4 annex E (29h POWER ON, RESET, OR BUS DEVICE RESET OCCURRED).
"""

from __future__ import annotations

import errno
import os
import threading
import time
from enum import Enum
from typing import NamedTuple

from hwvirt.buffers import joined
from hwvirt.disk.disk import ATTENTIONS_MOST, LOST_WRITES
from hwvirt.disk.linux import passthrough_limit_bytes
from hwvirt.disk.sgio import DriverStatus, HostStatus, Outcome, sg_io
from hwvirt.errors import DiskError
from hwvirt.scsi.cdb import describe, medium_changing, read_capacity_16
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.sense import WRITE_PROTECTED, decode_sense, encode_sense
from hwvirt.scsi.status import SenseKey, Status
from hwvirt.scsi.volume import Access
from hwvirt.units import Deadline

__all__ = ["SgDisk"]

_SYNCHRONIZE_CACHE = (0x35, 0x91)
_HARMLESS_TWICE = (
    *(0x00, 0x12, 0x1A, 0x5A, 0xA0, 0xA3),  # TEST UNIT READY, INQUIRY, MODE SENSE, REPORT LUNS, MAINTENANCE IN
    *(0x08, 0x28, 0xA8, 0x88, 0x25, 0x9E),  # READ, READ CAPACITY, SERVICE ACTION IN
    *(0x2F, 0xAF, 0x8F, *_SYNCHRONIZE_CACHE),  # VERIFY
)
_RESET_ASC = 0x29
_RESET_ASCQS = range(5)  # power on and resets; the rest of 29h is about the path, not the device
_FLUSHED_TOO_LATE = Completion(Status.CHECK_CONDITION, sense=encode_sense(LOST_WRITES))
_WRITE_PROTECTED = Completion(Status.CHECK_CONDITION, sense=encode_sense(WRITE_PROTECTED))

_WITHOUT_SENSE = frozenset(Status) - {Status.CHECK_CONDITION}
_BUSY_STATUSES = (Status.BUSY, Status.TASK_SET_FULL)
_CLEAN_HOST = (  # the last four only point at the status that came with them
    HostStatus.OK,
    HostStatus.TARGET_FAILURE,
    HostStatus.NEXUS_FAILURE,
    HostStatus.ALLOC_FAILURE,
    HostStatus.MEDIUM_ERROR,
)
_GONE_HOST = (HostStatus.NO_CONNECT, HostStatus.BAD_TARGET)
_AFTER_RESET = (HostStatus.TIME_OUT, HostStatus.RESET)  # the kernel may have reset the disk, and keeps its attention
_CLEAN_DRIVER = (DriverStatus.OK, DriverStatus.SENSE)
_BUSY_ERRNOS = (errno.EDOM, errno.EAGAIN, errno.EBUSY)  # EDOM: 16 commands of this node are under way
_GONE_ERRNOS = (errno.ENODEV, errno.ENXIO)
_SHORTEST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.25


class _End(Enum):
    """How one try of a command ended."""

    ANSWERED = "the disk executed it or said why not"
    ATTENTION = "the disk reported a unit attention instead"
    BUSY = "there was no room for it"
    LATE = "there was no answer in time; it may still be executed"
    GONE = "the disk is gone"
    LOST = "it may have been executed or not"


class _Try(NamedTuple):
    end: _End
    completion: Completion | None = None
    detail: str = ""


class SgDisk:
    """A disk that the kernel drives. As many commands are in flight as threads execute; a node takes 16.

    The deadline becomes the kernel's timeout; its error handler (abort, reset) may add seconds before the answer comes.

    It claims nothing: whoever guards the disk holds its block node. `access` READ_ONLY opens the node for reading and
    refuses medium-changing commands itself, since the kernel lets root send them.
    """

    quick = False

    def __init__(self, path: str, *, name: str = "", access: Access = Access.READ_WRITE) -> None:
        self.name = name or path
        self._access = access
        self._cache = _VolatileCache()
        mode = os.O_RDWR if access is Access.READ_WRITE else os.O_RDONLY
        try:
            self._fd = os.open(path, mode | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise DiskError(
                f"cannot open {path}: {error.strerror}.",
                next_step="Name a /dev/sgN or /dev/sdX node that exists and that you may open.",
            ) from error
        self._limit_bytes = passthrough_limit_bytes(self._fd)

    def close(self) -> None:
        """Closes the node. Idempotent; all commands have ended before."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def execute(self, command: Command, deadline: Deadline) -> Completion:
        """Executes the command, again where rule 2 allows it. Raises DiskError when it is lost, late, or the disk gone."""
        cdb = command.cdb
        if medium_changing(cdb):
            if self._access is Access.READ_ONLY:
                return _WRITE_PROTECTED
            self._cache.changed()
        if cdb[0] in _SYNCHRONIZE_CACHE:
            return self._flush(command, deadline)
        completion = self._until_answered(command, deadline)
        if cdb[:3] == b"\x12\x01\xb0" and completion.good:
            return self._with_path_limit(completion, deadline)
        return completion

    def _flush(self, command: Command, deadline: Deadline) -> Completion:
        mark = self._cache.changes
        completion = self._until_answered(command, deadline)
        if not completion.good:
            return completion
        return completion if self._cache.flushed(mark) else _FLUSHED_TOO_LATE

    def _with_path_limit(self, page: Completion, deadline: Deadline) -> Completion:
        """VPD page B0 with the MAXIMUM TRANSFER LENGTH lowered to what adapter and kernel carry in one command."""
        capacity = self._until_answered(Command(read_capacity_16(), data_in_length=32), deadline)
        block_bytes = int.from_bytes(bytes(joined(capacity.data))[8:12], "big")
        data = bytearray(joined(page.data))
        if not block_bytes or len(data) < 12:
            return page
        limit = self._limit_bytes // block_bytes
        said = int.from_bytes(data[8:12], "big")
        data[8:12] = (min(said, limit) if said else limit).to_bytes(4, "big")
        return page._replace(data=(data,))

    def _until_answered(self, command: Command, deadline: Deadline) -> Completion:
        attentions, losses = ATTENTIONS_MOST, 1
        pause_s = _SHORTEST_PAUSE_S
        while True:
            end, completion, detail = self._try(command, deadline)
            if end is _End.BUSY and deadline.remaining > pause_s:
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                if deadline.remaining:  # else it slept too long, and what is known is that the disk was busy
                    continue
            elif end is _End.ATTENTION and attentions:
                attentions -= 1
                continue
            elif end is _End.LOST and losses and command.cdb[0] in _HARMLESS_TWICE:
                losses -= 1
                continue
            if completion is not None:
                return completion
            raise DiskError(f"{self.name}: {describe(command.cdb)}: {end.value} ({detail}).")

    def _try(self, command: Command, deadline: Deadline) -> _Try:
        remaining_s = deadline.remaining
        if not remaining_s:
            return _Try(_End.LATE, detail="the deadline had passed")
        try:
            outcome = sg_io(self._fd, command, remaining_s)
        except OSError as error:
            if error.errno in _BUSY_ERRNOS:
                return _Try(_End.BUSY, detail=f"SG_IO: {error.strerror}")
            end = _End.GONE if error.errno in _GONE_ERRNOS else _End.LOST
            return _Try(end, detail=f"SG_IO: {error.strerror}")
        result = _judged(outcome)
        if outcome.host_status in _AFTER_RESET or (result.end is _End.ATTENTION and _tells_reset(outcome.sense)):
            self._cache.reset(not_executed=int(medium_changing(command.cdb)))
        return result


class _VolatileCache:
    """Remembers whether a reset came between a change and the flush that should have made it durable. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flushed = 0
        self._lost = False
        self.changes = 0

    def changed(self) -> None:
        """A command that changes the medium is about to be sent."""
        with self._lock:
            self.changes += 1

    def reset(self, not_executed: int) -> None:
        """A command ended with a reset and not well; it was itself this many of the changes."""
        with self._lock:
            if self.changes - not_executed > self._flushed:
                self._lost = True

    def flushed(self, mark: int) -> bool:
        """The disk flushed what was sent up to `mark`. Returns whether that came in time for all of it; False only once."""
        with self._lock:
            self._flushed = max(self._flushed, mark)
            in_time, self._lost = not self._lost, False
            return in_time


def _judged(outcome: Outcome) -> _Try:
    """Rule 1. Sense data says most and is believed first."""
    status = outcome.status & 0x7E
    clean = outcome.host_status in _CLEAN_HOST and outcome.driver_status in _CLEAN_DRIVER
    if clean and status in _WITHOUT_SENSE:
        end = _End.BUSY if status in _BUSY_STATUSES else _End.ANSWERED
        return _Try(end, Completion(Status(status), (outcome.data,), b"", outcome.residual))
    if status == Status.CHECK_CONDITION and outcome.sense:
        completion = Completion(Status.CHECK_CONDITION, (outcome.data,), outcome.sense, outcome.residual)
        attention = decode_sense(outcome.sense).key is SenseKey.UNIT_ATTENTION
        return _Try(_End.ATTENTION if attention else _End.ANSWERED, completion)
    if outcome.host_status == HostStatus.TIME_OUT or outcome.driver_status == DriverStatus.TIMEOUT:
        return _Try(_End.LATE, detail=_words(outcome))
    return _Try(_End.GONE if outcome.host_status in _GONE_HOST else _End.LOST, detail=_words(outcome))


def _words(outcome: Outcome) -> str:
    return (
        f"status 0x{outcome.status:02x}, host status {_word(HostStatus, outcome.host_status)}, "
        f"driver status {_word(DriverStatus, outcome.driver_status)}, {outcome.duration_ms} ms"
    )


def _tells_reset(sense_data: bytes) -> bool:
    sense = decode_sense(sense_data)
    return sense.asc == _RESET_ASC and sense.ascq in _RESET_ASCQS


def _word(words: type[HostStatus] | type[DriverStatus], value: int) -> str:
    return {int(word): word.name for word in words}.get(value, f"0x{value:02x}")
