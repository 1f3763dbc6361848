"""The shared memory of the kernel's target_core_user: commands that it wants executed, and our answers. Pure: memory only.

Mailbox, ring of entries, data area, in one mapping; every offset counts from its start. The kernel moves the head as it adds
entries, we move the tail as we answer. An answer goes into the oldest entry that has none, whosever request that was: so
requests are taken out of the ring first, and commands may end in any order. Ref: linux/target_core_user.h, version 2.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

from hwvirt.lab.process import LabError

__all__ = ["Answer", "Reset", "Ring", "Task", "cdb_bytes"]

_VERSION: Final = 2
_MAILBOX: Final = Struct("<HHIII")  # version, flags, ring offset, ring size, head
_HEAD: Final = Struct("<I")
_HEAD_OFFSET, _TAIL_OFFSET = 12, 64
_HEADER: Final = Struct("<IHBB")  # length and operation, command id, kernel's flags, our flags
_REQUEST: Final = Struct("<III4xQ")  # pieces of data, second-direction pieces, protection pieces, offset of the CDB
_PIECE: Final = Struct("<QQ")  # offset, length
_RESPONSE: Final = Struct("<B3xI96s")  # status, Data-In length, sense
_RESET: Final = Struct("<B3xI")  # function, number of commands
_ID: Final = Struct("<H")
_REQUEST_OFFSET, _PIECES_OFFSET, _IDS_OFFSET = 8, 48, 32
_OPERATION_MASK: Final = 7
_UNKNOWN_OPERATION, _DATA_IN_LENGTH = 1, 2  # our flags
_VARIABLE_LENGTH: Final = 0x7F
_CDB_BYTES: Final = (6, 10, 10, 12, 16, 12, 10, 10)  # by group code; as the kernel counts them


class _Operation(IntEnum):
    PAD = 0
    COMMAND = 1
    TASK_MANAGEMENT = 2


@dataclass(frozen=True, slots=True)
class Task:
    """A command to execute. `data` are views of the shared memory, Data-Out or room for Data-In, until it is answered."""

    id: int
    cdb: bytes
    data: tuple[memoryview, ...]


@dataclass(frozen=True, slots=True)
class Reset:
    """The initiator gave up on these commands (abort, LUN reset): they have to be answered now, with whatever."""

    ids: tuple[int, ...]


class Answer(NamedTuple):
    """How a task ended. `data_in_length` is what of its data is valid; None: all of it."""

    id: int
    status: int
    sense: bytes = b""
    data_in_length: int | None = None


class Ring:
    """Both sides of the ring: `take` for requests, `answer` for answers; they may run in different threads."""

    def __init__(self, memory: memoryview) -> None:
        """`memory` is the writable mapping, in bytes. Raises LabError for a version that this is not."""
        version, _, self._offset, self._size, _ = _MAILBOX.unpack_from(memory, 0)
        if version != _VERSION:
            raise LabError(f"target_core_user speaks version {version}, not {_VERSION}")
        self._memory = memory
        self._taken = self._tail = _HEAD.unpack_from(memory, _TAIL_OFFSET)[0]

    def take(self) -> Iterator[Task | Reset]:
        """What the kernel has added since the last time."""
        while self._taken != _HEAD.unpack_from(self._memory, _HEAD_OFFSET)[0]:
            entry = self._offset + self._taken
            length, operation, number = self._header(entry)
            self._taken = (self._taken + length) % self._size
            if operation == _Operation.COMMAND:
                yield self._task(entry, number)
            elif operation == _Operation.TASK_MANAGEMENT:
                _, count = _RESET.unpack_from(self._memory, entry + _REQUEST_OFFSET)
                ids = self._memory[entry + _IDS_OFFSET : entry + _IDS_OFFSET + count * _ID.size]
                yield Reset(tuple(number for (number,) in _ID.iter_unpack(ids)))
        self._pass_over()

    def answer(self, answer: Answer) -> None:
        """Writes an answer into the ring; the kernel looks when it is told so (a write to the UIO device)."""
        self._pass_over()
        entry = self._offset + self._tail
        length, operation, _ = self._header(entry)
        flags = 0 if answer.data_in_length is None else _DATA_IN_LENGTH
        _HEADER.pack_into(self._memory, entry, length | operation, answer.id, 0, flags)
        response = (answer.status, answer.data_in_length or 0, answer.sense)
        _RESPONSE.pack_into(self._memory, entry + _REQUEST_OFFSET, *response)
        self._move_tail(length)

    def _header(self, entry: int) -> tuple[int, int, int]:
        length_and_operation, number, _, _ = _HEADER.unpack_from(self._memory, entry)
        return length_and_operation & ~_OPERATION_MASK, length_and_operation & _OPERATION_MASK, number

    def _task(self, entry: int, number: int) -> Task:
        pieces, _, _, cdb = _REQUEST.unpack_from(self._memory, entry + _REQUEST_OFFSET)
        start = entry + _PIECES_OFFSET
        data = tuple(
            self._memory[offset : offset + length]
            for offset, length in _PIECE.iter_unpack(self._memory[start : start + pieces * _PIECE.size])
        )
        return Task(number, bytes(self._memory[cdb : cdb + cdb_bytes(self._memory[cdb : cdb + 8])]), data)

    def _pass_over(self) -> None:
        """Entries that want no answer are done with as soon as everything before them is answered."""
        while self._tail != self._taken:
            entry = self._offset + self._tail
            length, operation, _ = self._header(entry)
            if operation == _Operation.COMMAND:
                return
            if operation not in (_Operation.PAD, _Operation.TASK_MANAGEMENT):
                self._memory[entry + 7] |= _UNKNOWN_OPERATION
            self._move_tail(length)

    def _move_tail(self, length: int) -> None:
        self._tail = (self._tail + length) % self._size
        _HEAD.pack_into(self._memory, _TAIL_OFFSET, self._tail)


def cdb_bytes(front: bytes | memoryview) -> int:
    """The length of a CDB by its first eight bytes. SPC-4 4.2.5."""
    return front[7] + 8 if front[0] == _VARIABLE_LENGTH else _CDB_BYTES[front[0] >> 5]
