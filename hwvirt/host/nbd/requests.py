"""Requests of the transmission phase: taken off the bytes that arrived, checked, and said in CDBs. Pure.

Ref: NetworkBlockDevice/nbd doc/proto.md, "Request types" and "Block size constraints".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from errno import EINVAL, ENOSPC, ENOTSUP, EPERM
from typing import Final, NamedTuple

from hwvirt.host.nbd.export import Export
from hwvirt.host.nbd.wire import MAX_TRANSFER_BYTES, REQUEST, CommandFlag, CommandType, Magic, NbdViolation
from hwvirt.scsi.cdb import read_16, synchronize_cache_16, unmap, write_16, write_same_16_unmap
from hwvirt.scsi.command import Command
from hwvirt.scsi.volume import Extent, Residency

__all__ = ["FLUSH", "Request", "Taken", "apart", "command_of", "refusal", "rest_of", "take_requests", "transfer_of"]

FLUSH: Final = Command(synchronize_cache_16())
"""Everything that completed before is durable when this is GOOD."""

_ZEROES: Final = memoryview(bytes(1 << 20))
_HEADER_BYTES: Final = REQUEST.size
_UNLIMITED: Final = (1 << 32) - 1


class Request(NamedTuple):
    """One request as it came; `data` is the payload of a WRITE, still where it was received."""

    type: int
    flags: int
    cookie: int
    offset: int
    length: int
    data: memoryview

    @property
    def transfer_bytes(self) -> int:
        """What the request may hold in memory while it is in flight: the data of a READ or WRITE, zeroes that are data."""
        if self.type <= _WRITE:
            return self.length if self.length <= MAX_TRANSFER_BYTES else 0
        return min(self.length, MAX_TRANSFER_BYTES) if _are_data(self) else 0


class Taken(NamedTuple):
    """Complete requests from the front of what arrived.

    `consumed` bytes are done with; the next request is complete once `wanted` bytes follow them; `full` says that more
    were there, but past the limits.
    """

    requests: list[Request]
    transfer_bytes: int
    consumed: int
    wanted: int
    full: bool


def take_requests(unread: memoryview, most_requests: int, most_bytes: int) -> Taken:
    """At most `most_requests` requests that transfer at most `most_bytes` together; nothing is taken beyond a DISC.

    Raises NbdViolation where no request begins, or one is too long to be received.
    """
    requests: list[Request] = []
    at, end, transfer_bytes = 0, len(unread), 0
    while at + _HEADER_BYTES <= end:
        magic, flags, kind, cookie, offset, length = REQUEST.unpack_from(unread, at)
        if magic != _REQUEST:
            raise NbdViolation(f"a request began with {magic:#010x}")
        data_at = data_end = at + _HEADER_BYTES
        if kind == _WRITE:
            if length > MAX_TRANSFER_BYTES:
                raise NbdViolation(f"a write of {length} bytes, more than {MAX_TRANSFER_BYTES}")
            data_end += length
            if data_end > end:
                return Taken(requests, transfer_bytes, at, data_end - at, full=False)
        request = Request(kind, flags, cookie, offset, length, unread[data_at:data_end])
        more_bytes = transfer_bytes + request.transfer_bytes
        if len(requests) == most_requests or more_bytes > most_bytes:
            return Taken(requests, transfer_bytes, at, _HEADER_BYTES, full=True)
        requests.append(request)
        at, transfer_bytes = data_end, more_bytes
        if kind == _DISC:
            break
    return Taken(requests, transfer_bytes, at, _HEADER_BYTES, full=False)


class _Rule(NamedTuple):
    """What a request must be: its flags, its longest length, the errno beyond the end, whether it writes, its alignment."""

    flags: int
    most_bytes: int
    beyond: int
    writes: bool
    aligned: bool


# To look up a member of an enum is a call; what is done for every request does without.
_REQUEST, _WRITE, _FLUSH, _DISC = Magic.REQUEST, CommandType.WRITE, CommandType.FLUSH, CommandType.DISC
_NO_HOLE: Final = CommandFlag.NO_HOLE
_FUA: Final = CommandFlag.FUA  # "the server MUST accept all commands with this bit set"
_RULES: Final[Mapping[int, _Rule]] = {
    CommandType.READ: _Rule(_FUA | CommandFlag.DF, MAX_TRANSFER_BYTES, EINVAL, writes=False, aligned=False),
    CommandType.WRITE: _Rule(_FUA, MAX_TRANSFER_BYTES, ENOSPC, writes=True, aligned=True),
    CommandType.TRIM: _Rule(_FUA, _UNLIMITED, ENOSPC, writes=True, aligned=False),
    CommandType.CACHE: _Rule(_FUA, _UNLIMITED, EINVAL, writes=False, aligned=False),
    CommandType.WRITE_ZEROES: _Rule(
        _FUA | CommandFlag.NO_HOLE | CommandFlag.FAST_ZERO, _UNLIMITED, ENOSPC, writes=True, aligned=True
    ),
    CommandType.BLOCK_STATUS: _Rule(_FUA | CommandFlag.REQ_ONE, _UNLIMITED, EINVAL, writes=False, aligned=True),
}


def apart(export: Export, reads: list[Request]) -> list[list[Request]]:
    """The reads in batches of which none waits for another: one, as long as every block is in reach."""
    if not export.cut_off():
        return [reads]
    batches: tuple[list[Request], list[Request]] = [], []
    for request in reads:
        start = request.offset // export.block_bytes
        extent = Extent(start, -(-(request.offset + request.length) // export.block_bytes) - start)
        away = any(where is Residency.REDIRECTED for _, where in export.residency(extent))
        batches[away].append(request)
    return [batch for batch in batches if batch]


def refusal(export: Export, request: Request) -> int:
    """The errno with which a request is refused before any command is made of it; 0 when it is in order."""
    kind, flags, _, offset, length, _ = request
    if kind == _FLUSH:
        return EINVAL if flags & ~_FUA or offset or length else 0
    rule = _RULES.get(kind)
    if rule is None or flags & ~rule.flags:
        return EINVAL
    if rule.writes and export.read_only:
        return EPERM
    if offset + length > export.size_bytes:
        return rule.beyond
    if not 0 < length <= rule.most_bytes:
        return EINVAL
    if rule.aligned and (offset | length) & (export.block_bytes - 1):
        return EINVAL
    if flags & _NO_HOLE and flags & CommandFlag.FAST_ZERO:
        return ENOTSUP  # what must not be a hole is written as data, and never faster than a write
    return 0


def transfer_of(export: Export, request: Request) -> Command:
    """The command that carries out a READ or a WRITE. A READ that is not aligned reads the whole blocks around it."""
    kind, flags, _, offset, length, data = request
    block_bytes = export.block_bytes
    lba = offset // block_bytes
    if kind == _WRITE:
        return Command(write_16(lba, length // block_bytes, fua=bool(flags & _FUA)), (data,))
    blocks = -(-(offset + length) // block_bytes) - lba
    return Command(read_16(lba, blocks), (), blocks * block_bytes)


def command_of(export: Export, request: Request) -> Command | None:
    """The command that carries out a request, without the flush that FLUSH and FUA of TRIM and WRITE_ZEROES need.

    A TRIM that is not aligned gives back the whole blocks within it. Zeroes without a hole may need more: see `rest_of`.
    """
    kind, flags, _, offset, length, _ = request
    if kind <= _WRITE:
        return transfer_of(export, request)
    block_bytes = export.block_bytes
    lba, after = offset // block_bytes, (offset + length) // block_bytes
    if kind == CommandType.TRIM:
        first = -(-offset // block_bytes)
        return unmap([Extent(first, after - first)]) if first < after else None
    if kind == CommandType.WRITE_ZEROES:
        if flags & CommandFlag.NO_HOLE:
            return _zeroes(export, offset, length)
        return write_same_16_unmap(lba, after - lba)
    return None


def rest_of(export: Export, request: Request) -> Iterator[Command]:
    """What is still to do when the command of a request has ended well: zeroes as data, a transfer at a time."""
    if _are_data(request):
        for done in range(MAX_TRANSFER_BYTES, request.length, MAX_TRANSFER_BYTES):
            yield _zeroes(export, request.offset + done, request.length - done)


def _are_data(request: Request) -> bool:
    return request.type == CommandType.WRITE_ZEROES and bool(request.flags & _NO_HOLE)


def _zeroes(export: Export, offset: int, length: int) -> Command:
    """Writes zeroes as data, as many as one transfer takes; all of them are the same few."""
    length = min(length, MAX_TRANSFER_BYTES)
    whole, rest = divmod(length, len(_ZEROES))
    data = (_ZEROES,) * whole + ((_ZEROES[:rest],) if rest else ())
    return Command(write_16(offset // export.block_bytes, length // export.block_bytes), data)
