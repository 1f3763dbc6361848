"""One host's connection: handshake, then batches of requests in and replies out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from errno import EINVAL, EIO
from typing import Any, Final, Protocol, TypeAlias, cast

from hwvirt.buffers import Buffer, ReceiveBuffer
from hwvirt.eager import Errand, begin
from hwvirt.host.nbd.dialogue import Dialogue
from hwvirt.host.nbd.execution import failure_of, perform, transfer
from hwvirt.host.nbd.export import Export, block_status
from hwvirt.host.nbd.handshake import Agreement, negotiate
from hwvirt.host.nbd.replies import data_reply, done_reply, error_reply, status_reply
from hwvirt.host.nbd.requests import Request, apart, refusal, take_requests
from hwvirt.host.nbd.wire import MAX_TRANSFER_BYTES, CommandFlag, CommandType, NbdViolation
from hwvirt.scsi.command import Completion
from hwvirt.scsi.volume import Extent
from hwvirt.trace import Trace

__all__ = ["Connection", "House"]

_Execute: TypeAlias = Callable[[Export, Sequence[Request]], Coroutine[Any, Any, list[Completion]]]
# To look up a member of an enum is a call; what is done for every request does without.
_READ, _WRITE, _DISC = CommandType.READ, CommandType.WRITE, CommandType.DISC
_HANDSHAKE_SECONDS: Final = 10.0
_MAX_REQUESTS: Final = 1024
_MAX_TRANSFERS_BYTES: Final = 2 * MAX_TRANSFER_BYTES
_MAX_UNSENT_BYTES: Final = 4 << 20
_MAX_RUNS: Final = 1024


class House(Protocol):
    """Who keeps the connections."""

    def entered(self, connection: Connection) -> None:
        """A client is there, in its handshake; it may be dropped at once, or another one that is."""
        ...

    def left(self, connection: Connection) -> None:
        """The client is gone and none of its requests is in flight any more."""
        ...


class Connection(asyncio.BufferedProtocol):
    """Serves one client. Rule 1: what arrived in one read is one batch for each class of request. Rule 2: a request that
    was begun is carried to its end, whoever hangs up. Rule 3: past a limit nothing is read, so nothing piles up."""

    def __init__(self, exports: Sequence[Export], trace: Trace, house: House) -> None:
        self._dialogue = Dialogue(negotiate(exports))
        self._trace = trace
        self._house = house
        self._buffer = ReceiveBuffer()
        self._wanted = 1
        self._agreement: Agreement | None = None
        self._errands: set[Errand] = set()
        self._requests = 0
        self._transfers_bytes = 0
        self._full = False  # a limit of requests in flight is reached
        self._choked = False  # the client does not take its replies
        self._ending = False  # no more requests; close after the last reply
        self._reading = True
        self._lost = False
        self._reason = "the client hung up"
        self.peer = "?"

    # -- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake begins, and the time for it runs."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses of it
        self._transport.set_write_buffer_limits(high=_MAX_UNSENT_BYTES)
        address = transport.get_extra_info("peername")
        self.peer = f"{address[0]}:{address[1]}" if address else "?"
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.call_later(_HANDSHAKE_SECONDS, self.drop, "the handshake took too long")
        self._trace.emit("nbd.connected", peer=self.peer)
        self._house.entered(self)
        self._send(self._dialogue.outgoing())

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        del sizehint
        return self._buffer.writable(self._wanted)

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes arrived."""
        self._buffer.received(nbytes)
        self._advance()

    def eof_received(self) -> bool:
        """The client sends no more; the transport stays until the last reply has gone."""
        self.finish()
        return True

    def pause_writing(self) -> None:
        """The client does not read."""
        self._choked = True
        self._steer()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._choked = False
        self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        """Requests in flight go on; their replies have nowhere to go."""
        self._lost = self._ending = True
        self._deadline.cancel()
        if exc is not None:
            self._reason = str(exc)
        self._trace.emit("nbd.disconnected", peer=self.peer, reason=self._reason)
        if self._requests == 0:
            self._house.left(self)

    # -- the server's side

    @property
    def shaking_hands(self) -> bool:
        """Whether it may still open an export, and has not."""
        return self._agreement is None and not self._ending

    def drop(self, reason: str) -> None:
        """Ends the connection at once, for a reason that goes on the trace."""
        if not self._lost:
            self._reason = reason
            self._ending = True
            self._trace.emit("nbd.dropped", peer=self.peer, reason=reason)
            self._transport.abort()

    def finish(self) -> None:
        """Takes no more requests and closes after the last reply."""
        self._ending = True
        if self._requests == 0:
            self._transport.close()
        else:
            self._steer()

    # -- from bytes to batches

    def _advance(self) -> None:
        try:
            if self._agreement is None:
                self._shake_hands()
            if self._agreement is not None:
                while self._take(self._agreement) and self._full:
                    pass  # some may have been answered at once: there is room for more
        except NbdViolation as violation:
            self.drop(violation.reason)
            return
        self._steer()

    def _shake_hands(self) -> None:
        if self._ending or self._choked:
            return
        self._buffer.consume(self._dialogue.receive(self._buffer.unread()))
        self._send(self._dialogue.outgoing())
        if not self._dialogue.finished:
            self._wanted = self._dialogue.wanted
            return
        self._deadline.cancel()
        self._agreement = self._dialogue.agreement
        if self._agreement is None:
            self._reason = "the client ended the handshake"
            self.finish()
        else:
            self._trace.emit("nbd.opened", peer=self.peer, export=self._agreement.export.name)

    def _take(self, agreement: Agreement) -> bool:
        """Begins what has arrived, as far as the limits go. Whether there was anything."""
        if self._ending or self._choked:
            return False
        taken = take_requests(
            self._buffer.unread(), _MAX_REQUESTS - self._requests, _MAX_TRANSFERS_BYTES - self._transfers_bytes
        )
        self._buffer.consume(taken.consumed)
        self._wanted, self._full = taken.wanted, taken.full
        if not taken.requests:
            return False
        self._requests += len(taken.requests)
        self._transfers_bytes += taken.transfer_bytes
        self._dispatch(agreement, taken.requests)
        return True

    def _dispatch(self, agreement: Agreement, requests: list[Request]) -> None:
        export = agreement.export
        reads: list[Request] = []
        writes: list[Request] = []
        others: list[Request] = []
        answered: list[Request] = []
        replies: list[Buffer] = []
        for request in requests:
            kind = request.type
            if kind == _DISC:
                self._ending, self._reason = True, "the client said goodbye"
                answered.append(request)
            elif error := refusal(export, request):
                answered.append(request)
                text = "the request does not fit this export"
                replies.append(error_reply(request.cookie, error, text, structured=agreement.structured))
            elif kind == _READ:
                reads.append(request)
            elif kind == _WRITE:
                writes.append(request)
            elif kind == CommandType.CACHE:
                answered.append(request)
                replies.append(done_reply(request.cookie))
            elif kind == CommandType.BLOCK_STATUS:
                answered.append(request)
                replies.append(_status(agreement, request))
            else:
                others.append(request)
        if answered:
            self._settle(answered, replies)
        if reads:
            for batch in apart(export, reads):
                self._begin(agreement, batch, transfer)
        if writes:
            self._begin(agreement, writes, transfer)
        if others:
            self._begin(agreement, others, perform)

    def _begin(self, agreement: Agreement, requests: list[Request], execute: _Execute) -> None:
        """Carries requests out; what has to wait for nothing is answered when this returns."""
        if errand := begin(self._carry_out(agreement, requests, execute), self._ended):
            self._errands.add(errand)

    def _ended(self, errand: Errand) -> None:
        self._errands.discard(errand)
        if self._full:
            self._advance()

    # -- from batches to bytes

    async def _carry_out(self, agreement: Agreement, requests: list[Request], execute: _Execute) -> None:
        export, structured = agreement.export, agreement.structured
        replies: list[Buffer] = []
        try:
            completions = await execute(export, requests)
        except Exception as error:  # whatever a logical unit throws, the client must get its answers
            self._trace.emit("nbd.failed", peer=self.peer, export=export.name, reason=repr(error))
            replies = [error_reply(request.cookie, EIO, "internal error", structured=structured) for request in requests]
        else:
            for request, completion in zip(requests, completions, strict=True):
                if completion.status and (failure := failure_of(completion)):
                    replies.append(error_reply(request.cookie, *failure, structured=structured))
                elif request.type == _READ:
                    replies += data_reply(request, completion.data, export.block_bytes, structured=structured)
                else:
                    replies.append(done_reply(request.cookie))
        self._settle(requests, replies)

    def _settle(self, requests: list[Request], replies: list[Buffer]) -> None:
        """These requests are done with; their replies leave in one write."""
        self._send(replies)
        self._requests -= len(requests)
        for request in requests:
            self._transfers_bytes -= request.transfer_bytes
        if self._ending and self._requests == 0:
            if self._lost:
                self._house.left(self)
            else:
                self._transport.close()

    def _send(self, pieces: Sequence[Buffer]) -> None:
        if pieces and not self._transport.is_closing():
            self._transport.writelines(pieces)

    def _steer(self) -> None:
        """Reads exactly while requests are welcome."""
        if self._transport.is_closing():
            return
        welcome = not (self._full or self._choked or self._ending)
        if welcome != self._reading:
            self._reading = welcome
            if welcome:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()


def _status(agreement: Agreement, request: Request) -> bytes:
    """The reply to BLOCK_STATUS, which is an error when no metadata context was selected."""
    export = agreement.export
    if not agreement.contexts:
        text = "no metadata context was selected"
        return error_reply(request.cookie, EINVAL, text, structured=agreement.structured)
    block_bytes = export.block_bytes
    extent = Extent(request.offset // block_bytes, request.length // block_bytes)
    most_runs = 1 if request.flags & CommandFlag.REQ_ONE else _MAX_RUNS
    found = [
        (number, [(blocks * block_bytes, value) for blocks, value in block_status(export, extent, name, most_runs)])
        for number, name in agreement.contexts
    ]
    return status_reply(request.cookie, found)
