"""Two sessions and the cable between them, in memory: the cable does to frames what a test tells it, time is a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from hwvirt.buffers import Buffer
from hwvirt.link.codec import encode
from hwvirt.link.config import Identity, LinkLimits, LinkTiming, Role
from hwvirt.link.events import Answered, Asked, Ended, Event, LinkStatistics
from hwvirt.link.messages import Reply, Request
from hwvirt.link.session import Session, State
from hwvirt.link.wire import read_header

__all__ = ["SECRET", "Cable", "End", "LinkPair", "feed", "frames_of"]

SECRET = b"the secret of both"


def feed(session: Session, data: Buffer, now: float = 0.0, step_bytes: int = 1 << 30) -> list[Event]:
    """What the session says to these bytes, given to it in steps, as reads of a socket would."""
    events: list[Event] = []
    rest = memoryview(data)
    while rest:
        room = session.writable()
        taken = min(len(room), len(rest), step_bytes)
        room[:taken] = rest[:taken]
        events += session.received(taken, now)
        rest = rest[taken:]
    return events


def frames_of(data: bytes) -> list[bytes]:
    """The frames in bytes that hold whole frames only."""
    frames, rest = [], memoryview(data)
    while rest:
        header = read_header(rest, 1 << 40, "the cable")
        assert header is not None
        frames.append(bytes(rest[: header.frame_bytes]))
        rest = rest[header.frame_bytes :]
    return frames


@dataclass
class Cable:
    """One direction. Frames lie in `frames` from when they are sent until they are delivered; `seen` are all ever sent."""

    frames: list[bytes] = field(default_factory=list)
    seen: list[bytes] = field(default_factory=list)
    held_until: float = 0.0

    def drop(self, index: int) -> None:
        del self.frames[index]

    def double(self, index: int) -> None:
        self.frames.insert(index, self.frames[index])

    def swap(self, one: int, other: int) -> None:
        self.frames[one], self.frames[other] = self.frames[other], self.frames[one]

    def cut(self, index: int, at_byte: int) -> None:
        """The frame loses its end, and what follows it is lost too."""
        self.frames[index:] = [self.frames[index][:at_byte]]

    def flip(self, index: int, bit: int) -> None:
        damaged = bytearray(self.frames[index])
        damaged[bit // 8] ^= 1 << bit % 8
        self.frames[index] = bytes(damaged)

    def inject(self, data: bytes, index: int = 0) -> None:
        self.frames.insert(index, data)

    def take(self, now: float) -> list[bytes]:
        """What arrives now."""
        if now < self.held_until:
            return []
        frames, self.frames = self.frames, []
        return frames


@dataclass
class End:
    """A session, the cable that it sends on, and what it has reported."""

    session: Session
    statistics: LinkStatistics
    cable: Cable = field(default_factory=Cable)
    events: list[Event] = field(default_factory=list)

    def ask(self, request: Request, reply_bytes: int = 0) -> int:
        body = encode(request)
        return self.session.request(body, self.session.cost(body, reply_bytes))

    @property
    def asked(self) -> list[Asked]:
        return [event for event in self.events if isinstance(event, Asked)]

    @property
    def answered(self) -> list[Answered]:
        return [event for event in self.events if isinstance(event, Answered)]

    @property
    def reason(self) -> str:
        """Why the session ended; empty while it has not."""
        return "".join(str(event.error) for event in self.events if isinstance(event, Ended))


class LinkPair:
    """Controller a, which connects, and controller b, which listens; call `settle` to let all frames arrive."""

    _nonces = count(1)

    def __init__(
        self,
        *,
        secrets: tuple[bytes, bytes] = (SECRET, SECRET),
        names: tuple[str, str] = ("a", "b"),
        limits: tuple[LinkLimits, LinkLimits] = (LinkLimits(), LinkLimits()),
        only_peers: tuple[str | None, str | None] = (None, None),
        answer: Callable[[Request], Reply] | None = None,
    ) -> None:
        self.now = 0.0
        self._answer = answer
        ends = []
        for side, role in enumerate((Role.CONNECT, Role.LISTEN)):
            statistics = LinkStatistics()
            session = Session(
                role,
                Identity(names[side], side + 1),
                secrets[side],
                next(self._nonces).to_bytes(32, "big"),
                f"the place of {'ba'[side]}",
                self.now,
                limits=limits[side],
                timing=LinkTiming(),
                only_peer=only_peers[side],
                statistics=statistics,
            )
            ends.append(End(session, statistics))
        self.a, self.b = ends

    @classmethod
    def up(cls, *, answer: Callable[[Request], Reply] | None = None, limits: LinkLimits | None = None) -> LinkPair:
        """A pair after its handshake, with empty cables."""
        pair = cls(answer=answer, limits=(limits or LinkLimits(),) * 2)
        pair.settle()
        assert (pair.a.session.state, pair.b.session.state) == (State.UP, State.UP), pair.a.reason + pair.b.reason
        return pair

    def collect(self) -> None:
        """What the sessions have to send now lies on the cables."""
        for end in (self.a, self.b):
            frames = frames_of(b"".join(end.session.outgoing()))
            end.cable.frames += frames
            end.cable.seen += frames

    def deliver(self, step_bytes: int = 1 << 30) -> int:
        """What lies on the cables arrives, unless it is held: the number of frames that did."""
        arrived = 0
        for sender, receiver in ((self.a, self.b), (self.b, self.a)):
            for frame in sender.cable.take(self.now):
                self._report(receiver, feed(receiver.session, frame, self.now, step_bytes))
                arrived += 1
        return arrived

    def settle(self, step_bytes: int = 1 << 30) -> None:
        """Frames go to and fro until nobody has anything to say."""
        self.collect()
        while self.deliver(step_bytes):
            self.collect()

    def advance(self, seconds: float) -> None:
        """Time passes, deadline by deadline, and nothing is delivered."""
        until = self.now + seconds
        while (due := min(self.a.session.next_deadline(), self.b.session.next_deadline())) <= until:
            self.now = max(self.now, due)
            for end in (self.a, self.b):
                self._report(end, end.session.tick(self.now))
        self.now = until

    def _report(self, end: End, events: list[Event]) -> None:
        end.events += events
        for event in events:
            if self._answer and isinstance(event, Asked) and end.session.state is State.UP:
                end.session.reply(event.tag, self._answer(event.message))
