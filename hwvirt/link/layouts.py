"""How each message lies in meta, digests and data: one `Layout` for each kind.

A decoder gets bytes whose CRCs are right and still trusts nothing: what does not fit raises struct.error or ValueError.
Lists of fixed rows end a meta, so their length says how many there are.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from dataclasses import fields
from itertools import starmap
from typing import Any, NamedTuple, TypeAlias, TypeVar

from hwvirt import buffers
from hwvirt.buffers import Buffer, Pieces
from hwvirt.link import messages as m
from hwvirt.link.config import presentable
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.sense import Sense
from hwvirt.scsi.status import SenseKey, Status

__all__ = [
    "ATTACH",
    "ATTACHED",
    "BUSY",
    "BYE",
    "COMPLETION_BYTES",
    "DONE",
    "DROP",
    "EXECUTE",
    "EXECUTED",
    "FLUSH",
    "FLUSHED",
    "FREE",
    "HELLO",
    "LEDGER_PAGE",
    "PAGE_BYTES",
    "PING",
    "PONG",
    "PROOF",
    "QUERY",
    "READ",
    "READ_DATA",
    "REFUSED",
    "UNMAP",
    "WRITE",
    "WRITTEN",
    "Layout",
    "Parts",
]

_NOWHERE = 0xFFFF_FFFF_FFFF_FFFF
_NO_INDEX = 0xFFFF_FFFF

_SLICE = struct.Struct("<QIQ")  # lba, blocks, sequence
_PLACEMENT = struct.Struct("<QII")  # lba, generation, blocks
_SENSE = struct.Struct("<BBBBQ")  # key, asc, ascq, flags, information
_FAILURE = struct.Struct("<I12s")  # index, sense
_VOLUME = struct.Struct("<I")  # volume; in READ and FREE placements, in UNMAP slices
_ATTACH = struct.Struct("<IQIQ")  # volume, blocks, block bytes, durable sequence
_ATTACHED = struct.Struct("<QQQ")  # store epoch, capacity, last sequence
_WRITE = struct.Struct("<IQ")  # volume, settled sequence; slices
_EPOCH = struct.Struct("<Q")  # store epoch; in WRITTEN placements
_EXECUTE = struct.Struct("<IQQ")  # LUN, number, settled number; commands
_DROP = struct.Struct("<IQQ")  # volume, lba, blocks
_QUERY = struct.Struct("<IQI")  # volume, after, limit
_PAGE = struct.Struct("<Q")  # next
_COMMAND = struct.Struct("<HII")  # CDB bytes, Data-In bytes, Data-Out bytes; the CDB follows
_COMPLETION = struct.Struct("<BHII")  # status, sense bytes, residual, Data-In bytes; the sense follows
_REFUSED = struct.Struct("<12sI")  # sense, index; the reason follows
_HELLO = struct.Struct("<Q32sIQI")  # boot epoch, nonce, credit in requests, in bytes, largest frame; the name follows
_PROOF = struct.Struct("<32s")
_STAMP = struct.Struct("<Q")
_BYE = struct.Struct("<B")

Parts: TypeAlias = "tuple[bytes, Pieces, array[int] | None]"
"""Meta, data, and the digests of block data; None: the data, if any, is one grain."""
_NO_DIGESTS = array("I")

COMPLETION_BYTES, PAGE_BYTES = _COMPLETION.size, _PAGE.size
"""What EXECUTED has for each command besides its sense, and LEDGER_PAGE besides its rows, in their metas."""


class Layout(NamedTuple):
    """One kind of message and its two directions."""

    message: type
    encode: Callable[[Any], Parts]
    decode: Callable[[memoryview, array[int], memoryview], m.Message]
    carries_data: bool = False


# Rows


def _slices(meta: memoryview) -> list[m.Slice]:
    return _whole_rows(list(map(m.Slice._make, _SLICE.iter_unpack(meta))))


def _placements(meta: memoryview) -> list[m.Placement]:
    return _whole_rows(list(map(m.Placement._make, _PLACEMENT.iter_unpack(meta))))


_Row = TypeVar("_Row", m.Slice, m.Placement)


def _whole_rows(rows: list[_Row]) -> list[_Row]:
    if 0 in [row.blocks for row in rows]:
        raise ValueError("a run of no blocks")
    return rows


def _sense_bytes(sense: Sense) -> bytes:
    has_information = sense.information is not None
    return _SENSE.pack(sense.key, sense.asc, sense.ascq, has_information | sense.deferred << 1, sense.information or 0)


def _sense(row: bytes) -> Sense:
    key, asc, ascq, flags, information = _SENSE.unpack(row)
    return Sense(SenseKey(key), asc, ascq, information if flags & 1 else None, bool(flags & 2))


# Messages with more than fixed fields


def _encode_write(message: m.Write) -> Parts:
    meta = _WRITE.pack(message.volume, message.settled_sequence)
    return meta + b"".join(starmap(_SLICE.pack, message.slices)), message.data, message.digests


def _decode_write(meta: memoryview, digests: array[int], data: memoryview) -> m.Write:
    slices = _slices(meta[_WRITE.size :])
    if sum([run.blocks for run in slices]) != len(digests):
        raise ValueError(f"{len(digests)} blocks of data for slices of another length")
    volume, settled = _WRITE.unpack_from(meta)
    return m.Write(volume, settled, slices, _pieces(data), digests)


def _encode_read(message: m.Read) -> Parts:
    return _VOLUME.pack(message.volume) + b"".join(starmap(_PLACEMENT.pack, message.placements)), (), _NO_DIGESTS


def _decode_read(meta: memoryview, _digests: array[int], _data: memoryview) -> m.Read:
    (volume,) = _VOLUME.unpack_from(meta)
    return m.Read(volume, _placements(meta[_VOLUME.size :]))


def _encode_unmap(message: m.Unmap) -> Parts:
    return _VOLUME.pack(message.volume) + b"".join(starmap(_SLICE.pack, message.slices)), (), _NO_DIGESTS


def _decode_unmap(meta: memoryview, _digests: array[int], _data: memoryview) -> m.Unmap:
    (volume,) = _VOLUME.unpack_from(meta)
    return m.Unmap(volume, _slices(meta[_VOLUME.size :]))


def _encode_free(message: m.Free) -> Parts:
    return _VOLUME.pack(message.volume) + b"".join(starmap(_PLACEMENT.pack, message.placements)), (), _NO_DIGESTS


def _decode_free(meta: memoryview, _digests: array[int], _data: memoryview) -> m.Free:
    (volume,) = _VOLUME.unpack_from(meta)
    return m.Free(volume, _placements(meta[_VOLUME.size :]))


def _encode_query(message: m.Query) -> Parts:
    return _QUERY.pack(message.volume, _position(message.after), message.limit), (), _NO_DIGESTS


def _decode_query(meta: memoryview, _digests: array[int], _data: memoryview) -> m.Query:
    volume, after, limit = _QUERY.unpack(meta)
    return m.Query(volume, None if after == _NOWHERE else after, limit)


def _encode_execute(message: m.Execute) -> Parts:
    rows = [_EXECUTE.pack(message.lun, message.number, message.settled)]
    data: list[Buffer] = []
    for cdb, data_out, data_in_length in message.commands:
        rows.append(_COMMAND.pack(len(cdb), data_in_length, buffers.length(data_out)) + cdb)
        data += data_out
    return b"".join(rows), data, None


def _decode_execute(meta: memoryview, _digests: array[int], data: memoryview) -> m.Execute:
    lun, number, settled = _EXECUTE.unpack_from(meta)
    rows, rest = _Reader(meta[_EXECUTE.size :]), _Reader(data)
    commands = []
    while rows.left:
        cdb_bytes, data_in_bytes, data_out_bytes = rows.unpack(_COMMAND)
        commands.append(Command(bytes(rows.take(cdb_bytes)), _pieces(rest.take(data_out_bytes)), data_in_bytes))
    rest.end()
    return m.Execute(lun, commands, number, settled)


def _encode_executed(message: m.Executed) -> Parts:
    rows = []
    data: list[Buffer] = []
    for status, data_in, sense, residual in message.completions:
        rows.append(_COMPLETION.pack(status, len(sense), residual, buffers.length(data_in)) + sense)
        data += data_in
    return b"".join(rows), data, None


def _decode_executed(meta: memoryview, _digests: array[int], data: memoryview) -> m.Executed:
    rows, rest = _Reader(meta), _Reader(data)
    completions = []
    while rows.left:
        status, sense_bytes, residual, data_in_bytes = rows.unpack(_COMPLETION)
        sense = bytes(rows.take(sense_bytes))
        completions.append(Completion(Status(status), _pieces(rest.take(data_in_bytes)), sense, residual))
    rest.end()
    return m.Executed(completions)


def _encode_written(message: m.Written) -> Parts:
    meta = _EPOCH.pack(message.store_epoch)
    return meta + b"".join(starmap(_PLACEMENT.pack, message.placements)), (), _NO_DIGESTS


def _decode_written(meta: memoryview, _digests: array[int], _data: memoryview) -> m.Written:
    (store_epoch,) = _EPOCH.unpack_from(meta)
    return m.Written(store_epoch, _placements(meta[_EPOCH.size :]))


def _encode_read_data(message: m.ReadData) -> Parts:
    failures = b"".join([_FAILURE.pack(one.index, _sense_bytes(one.sense)) for one in message.failures])
    return failures, message.data, message.digests


def _decode_read_data(meta: memoryview, digests: array[int], data: memoryview) -> m.ReadData:
    failures = tuple([m.Failure(index, _sense(sense)) for index, sense in _FAILURE.iter_unpack(meta)])
    return m.ReadData(_pieces(data), digests, failures)


def _encode_page(message: m.LedgerPage) -> Parts:
    return _PAGE.pack(_position(message.next)), message.rows, None


def _decode_page(meta: memoryview, _digests: array[int], data: memoryview) -> m.LedgerPage:
    (following,) = _PAGE.unpack(meta)
    return m.LedgerPage(_pieces(data), None if following == _NOWHERE else following)


def _encode_refused(message: m.Refused) -> Parts:
    index = _NO_INDEX if message.index is None else message.index
    return _REFUSED.pack(_sense_bytes(message.sense), index) + message.reason.encode(), (), _NO_DIGESTS


def _decode_refused(meta: memoryview, _digests: array[int], _data: memoryview) -> m.Refused:
    sense, index = _REFUSED.unpack_from(meta)
    return m.Refused(_sense(sense), None if index == _NO_INDEX else index, str(meta[_REFUSED.size :], "utf-8"))


def _encode_hello(message: m.Hello) -> Parts:
    numbers = (message.boot_epoch, message.nonce, message.credit_requests, message.credit_bytes, message.frame_bytes)
    return _HELLO.pack(*numbers) + message.name.encode(), (), _NO_DIGESTS


def _decode_hello(meta: memoryview, _digests: array[int], _data: memoryview) -> m.Hello:
    name = str(meta[_HELLO.size :], "utf-8")
    if not presentable(name):
        raise ValueError("a name that cannot be shown")
    return m.Hello(name, *_HELLO.unpack_from(meta))


def _decode_bye(meta: memoryview, _digests: array[int], _data: memoryview) -> m.Bye:
    return m.Bye(m.Farewell(*_BYE.unpack(meta)))


def _position(position: int | None) -> int:
    return _NOWHERE if position is None else position


def _pieces(data: memoryview) -> Pieces:
    return (data,) if data else ()


class _Reader:
    """Takes rows of varying length off a view; raises ValueError past its end."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    @property
    def left(self) -> bool:
        return self._at < len(self._view)

    def take(self, size_bytes: int) -> memoryview:
        taken = self._view[self._at : self._at + size_bytes]
        if len(taken) < size_bytes:
            raise ValueError("a row that is cut off")
        self._at += size_bytes
        return taken

    def unpack(self, row: struct.Struct) -> tuple[int, ...]:
        return row.unpack(self.take(row.size))

    def end(self) -> None:
        if self.left:
            raise ValueError("more data than its rows name")


