"""An initiator over NBD: callbacks instead of coroutines, one vectored write for all that is submitted in one step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from errno import ECONNRESET, ENOTCONN
from typing import Final, NamedTuple, cast

from hwvirt.buffers import Buffer, Pieces, ReceiveBuffer, length
from hwvirt.errors import InfrastructureError
from hwvirt.host.initiator import Answer, Op
from hwvirt.host.nbd.chunks import ChunkedReply
from hwvirt.host.nbd.dialogue import Dialogue
from hwvirt.host.nbd.proposal import Offer, propose
from hwvirt.host.nbd.wire import (
    CHUNK,
    MAX_TRANSFER_BYTES,
    REQUEST,
    SIMPLE_REPLY,
    ChunkFlag,
    CommandFlag,
    CommandType,
    Magic,
    NbdViolation,
    TransmissionFlag,
)

__all__ = ["NbdInitiator"]

_CONNECT_SECONDS: Final = 10.0
_LEAST_BLOCK_BYTES: Final = 512
_MAX_CHUNK_BYTES: Final = MAX_TRANSFER_BYTES + (1 << 16)
_COMMANDS: Final = {
    Op.READ: CommandType.READ,
    Op.WRITE: CommandType.WRITE,
    Op.FLUSH: CommandType.FLUSH,
    Op.UNMAP: CommandType.TRIM,
    Op.ZERO: CommandType.WRITE_ZEROES,
}


class _Pending(NamedTuple):
    """A request without an answer: who waits for it, and the bytes that it reads."""

    done: Callable[[Answer], None]
    offset: int
    read_bytes: int


class NbdInitiator(asyncio.BufferedProtocol):
    """Plays the host of one NBD export; implements `Initiator`. Made by `connect`."""

    def __init__(self, export: str, contexts: Sequence[str]) -> None:
        self._dialogue = Dialogue(propose(export, contexts))
        self._offer: Offer | None = None
        self._block_bytes = _LEAST_BLOCK_BYTES
        self._most_bytes = MAX_TRANSFER_BYTES
        self._buffer = ReceiveBuffer()
        self._wanted = 1
        self._cookie = 0
        self._pending: dict[int, _Pending] = {}
        self._chunked: dict[int, ChunkedReply] = {}
        self._outgoing: list[Buffer] = []
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._lost: asyncio.Future[None] = self._loop.create_future()

    @classmethod
    async def connect(cls, host: str, port: int, export: str, contexts: Sequence[str] = ()) -> NbdInitiator:
        """Opens an export; `contexts` are the metadata contexts that `block_status` shall be able to ask for.

        Raises InfrastructureError when nobody listens there, or the server does not offer the export.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                transport, initiator = await loop.create_connection(lambda: cls(export, contexts), host, port)
                try:
                    await initiator._ready
                finally:
                    if initiator._offer is None:
                        transport.abort()
        except TimeoutError as error:
            raise InfrastructureError(f"the NBD server at {host} port {port} does not answer.") from error
        except OSError as error:
            raise InfrastructureError(
                f"no NBD server at {host} port {port}: {error.strerror or error}.",
                next_step="Start it, or correct the address.",
            ) from error
        return initiator

    @property
    def block_bytes(self) -> int:
        """Bytes of a block: the server's minimum request, 512 at least."""
        return self._block_bytes

    @property
    def blocks(self) -> int:
        """Blocks of the export."""
        return self._agreed.size_bytes // self._block_bytes

    @property
    def read_only(self) -> bool:
        """Whether the export refuses writes."""
        return TransmissionFlag.READ_ONLY in self._agreed.flags

    def submit(
        self, op: Op, lba: int, blocks: int, data: Pieces, done: Callable[[Answer], None], *, fua: bool = False
    ) -> None:
        """Sends one request, see `Initiator.submit`."""
        size = blocks * self._block_bytes
        if length(data) != (size if op is Op.WRITE else 0):
            raise ValueError(f"{op.value} of {blocks} blocks with {length(data)} bytes of data")
        if size > self._most_bytes:
            raise ValueError(f"{op.value} of {blocks} blocks, more than the {self._most_bytes} bytes that the server takes")
        if op is Op.FLUSH:
            lba = size = 0
        flags = CommandFlag.FUA if fua else 0
        pending = _Pending(done, lba * self._block_bytes, size if op is Op.READ else 0)
        self._send(_COMMANDS[op], flags, pending, size, data)

    async def block_status(self, context: str, lba: int, blocks: int) -> list[tuple[int, int]]:
        """Runs of (blocks, status value) that cover the extent in order, as the metadata context tells them.

        Raises InfrastructureError when the server does not answer with them.
        """
        runs: list[tuple[int, int]] = []
        after = lba + blocks
        while lba < after:
            answered: asyncio.Future[Answer] = self._loop.create_future()
            reply = ChunkedReply()
            pending = _Pending(answered.set_result, lba * self._block_bytes, 0)
            size = min((after - lba) * self._block_bytes, self._most_bytes)
            cookie = self._send(CommandType.BLOCK_STATUS, 0, pending, size, ())
            self._chunked[cookie] = reply
            error = (await answered).error
            found = [run for number, run in reply.runs if self._agreed.contexts.get(number) == context]
            if error or not found:
                raise InfrastructureError(f"the NBD server tells no {context} (errno {error}).")
            for run_bytes, value in found:
                run = min(run_bytes // self._block_bytes, after - lba)
                runs.append((run, value))
                lba += run
        return runs

    async def close(self) -> None:
        """Ends the path, see `Initiator.close`."""
        if self._lost.done():
            return
        self._leave()
        self._transport.write(REQUEST.pack(Magic.REQUEST, 0, CommandType.DISC, 0, 0, 0))
        self._transport.close()
        done, _ = await asyncio.wait((self._lost,), timeout=_CONNECT_SECONDS)
        if not done:
            self._transport.abort()

    @property
    def _agreed(self) -> Offer:
        assert self._offer is not None, "connect() returns only after the handshake"
        return self._offer

    # -- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The server will greet."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses of it

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        del sizehint
        return self._buffer.writable(self._wanted)

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes arrived."""
        self._buffer.received(nbytes)
        try:
            if self._offer is None:
                self._shake_hands()
            if self._offer is not None:
                self._take_replies()
        except InfrastructureError as error:
            self._end(error)

    def eof_received(self) -> None:
        """The server sends no more: the transport closes itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Whatever has no answer is in doubt."""
        self._end(InfrastructureError(f"the NBD server ended the connection{f': {exc}' if exc else ''}."))
        pending, self._pending = self._pending, {}
        self._outgoing.clear()
        self._lost.set_result(None)
        self._deliver([(request.done, Answer(ECONNRESET, in_doubt=True)) for request in pending.values()])

    # -- from requests to bytes

    def _send(self, command: CommandType, flags: int, pending: _Pending, size: int, data: Pieces) -> int:
        if self._lost.done():
            self._loop.call_soon(pending.done, Answer(ENOTCONN))
            return 0
        self._cookie = cookie = self._cookie + 1
        if not self._outgoing:
            self._loop.call_soon(self._leave)
        self._outgoing.append(REQUEST.pack(Magic.REQUEST, flags, command, cookie, pending.offset, size))
        self._outgoing += data
        self._pending[cookie] = pending
        return cookie

    def _leave(self) -> None:
        if self._outgoing:
            self._transport.writelines(self._outgoing)
            self._outgoing = []

    # -- from bytes to answers

    def _shake_hands(self) -> None:
        dialogue = self._dialogue
        self._buffer.consume(dialogue.receive(self._buffer.unread()))
        self._transport.writelines(dialogue.outgoing())
        self._wanted = dialogue.wanted
        if dialogue.agreement is not None:
            self._offer = offer = dialogue.agreement
            self._block_bytes = max(offer.least_bytes, _LEAST_BLOCK_BYTES)
            self._most_bytes = min(offer.most_bytes, MAX_TRANSFER_BYTES)
            self._wanted = 1
            self._ready.set_result(None)

    def _take_replies(self) -> None:
        """Answers what was answered. The callbacks run last: they may submit or close."""
        unread = self._buffer.unread()
        answers: list[tuple[Callable[[Answer], None], Answer]] = []
        at, end = 0, len(unread)
        self._wanted = SIMPLE_REPLY.size
        while at + SIMPLE_REPLY.size <= end:
            magic, error, cookie = SIMPLE_REPLY.unpack_from(unread, at)
            if magic == Magic.SIMPLE_REPLY:
                request = self._request(cookie)
                data_at = at + SIMPLE_REPLY.size
                after = data_at if error else data_at + request.read_bytes
                if after > end:
                    self._wanted = after - at
                    break
                del self._pending[cookie]
                answers.append((request.done, Answer(error, False, (unread[data_at:after],) if after > data_at else ())))
            elif magic == Magic.CHUNK:
                if at + CHUNK.size > end:
                    self._wanted = CHUNK.size
                    break
                _, flags, kind, cookie, size = CHUNK.unpack_from(unread, at)
                if size > _MAX_CHUNK_BYTES:
                    raise NbdViolation(f"a chunk of {size} bytes")
                after = at + CHUNK.size + size
                if after > end:
                    self._wanted = after - at
                    break
                answers += self._take_chunk(cookie, kind, flags, unread[at + CHUNK.size : after])
            else:
                raise NbdViolation(f"a reply began with {magic:#010x}")
            at = after
        self._buffer.consume(at)
        self._deliver(answers)

    def _deliver(self, answers: Sequence[tuple[Callable[[Answer], None], Answer]]) -> None:
        """Everybody gets his answer. What one of them raises is his own affair: the loop's exception handler is told."""
        for done, answer in answers:
            try:
                done(answer)
            except Exception as error:  # whatever it is, the answers behind it are others'
                context = {"message": "an answer's callback failed", "exception": error, "protocol": self}
                self._loop.call_exception_handler(context)

    def _take_chunk(
        self, cookie: int, kind: int, flags: int, payload: memoryview
    ) -> tuple[tuple[Callable[[Answer], None], Answer], ...]:
        request = self._request(cookie)
        reply = self._chunked.setdefault(cookie, ChunkedReply())
        reply.add(kind, payload)
        if not flags & ChunkFlag.DONE:
            return ()
        data = () if reply.error else reply.content(request.offset, request.read_bytes)
        del self._pending[cookie], self._chunked[cookie]
        return ((request.done, Answer(reply.error, False, data)),)

    def _request(self, cookie: int) -> _Pending:
        request = self._pending.get(cookie)
        if request is None:
            raise NbdViolation(f"a reply to cookie {cookie}, which is not in flight")
        return request

    def _end(self, error: InfrastructureError) -> None:
        if not self._ready.done():
            self._ready.set_exception(error)
        self._transport.abort()
