"""One end of the link for the floors above: ask, be asked, and know whether the other controller is there."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from enum import Enum

from hwvirt.errors import LinkError, PeerError
from hwvirt.link.config import EthernetLink, Identity, Role, SerialLink, address_text
from hwvirt.link.connection import Connection, Port, Responder
from hwvirt.link.errors import LinkDown, Unproven
from hwvirt.link.ethernet import Dialler, Listener
from hwvirt.link.events import LinkStatistics, Peer
from hwvirt.link.messages import Busy, Reply, Request
from hwvirt.link.serial.driver import nobody_answers
from hwvirt.link.serial.traits import LineStatistics
from hwvirt.link.serial.transport import SerialTransport
from hwvirt.link.session import Session
from hwvirt.trace import Trace
from hwvirt.units import Deadline

__all__ = ["Endpoint", "LinkState", "Responder"]

_STRANGERS_MOST = 16
"""Connections in their handshake; one more and the oldest goes, so that silent ones do not keep the peer out."""
_REFUSALS_TOLD_EVERY_S = 1.0
_UNREACHABLE_TOLD_AFTER_S = 1.0
"""Two controllers that start together need not be told that one of them was first."""


class LinkState(Enum):
    """Whether requests can flow, and if not, why."""

    DOWN = "down"  # not started, or closed
    CONNECTING = "connecting"  # nobody is there yet, or nobody any more
    UP = "up"
    REFUSED = "refused"  # somebody is there, but it is not the peer: see `last_error`


class Endpoint:
    """The link of one controller, in one asyncio loop. Sessions come and go; at most one is up.

    Set the three callbacks before `start`; they are called in the loop and must not block. `on_request` may answer at once
    or later; what it raises ends the session. `on_down` follows each `on_up`, when all requests of that session have failed.
    """

    def __init__(self, identity: Identity, link: EthernetLink | SerialLink, trace: Trace) -> None:
        self.on_request: Callable[[Request, Responder], None] = _not_served
        self.on_up: Callable[[Peer], None] = lambda peer: None
        self.on_down: Callable[[LinkError], None] = lambda reason: None
        self.last_error: LinkError | None = None
        self._identity = identity
        self._link = link
        self._trace = trace
        self._state = LinkState.DOWN
        self._statistics = LinkStatistics()
        self._live: Connection | None = None
        self._strangers: dict[Connection, None] = {}
        self._sessions = 0
        self._closed = False
        self._refusal_told_at = float("-inf")
        self._unreachable_why = self._unreachable_told = ""
        self._telling: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._transport: Listener | Dialler | SerialTransport
        if isinstance(link, SerialLink):
            self._transport = SerialTransport(link, self._connected, self._unreachable)
        elif link.role is Role.LISTEN:
            self._transport = Listener(link, self._connected)
        else:
            self._transport = Dialler(link, self._connected, self._unreachable)

    @property
    def state(self) -> LinkState:
        """Whether requests can flow."""
        return self._state

    @property
    def peer(self) -> Peer | None:
        """Who is at the other end, while the link is up."""
        return self._live.session.peer if self._live else None

    @property
    def statistics(self) -> LinkStatistics:
        """Counts since the start, kept up to date."""
        return self._statistics

    @property
    def line(self) -> LineStatistics | None:
        """Counts of the serial line, kept up to date; None on Ethernet."""
        return self._transport.statistics if isinstance(self._transport, SerialTransport) else None

    @property
    def waiting(self) -> int:
        """Requests that wait for the peer's credit."""
        return self._live.waiting if self._live else 0

    @property
    def port(self) -> int:
        """The TCP port: the real one, also where the link says 0; 0 on a serial line."""
        return self._transport.port

    async def start(self) -> None:
        """Begins to listen or to connect. Raises LinkError when it cannot listen; everything later heals by itself."""
        await self._transport.start()
        self._set_state(LinkState.CONNECTING)
        self._trace.emit("link.started", role=self._link.role.value, place=self._place)

    async def wait_up(self, deadline: Deadline) -> Peer:
        """Returns when the link is up.

        Raises the LinkError that stands in the way: at once when the peer was reached and refuses, else at the deadline.
        """
        while self._state is not LinkState.UP:
            if self.last_error and self._state is LinkState.REFUSED and self._link.role is Role.CONNECT:
                raise self.last_error
            self._changed.clear()
            try:
                async with asyncio.timeout(None if deadline.at == float("inf") else deadline.remaining):
                    await self._changed.wait()
            except TimeoutError:
                raise self.last_error or self._nobody_came() from None
        peer = self.peer
        assert peer is not None
        return peer

    async def close(self) -> None:
        """Ends the session and the transport for good; `on_down` is the last callback. Idempotent."""
        self._closed = True
        self._tell_nothing()
        await self._transport.close()
        self._set_state(LinkState.DOWN)

    def renew(self, why: str) -> None:
        """Ends the session, if there is one; as after a loss of the link another one begins."""
        if self._live is not None:
            self._live.end(LinkDown(why))

    def request(self, message: Request, reply_bytes: int = 0) -> asyncio.Future[Reply]:
        """Asks the peer; requests leave in the order of the calls, as soon as the peer's credit covers them.

        `reply_bytes`: what the reply may weigh, so that it is covered too. The future fails with LinkDown when there is no
        session or it ends first: the request may have been done. Raises LocalLinkError for one that can never be sent.
        """
        if self._live is None:
            future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
            future.set_exception(self._no_session())
            return future
        return self._live.request(message, reply_bytes)

    # What the transport reports

    def _connected(self, port: Port, place: str) -> Connection:
        session = Session(
            self._link.role,
            self._identity,
            self._link.secret,
            os.urandom(32),
            place,
            time.monotonic(),
            limits=self._link.limits,
            timing=self._link.timing if isinstance(self._link, EthernetLink) else self._link.paced_timing,
            only_peer=self.peer.name if self.peer else self._link.peer,
            statistics=self._statistics,
        )
        connection = Connection(session, port, self, self._statistics)
        self._strangers[connection] = None
        if len(self._strangers) > _STRANGERS_MOST:
            next(iter(self._strangers)).end(LinkDown("link: too many connections that prove nothing."))
        return connection

    def _unreachable(self, error: LinkError) -> None:
        if self._closed:
            return
        self.last_error = error
        self._unreachable_why = str(error)
        self._set_state(LinkState.CONNECTING)
        if self._telling is None:
            loop = asyncio.get_running_loop()
            self._telling = loop.call_later(_UNREACHABLE_TOLD_AFTER_S, self._tell_unreachable)

    def _tell_unreachable(self) -> None:
        self._telling = None
        if self._unreachable_why != self._unreachable_told:
            self._unreachable_told = self._unreachable_why
            self._trace.emit("link.unreachable", reason=self._unreachable_told)

    def _tell_nothing(self) -> None:
        self._unreachable_told = ""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None

    # What the connections report

    def up(self, connection: Connection, peer: Peer) -> None:
        """See `Owner`: from now on this is the session; an older one is over."""
        if self._live is not None:
            self._live.end(LinkDown(f"link: {peer.name} has begun a new session."))
        self._strangers.pop(connection, None)
        self._live = connection
        self.last_error = None
        self._tell_nothing()
        self._sessions += 1
        self._statistics.reconnects = self._sessions - 1
        self._set_state(LinkState.UP)
        self._trace.emit("link.up", peer=peer.name, place=peer.place, boot_epoch=peer.boot_epoch, epoch=f"{peer.epoch:016x}")
        self.on_up(peer)

    def ended(self, connection: Connection, error: LinkError) -> None:
        """See `Owner`."""
        if connection is self._live:
            self._live = None
            self.last_error = error
            self._set_state(LinkState.CONNECTING)
            self._trace.emit("link.down", reason=str(error))
            self.on_down(error)
            return
        self._strangers.pop(connection, None)
        connecting = self._link.role is Role.CONNECT
        if isinstance(error, PeerError) and not (connecting and isinstance(error, Unproven)):
            self._refused(error)
        elif connecting:
            self._unreachable(error)

    def _refused(self, error: PeerError) -> None:
        self._tell_nothing()  # somebody was reached
        self._statistics.refused_peers += 1
        now = time.monotonic()
        if now - self._refusal_told_at >= _REFUSALS_TOLD_EVERY_S:
            self._refusal_told_at = now
            self._trace.emit("link.refused", reason=str(error), refused_peers=self._statistics.refused_peers)
        if self._live is None:
            self.last_error = error
            self._set_state(LinkState.REFUSED)

    # Inside

    @property
    def _place(self) -> str:
        link = self._link
        return link.device if isinstance(link, SerialLink) else address_text(link.host, self.port)

    def _set_state(self, state: LinkState) -> None:
        self._state = LinkState.DOWN if self._closed else state
        self._changed.set()

    def _no_session(self) -> LinkDown:
        if self.last_error is None:
            return LinkDown("link: not up yet.")
        return LinkDown(self.last_error.reason, next_step=self.last_error.next_step)

    def _nobody_came(self) -> LinkError:
        if isinstance(self._link, SerialLink):
            return nobody_answers(self._link.device)
        return LinkError(f"link: nobody has connected to {self._place}.", next_step="Start the other controller.")


def _not_served(_request: Request, responder: Responder) -> None:
    responder.reply(Busy())