def _fixed(message: type, row: struct.Struct | None = None) -> Layout:
    """The layout of a message whose fields are exactly the row's; None: it has no field."""
    names = [field.name for field in fields(message)]
    if row is None:
        row = struct.Struct("<")
    pack, unpack = row.pack, row.unpack
    return Layout(
        message,
        lambda one: (pack(*[getattr(one, name) for name in names]), (), _NO_DIGESTS),
        lambda meta, digests, data: message(*unpack(meta)),
    )


HELLO = Layout(m.Hello, _encode_hello, _decode_hello)
PROOF = _fixed(m.Proof, _PROOF)
PING = _fixed(m.Ping, _STAMP)
PONG = _fixed(m.Pong, _STAMP)
BYE = Layout(m.Bye, lambda one: (_BYE.pack(one.why), (), _NO_DIGESTS), _decode_bye)
ATTACH = _fixed(m.Attach, _ATTACH)
WRITE = Layout(m.Write, _encode_write, _decode_write, carries_data=True)
READ = Layout(m.Read, _encode_read, _decode_read)
UNMAP = Layout(m.Unmap, _encode_unmap, _decode_unmap)
FLUSH = _fixed(m.Flush, _VOLUME)
FREE = Layout(m.Free, _encode_free, _decode_free)
QUERY = Layout(m.Query, _encode_query, _decode_query)
DROP = _fixed(m.Drop, _DROP)
EXECUTE = Layout(m.Execute, _encode_execute, _decode_execute, carries_data=True)
ATTACHED = _fixed(m.Attached, _ATTACHED)
WRITTEN = Layout(m.Written, _encode_written, _decode_written)
READ_DATA = Layout(m.ReadData, _encode_read_data, _decode_read_data, carries_data=True)
FLUSHED = _fixed(m.Flushed, _EPOCH)
LEDGER_PAGE = Layout(m.LedgerPage, _encode_page, _decode_page, carries_data=True)
EXECUTED = Layout(m.Executed, _encode_executed, _decode_executed, carries_data=True)
DONE = _fixed(m.Done)
REFUSED = Layout(m.Refused, _encode_refused, _decode_refused)
BUSY = _fixed(m.Busy)
