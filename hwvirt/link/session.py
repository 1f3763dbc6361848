"""One session of the link, pure: bytes and time in, events and bytes out.

Rule 1: a frame of another epoch, or one that came before, is counted and thrown away, whatever it says.
Rule 2: a reply counts for the open request whose tag it carries, once; any other is counted and thrown away.
Rule 3: what the peer granted bounds what is asked; what this side granted bounds what it accepts.
Rule 4: one missing, damaged or senseless frame ends the session. What it left unanswered is in doubt and may be asked again.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple, cast

from hwvirt.buffers import Buffer, ReceiveBuffer
from hwvirt.errors import LinkError, LocalLinkError, PeerError
from hwvirt.link import reasons
from hwvirt.link.codec import FIRST_REPLY, FIRST_REQUEST, Kind, answers, decode, encode
from hwvirt.link.config import Identity, LinkLimits, LinkTiming, Role
from hwvirt.link.credit import Credit
from hwvirt.link.errors import CorruptFrame, LinkDown, WrongVersion
from hwvirt.link.events import Answered, Asked, Ended, Event, LinkStatistics, Peer, Up
from hwvirt.link.handshake import Handshake
from hwvirt.link.life import Life, Sign
from hwvirt.link.messages import Bye, Farewell, Hello, Message, Ping, Pong, Proof, Refused, Reply, Request
from hwvirt.link.wire import HEADER_BYTES, OPEN_SEAL, Body, Header, read_header, write_frame
from hwvirt.scsi.sense import INTERNAL_TARGET_FAILURE

__all__ = ["Session", "State"]

_HANDSHAKE_FRAME_BYTES = 512
"""No frame is larger before the peer has proven the secret: a stranger costs this much memory."""
_NO_LIMITS = LinkLimits(requests=1, request_bytes=4096, frame_bytes=4096)
_LAST_TAG = 0xFFFF_FFFF
_NUMBERS = 1 << 32


class State(Enum):
    """Where a session is; the value completes "while ..."."""

    HELLO = "its hello is awaited"
    PROOF = "its proof is awaited"
    CONFIRM = "the first frame of the session is awaited, which shows that it accepted our proof"
    UP = "both sides ask and answer"
    CLOSED = "the session is over"


class _Over(Exception):
    """Ends the session from within a frame, with what the peer is told, if anything."""

    def __init__(self, error: LinkError, farewell: Farewell | None) -> None:
        self.error, self.farewell = error, farewell
        super().__init__(str(error))


class Session:
    """One end of a session. `place` names the other end in errors; `nonce` are 32 random bytes that are used once.

    `only_peer`: the one name that is accepted; None: any but our own.
    """

    def __init__(
        self,
        role: Role,
        identity: Identity,
        secret: bytes,
        nonce: bytes,
        place: str,
        now: float,
        *,
        limits: LinkLimits | None = None,
        timing: LinkTiming | None = None,
        only_peer: str | None = None,
        statistics: LinkStatistics | None = None,
    ) -> None:
        self.role = role
        self.place = place
        self.state = State.HELLO
        self.peer: Peer | None = None
        self.binding = b""  # what the connection below is known by at both ends, where it is known by anything
        self._limits = limits or LinkLimits()
        self._timing = timing or LinkTiming()
        self._statistics = statistics or LinkStatistics()
        self._secret = secret
        self._only_peer = only_peer
        self._hello = Hello(
            identity.name,
            identity.boot_epoch,
            nonce,
            self._limits.requests,
            self._limits.request_bytes,
            self._limits.frame_bytes,
        )
        self._handshake: Handshake | None = None
        self._met: Peer | None = None  # what the hello said, not yet proven
        self._epoch = 0
        self.seal = self._peers_seal = OPEN_SEAL  # of the frames of this side, and of the peer's
        self._received = ReceiveBuffer(_HANDSHAKE_FRAME_BYTES)
        self._header: Header | None = None
        self._most_bytes = _HANDSHAKE_FRAME_BYTES
        self._out: list[Buffer] = []
        self._asked = Credit(_NO_LIMITS)
        self._accepted = Credit(self._limits)
        self._tag = 0
        self._sent_frames = 0
        self._taken_frames = 0
        self._began = now
        self._life = Life(self._timing, now)
        if role is Role.CONNECT:
            self._send(self._hello)

    # Bytes in, bytes out

    def writable(self) -> memoryview:
        """Room for received bytes, never empty: enough to complete the frame whose header has arrived."""
        return self._received.writable(self._header.frame_bytes if self._header else HEADER_BYTES)

    def received(self, size_bytes: int, now: float) -> list[Event]:
        """`size_bytes` were put at the front of `writable()`. Data in the events lies there and stays."""
        events: list[Event] = []
        if self.state is State.CLOSED:
            return events
        self._received.received(size_bytes)
        self._statistics.received_bytes += size_bytes
        self._life.heard_at = now
        try:
            while self._take_frame(now, events):
                pass
        except _Over as over:
            events.append(self._end(over.error, over.farewell))
        except PeerError as error:
            # Only who has said a hello, or nearly, is told why: a stranger learns nothing from junk.
            known = self.state is not State.HELLO or isinstance(error, WrongVersion)
            self._statistics.corrupt += isinstance(error, CorruptFrame) and self.state is State.UP
            events.append(self._end(error, Farewell.BROKEN if known else None))
        return events

    def outgoing(self) -> list[Buffer]:
        """Takes the bytes to send, in order."""
        out, self._out = self._out, []
        return out

    # Requests and replies

    def cost(self, body: Body, reply_bytes: int = 0) -> int:
        """The credit that the request takes. Raises LocalLinkError when no credit would ever suffice, or nobody is there."""
        if self.peer is None or self.state is not State.UP:
            raise LocalLinkError(f"link: no session with {self.place} is up.")
        theirs, ours = self.peer.limits, self._limits
        frame_bytes = body.frame_bytes
        cost_bytes = max(frame_bytes, reply_bytes)
        if frame_bytes > theirs.frame_bytes or cost_bytes > theirs.request_bytes or reply_bytes > ours.frame_bytes:
            raise LocalLinkError(
                f"link: a {Kind(body.kind).name} of {frame_bytes} bytes, answered by {reply_bytes}, is too large.",
                next_step=f"Requests may have {theirs.frame_bytes} bytes, replies {ours.frame_bytes}.",
            )
        return cost_bytes

    def can_send(self, cost_bytes: int) -> bool:
        """Whether the peer's credit covers one more request of that cost now."""
        return self._asked.covers(cost_bytes)

    def request(self, body: Body, cost_bytes: int) -> int:
        """Sends an encoded request of that `cost`; the tag will come back in its Answered.

        Raises LocalLinkError beyond the peer's credit.
        """
        if self.state is not State.UP or not self._asked.covers(cost_bytes):
            raise LocalLinkError(f"link: {self.place} has not granted a request of {cost_bytes} bytes.")
        tag = self._next_tag()
        self._asked.take(tag, body.kind, cost_bytes)
        self._statistics.in_flight = len(self._asked)
        self._send_body(body, tag)
        return tag

    def reply(self, tag: int, message: Reply) -> None:
        """Answers an Asked; where the reply is larger than the peer takes, with Refused, so that it does not wait in vain.

        Raises LocalLinkError when no such request is open (any more).
        """
        body = encode(message)
        if self.state is not State.UP or self.peer is None or tag not in self._accepted:
            raise LocalLinkError(f"link: no request with tag {tag} of {self.place} waits for a reply.")
        most_bytes = self.peer.limits.frame_bytes
        if body.frame_bytes > most_bytes:
            reason = f"the {Kind(body.kind).name} reply has {body.frame_bytes} bytes, more than {most_bytes}"
            body = encode(Refused(INTERNAL_TARGET_FAILURE, reason=reason))
        self._accepted.give_back(tag)
        self._send_body(body, tag)

    # Time

    def next_deadline(self) -> float:
        """When `tick` is to be called, if nothing happens before."""
        if self.state is State.CLOSED:
            return float("inf")
        return self._life.next_deadline() if self.state is State.UP else self._began + self._timing.handshake_s

    def tick(self, now: float) -> list[Event]:
        """Does what is due: a ping, or the end when nothing sensible has come for too long."""
        place, timing = self.place, self._timing
        if self.state is not State.UP:
            return [self._end(reasons.unproven(place, timing.handshake_s), None)] if now >= self.next_deadline() else []
        match self._life.due(now, self._statistics.received_frames, len(self._received.unread())):
            case Sign.PING:
                self._ping(now)
            case Sign.SILENCE:
                return [self._end(reasons.silent(place, timing.silence_s), None)]
            case Sign.UNFINISHED:
                return [self._end(reasons.unfinished(place, timing.silence_s), Farewell.BROKEN)]
        return []

    def close(self) -> None:
        """Ends the session from this side; tells the peer, but no stranger."""
        if self.state is not State.CLOSED:
            known = self.state is not State.HELLO
            self._end(LinkDown("link: closed by this controller."), Farewell.CLOSING if known else None)

    # Frames

    def _take_frame(self, now: float, events: list[Event]) -> bool:
        unread = self._received.unread()
        if not unread:
            return False
        header = self._header or read_header(unread, self._most_bytes, self.place)
        if header is None or len(unread) < header.frame_bytes:
            self._header = header
            return False
        self._header = None
        self._received.consume(header.frame_bytes)
        self._statistics.received_frames += 1
        ahead = (header.number - self._taken_frames) % _NUMBERS
        if header.epoch != self._epoch or ahead >= _NUMBERS // 2:
            self._statistics.refused += 1
            return True
        if ahead:
            raise CorruptFrame(f"link: frames of {self.place} are missing: {ahead}.", next_step="Check the cable.")
        self._taken_frames += 1
        message = decode(header, unread[: header.frame_bytes], self.place, self._peers_seal)
        if self.state is State.CONFIRM:
            self._go_up(events)
        if self.state is not State.UP:
            self._shake_hands(header, message, now, events)
        elif header.kind >= FIRST_REPLY:
            self._take_reply(header, cast("Reply", message), events)
        elif header.kind >= FIRST_REQUEST:
            self._take_request(header, cast("Request", message), events)
        else:
            self._take_control(message, now)
        return True

    def _take_request(self, header: Header, request: Request, events: list[Event]) -> None:
        if header.tag in self._accepted:
            raise PeerError(f"link: {self.place} used tag {header.tag} for a second request before the first was answered.")
        if not self._accepted.covers(header.frame_bytes):
            raise PeerError(f"link: {self.place} asks for more than it was granted.")
        self._accepted.take(header.tag, header.kind, header.frame_bytes)
        events.append(Asked(header.tag, request))

    def _take_reply(self, header: Header, reply: Reply, events: list[Event]) -> None:
        request_kind = self._asked.give_back(header.tag)
        if request_kind is None:
            self._statistics.refused += 1
            return
        if not answers(header.kind, request_kind):
            kinds = f"{Kind(request_kind).name} with {Kind(header.kind).name}"
            raise PeerError(f"link: {self.place} answered {kinds}.")
        self._statistics.in_flight = len(self._asked)
        events.append(Answered(header.tag, reply))

    def _take_control(self, message: Message, now: float) -> None:
        match message:
            case Ping():
                self._send(Pong(message.stamp))
            case Pong():
                self._statistics.rtt_us = max(0, _microseconds(now) - message.stamp)
            case Bye():
                raise _Over(reasons.told(self.place, message.why, self._hello.name), None)
            case _:
                raise self._unexpected(message)

    def _shake_hands(self, header: Header, message: Message, now: float, events: list[Event]) -> None:
        if isinstance(message, Bye):
            raise _Over(reasons.told(self.place, message.why, self._hello.name), None)
        step = _STEPS.get((self.role, self.state))
        if step is None or header.kind != step.kind:
            raise self._unexpected(message)
        step.act(self, message)
        self.state = step.then
        if self.state is State.UP:
            self._go_up(events)
            self._ping(now)

    # Handshake

    def _prove_first(self, hello: Hello) -> None:
        self._send(Proof(self._meet(hello, Handshake(self._secret, self._hello, hello, self.binding)).proof(self.role)))

    def _answer_hello(self, hello: Hello) -> None:
        self._send(self._hello)
        self._meet(hello, Handshake(self._secret, hello, self._hello, self.binding))

    def _prove_second(self, proof: Proof) -> None:
        handshake = self._check(proof, Role.CONNECT)
        self._send(Proof(handshake.proof(self.role)))
        self._begin_epoch(handshake)

    def _accept(self, proof: Proof) -> None:
        self._begin_epoch(self._check(proof, Role.LISTEN))

    def _begin_epoch(self, handshake: Handshake) -> None:
        self._epoch = handshake.epoch
        there = Role.LISTEN if self.role is Role.CONNECT else Role.CONNECT
        self.seal, self._peers_seal = handshake.seal(self.role), handshake.seal(there)

    def _meet(self, hello: Hello, handshake: Handshake) -> Handshake:
        try:
            limits = LinkLimits(hello.credit_requests, hello.credit_bytes, hello.frame_bytes)
        except LocalLinkError as error:
            raise PeerError(f"link: {self.place} grants limits that cannot be used.") from error
        self._handshake = handshake
        self._met = Peer(hello.name, hello.boot_epoch, limits, handshake.epoch, self.place)
        return handshake

    def _check(self, proof: Proof, prover: Role) -> Handshake:
        assert self._handshake is not None and self._met is not None  # _STEPS lets no proof come before the hello
        name = self._met.name
        if not self._handshake.proves(prover, proof.mac):
            raise _Over(reasons.stranger(self.place, name), Farewell.WRONG_SECRET)
        if name == self._hello.name:
            raise _Over(reasons.same_name(self.place, name), Farewell.SAME_NAME)
        if self._only_peer not in (None, name):
            raise _Over(reasons.other_peer(self.place, name, self._only_peer), Farewell.OTHER_PEER)
        return self._handshake

    def _go_up(self, events: list[Event]) -> None:
        assert self._met is not None
        self.state, self.peer = State.UP, self._met
        self._most_bytes = self._limits.frame_bytes
        self._asked = Credit(self._met.limits)
        rest, self._received = self._received.unread(), ReceiveBuffer()
        self._received.writable()[: len(rest)] = rest
        self._received.received(len(rest))
        events.append(Up(self._met))

    # Ends

    def _end(self, error: LinkError, farewell: Farewell | None) -> Ended:
        if farewell is not None:
            self._send(Bye(farewell))
        self.state = State.CLOSED
        self._statistics.in_flight = 0
        return Ended(error)

    def _unexpected(self, message: Message) -> PeerError:
        return PeerError(f"link: {self.place} sent a {type(message).__name__} while {self.state.value}.")

    def _ping(self, now: float) -> None:
        self._life.pinged_at = now
        self._send(Ping(_microseconds(now)))

    def _next_tag(self) -> int:
        self._tag = self._tag % _LAST_TAG + 1
        while self._tag in self._asked:
            self._tag = self._tag % _LAST_TAG + 1
        return self._tag

    def _send(self, message: Message) -> None:
        self._send_body(encode(message), 0)

    def _send_body(self, body: Body, tag: int) -> None:
        self._statistics.sent_frames += 1
        self._statistics.sent_bytes += body.frame_bytes
        self._out += write_frame(self._epoch, self._sent_frames % _NUMBERS, tag, body, self.seal)
        self._sent_frames += 1


def _microseconds(now: float) -> int:
    return round(now * 1e6)


class _Step(NamedTuple):
    kind: Kind
    act: Callable[[Session, Any], None]
    then: State


_STEPS = {
    (Role.CONNECT, State.HELLO): _Step(Kind.HELLO, Session._prove_first, State.PROOF),
    (Role.CONNECT, State.PROOF): _Step(Kind.PROOF, Session._accept, State.UP),
    (Role.LISTEN, State.HELLO): _Step(Kind.HELLO, Session._answer_hello, State.PROOF),
    (Role.LISTEN, State.PROOF): _Step(Kind.PROOF, Session._prove_second, State.CONFIRM),
}
"""The handshake: what is awaited, what is done, and where that leads. From CONFIRM any frame of the epoch leads to UP."""
