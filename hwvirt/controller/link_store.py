"""The store across the link. Requests outlive sessions: what was not answered is asked again when the link is back."""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from hwvirt.buffers import Pieces, joined
from hwvirt.controller.correlation import Rows
from hwvirt.controller.ledger import ROW
from hwvirt.errors import PeerError
from hwvirt.link.messages import (
    Done,
    Drop,
    Flush,
    Flushed,
    Free,
    LedgerPage,
    Placement,
    Query,
    Read,
    ReadData,
    Refused,
    Reply,
    Request,
    Slice,
    Unmap,
    Write,
    Written,
)
from hwvirt.scsi.sense import CheckCondition
from hwvirt.scsi.volume import Extent

__all__ = ["Asker", "LinkStore"]

_PAGE_ROWS = 4096
_Expected = TypeVar("_Expected", bound=Reply)


class Asker(Protocol):
    """Something that answers requests: an endpoint as it is, or one that waits for the link to come back."""

    @property
    def store_epoch(self) -> int:
        """The epoch that the other controller's store told last."""
        ...

    def settled_sequence(self, volume: int) -> int:
        """All writes of the volume up to this sequence number have their answers, or will never be asked again."""
        ...

    def ask(self, message: Request) -> Awaitable[Reply]:
        """The reply. Raises LinkDown, or CheckCondition when the link was away for too long."""
        ...


class LinkStore:
    """Implements `Store` in messages. It keeps nothing: patience and repetition are the asker's."""

    def __init__(self, asker: Asker, block_bytes: int) -> None:
        self._asker = asker
        self.block_bytes = block_bytes

    @property
    def epoch(self) -> int:
        """See `Store.epoch`."""
        return self._asker.store_epoch

    async def write(
        self, volume: int, slices: Sequence[Slice], data: Pieces, digests: array[int]
    ) -> Sequence[Placement]:
        """See `Store.write`."""
        message = Write(volume, self._asker.settled_sequence(volume), slices, data, digests)
        return _expect(Written, await self._asker.ask(message)).placements

    async def read(self, volume: int, placements: Sequence[Placement]) -> list[Pieces | CheckCondition]:
        """See `Store.read`."""
        reply = _expect(ReadData, await self._asker.ask(Read(volume, placements)))
        failures = {failure.index: CheckCondition(failure.sense) for failure in reply.failures}
        results: list[Pieces | CheckCondition] = []
        data, offset = memoryview(joined(reply.data)) if reply.data else memoryview(b""), 0
        for index, place in enumerate(placements):
            if index in failures:
                results.append(failures[index])
                continue
            end = offset + place.blocks * self.block_bytes
            results.append((data[offset:end],))
            offset = end
        if offset != len(data):
            raise PeerError(f"link: {len(data)} bytes of read data, {offset} expected.")
        return results

    async def unmap(self, volume: int, slices: Sequence[Slice]) -> None:
        """See `Store.unmap`."""
        _expect(Done, await self._asker.ask(Unmap(volume, slices)))

    async def flush(self, volume: int) -> int:
        """See `Store.flush`."""
        return _expect(Flushed, await self._asker.ask(Flush(volume))).store_epoch

    async def free(self, volume: int, placements: Sequence[Placement]) -> None:
        """See `Store.free`."""
        _expect(Done, await self._asker.ask(Free(volume, placements)))

    async def drop(self, volume: int, extent: Extent) -> None:
        """See `Store.drop`."""
        _expect(Done, await self._asker.ask(Drop(volume, extent.lba, extent.blocks)))

    async def ledger(self, volume: int) -> Rows:
        """See `Store.ledger`."""
        rows = bytearray()  # it grows in place, where pages would be there twice in the end
        after: int | None = None
        while True:
            page = _expect(LedgerPage, await self._asker.ask(Query(volume, after, _PAGE_ROWS)))
            for piece in page.rows:
                rows += piece
            if len(rows) % ROW.itemsize or (page.next is not None and page.next <= (-1 if after is None else after)):
                raise PeerError("link: a page of the ledger that follows none.")
            if page.next is None:
                return np.frombuffer(rows, ROW)
            after = page.next


def _expect(kind: type[_Expected], reply: Reply) -> _Expected:
    if isinstance(reply, Refused):
        raise CheckCondition(reply.sense)
    if not isinstance(reply, kind):
        raise PeerError(f"link: {kind.__name__} expected, {type(reply).__name__} received.")
    return reply
