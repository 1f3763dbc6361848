"""A session on a live transport: futures for replies, deadlines as timers, and one write for all frames of a loop step."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from hwvirt.buffers import Buffer
from hwvirt.errors import LinkError
from hwvirt.link.codec import encode
from hwvirt.link.errors import CorruptFrame, LinkDown
from hwvirt.link.events import Answered, Asked, Ended, Event, LinkStatistics, Peer, Up
from hwvirt.link.messages import Reply, Request
from hwvirt.link.session import Session, State
from hwvirt.link.wire import Body

__all__ = ["Connection", "Owner", "Port", "Responder"]


class Port(Protocol):
    """What carries the bytes: a TCP connection or a serial line. Reliable and in order while it lasts."""

    def send(self, buffers: list[Buffer]) -> None:
        """Sends all, in order; keeps them unchanged until they are sent."""
        ...

    def close(self) -> None:
        """Ends it after what was sent has left."""
        ...


class Owner(Protocol):
    """Who is told what happens on a connection."""

    on_request: Callable[[Request, Responder], None]

    def up(self, connection: Connection, peer: Peer) -> None:
        """The session is up."""
        ...

    def ended(self, connection: Connection, error: LinkError) -> None:
        """The session is over or never came up; every request on it has failed."""
        ...


class Connection:
    """One session, from the first byte to the end. The transport calls `writable`, `received`, `pause`, `resume`, `end`."""

    def __init__(self, session: Session, port: Port, owner: Owner, statistics: LinkStatistics) -> None:
        self.session = session
        self._port = port
        self._owner = owner
        self._statistics = statistics
        self._loop = asyncio.get_running_loop()
        self._futures: dict[int, asyncio.Future[Reply]] = {}
        self._waiting: deque[tuple[Body, int, asyncio.Future[Reply]]] = deque()
        self._unsent: list[Callable[[], None]] = []
        self._paused = False
        self._over = False
        self._flush_is_due = False
        self._timer = self._arm()
        self._flush_soon()

    # The upper side

    def request(self, message: Request, reply_bytes: int) -> asyncio.Future[Reply]:
        """See `Endpoint.request`; the session is up."""
        body = encode(message)
        cost_bytes = self.session.cost(body, reply_bytes)
        future: asyncio.Future[Reply] = self._loop.create_future()
        if self._waiting or self._paused or not self.session.can_send(cost_bytes):
            self._waiting.append((body, cost_bytes, future))
        else:
            self._futures[self.session.request(body, cost_bytes)] = future
            self._flush_soon()
        return future

    def reply(self, tag: int, message: Reply) -> None:
        """Answers a request of this session; dropped and counted when the session is over."""
        if self._over or self.session.state is State.CLOSED:
            self._statistics.dropped_replies += 1
            return
        self.session.reply(tag, message)
        self._flush_soon()

    def when_sent(self, told: Callable[[], None]) -> None:
        """Calls `told` once the transport has room again after what was answered so far, or the session is over."""
        if self._over:
            told()
            return
        self._unsent.append(told)
        self._flush_soon()

    @property
    def waiting(self) -> int:
        """Requests that wait for credit."""
        return len(self._waiting)

    def end(self, error: LinkError) -> None:
        """Ends the session from this side; the peer is told where it still can be. Idempotent."""
        if not self._over:
            self.session.close()
            self._finish(error)

    # The transport's side

    @property
    def is_up(self) -> bool:
        """Whether the peer has proven itself, and the session is not over."""
        return self.session.state is State.UP

    def broke(self, error: LinkError) -> None:
        """What arrived is of no use, and the transport has told the other end. Idempotent."""
        self._statistics.corrupt += self.is_up and isinstance(error, CorruptFrame)
        self.end(error)

    def writable(self) -> memoryview:
        """Room for received bytes, never empty."""
        return self.session.writable()

    def received(self, size_bytes: int) -> None:
        """`size_bytes` were put at the front of `writable()`."""
        self._flush_is_due = True  # what the events cause leaves below, in one write
        self._handle(self.session.received(size_bytes, time.monotonic()))
        if self._waiting and not self._over:
            self._pump()
        self._flush()

    def pause(self) -> None:
        """The transport has enough: requests wait from now on."""
        self._paused = True

    def resume(self) -> None:
        """The transport takes more."""
        self._paused = False
        self._pump()
        self._flush_soon()

    # Inside

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            if self._over:
                return
            match event:
                case Answered(tag, reply):
                    future = self._futures.pop(tag)
                    if not future.done():
                        future.set_result(reply)
                case Asked(tag, request):
                    self._owner.on_request(request, Responder(self, tag))
                case Up(peer):
                    self._rearm()
                    self._owner.up(self, peer)
                case Ended(error):
                    self._finish(error)

    def _pump(self) -> None:
        waiting, session = self._waiting, self.session
        while waiting and not self._paused and session.can_send(waiting[0][1]):
            body, cost_bytes, future = waiting.popleft()
            if not future.done():
                self._futures[session.request(body, cost_bytes)] = future

    def _flush_soon(self) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        if out := self.session.outgoing():
            try:
                self._port.send(out)
            except Exception as error:  # whatever it is: who waits for this session must hear that it is over
                self.end(LinkDown(f"link: nothing can be sent to {self.session.place} any more: {error!r}."))
        if self._unsent and not self._paused:
            self._tell_sent()

    def _tell_sent(self) -> None:
        unsent, self._unsent = self._unsent, []
        for told in unsent:
            told()

    def _tick(self) -> None:
        self._handle(self.session.tick(time.monotonic()))
        if not self._over:
            self._flush()
        if not self._over:
            self._rearm()

    def _rearm(self) -> None:
        # Traffic only moves the deadline on, so the timer is armed anew when it fires and when the session comes up.
        self._timer.cancel()
        self._timer = self._arm()

    def _arm(self) -> asyncio.TimerHandle:
        # Not the loop's own clock: that of uvloop counts whole milliseconds.
        return self._loop.call_later(max(0.0, self.session.next_deadline() - time.monotonic()), self._tick)

    def _finish(self, error: LinkError) -> None:
        self._over = True
        self._timer.cancel()
        self._flush()
        try:
            self._port.close()
        finally:
            self._tell(error)

    def _tell(self, error: LinkError) -> None:
        """Who asked, and then the owner, that the session is over."""
        self._tell_sent()
        unanswered = [*self._futures.values(), *(future for _, _, future in self._waiting)]
        self._futures.clear()
        self._waiting.clear()
        for future in unanswered:
            if not future.done():
                future.set_exception(LinkDown(error.reason, next_step=error.next_step))
        self._owner.ended(self, error)


class Responder:
    """The way back for one request."""

    __slots__ = ("_connection", "_tag")

    def __init__(self, connection: Connection, tag: int) -> None:
        self._connection = connection
        self._tag = tag

    @property
    def session_epoch(self) -> int:
        """The session in which the request came."""
        peer = self._connection.session.peer
        return peer.epoch if peer else 0

    @property
    def most_bytes(self) -> int:
        """The most that the frame of a reply may have, as the peer told; 0 while nobody is there."""
        peer = self._connection.session.peer
        return peer.limits.frame_bytes if peer else 0

    @property
    def alive(self) -> bool:
        """Whether that session is still up, so that a reply would reach the peer."""
        return self._connection.session.state is State.UP

    def reply(self, message: Reply) -> None:
        """Answers, once. A reply to a session that is over is dropped and counted, a too large one becomes Refused.

        Raises LocalLinkError for a second answer.
        """
        self._connection.reply(self._tag, message)

    def when_sent(self, told: Callable[[], None]) -> None:
        """Calls `told` once the transport has taken the replies so far and has room again, or the session is over."""
        self._connection.when_sent(told)
