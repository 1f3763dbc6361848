"""Two sessions of the link on the two ends of a line, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count

from hwvirt.digest import block_digests
from hwvirt.link import messages as m
from hwvirt.link.codec import encode
from hwvirt.link.config import Identity, LinkTiming, Role, SerialLink
from hwvirt.link.events import Answered, Asked, Ended, Up
from hwvirt.link.serial.line import Arrived, LineEvent, LineUp, Lost
from hwvirt.link.serial.traits import LineTraits
from hwvirt.link.session import Session, State
from tests.link.pair import SECRET, feed
from tests.link.serial.line import Bench, End, traits

__all__ = ["BLOCK", "Talk", "Talker", "random_write", "text_write", "timing_of", "zero_write"]

BLOCK = 4096
_nonces = count(1)
_random = random.Random(11)


def write_of(data: bytes) -> m.Write:
    return m.Write(0, 0, [m.Slice(_random.randrange(1 << 20), len(data) // BLOCK, 1)], [data], block_digests([data], BLOCK))


def random_write(blocks: int = 1) -> m.Write:
    return write_of(_random.randbytes(blocks * BLOCK))


def zero_write(blocks: int = 1) -> m.Write:
    return write_of(bytes(blocks * BLOCK))


_WORDS = b"the position comes back in a reply and may be lost late doubled or forged by a machine that crashes".split()


def text_write(blocks: int = 1) -> m.Write:
    """Words in an order that does not come again."""
    text = b" ".join(_random.choices(_WORDS, k=blocks * BLOCK // 2))
    return write_of(text[: blocks * BLOCK])


def timing_of(of: LineTraits) -> LinkTiming:
    return SerialLink(Role.LISTEN, "", of.baud, SECRET, receive_buffer_bytes=of.buffer_bytes).paced_timing


class Talker:
    """One end: a session for each session of the line; it answers writes at once."""

    def __init__(self, end: End, role: Role, timing: LinkTiming) -> None:
        self.end = end
        self.session: Session | None = None
        self.endings: list[str] = []
        self.asked: list[m.Request] = []
        self.on_answer: Callable[[float], None] = lambda now: None
        self._role = role
        self._timing = timing
        end.program = self

    @property
    def up(self) -> bool:
        return self.session is not None and self.session.state is State.UP

    def ask(self, request: m.Request) -> None:
        assert self.session is not None
        body = encode(request)
        self.session.request(body, self.session.cost(body))
        self._send()

    def _send(self) -> None:
        if self.session is not None:
            self.end.line.send(self.session.outgoing())

    def event(self, event: LineEvent, now: float) -> None:
        match event:
            case LineUp():
                nonce = next(_nonces).to_bytes(32, "big")
                who = Identity("ab"[self._role is Role.LISTEN], 1)
                self.session = Session(self._role, who, SECRET, nonce, "the line", now, timing=self._timing)
            case Arrived(data) if self.session is not None:
                self._handle(self.session, data, now)
            case Lost(error):
                self.endings.append(str(error))
                self.session = None
        self._send()

    def _handle(self, session: Session, data: bytes | bytearray | memoryview, now: float) -> None:
        self._report(feed(session, data, now), session, now)

    def _report(self, events: list[Up | Asked | Answered | Ended], session: Session, now: float) -> None:
        for happened in events:
            match happened:
                case Asked(tag, request):
                    self.asked.append(request)
                    session.reply(tag, m.Written(1, [m.Placement(len(self.asked), 1, 1)]))
                case Answered():
                    self.on_answer(now)
                case Ended(error):
                    self.endings.append(str(error))
                    self._send()
                    self.session = None
                    self.end.line.restart(now + 0.05)

    def deadline(self) -> float:
        return self.session.next_deadline() if self.session is not None else float("inf")

    def tick(self, now: float) -> None:
        if self.session is not None:
            self._report(self.session.tick(now), self.session, now)
            self._send()


class Talk:
    """A bench with a session on it: a connects, b listens and answers."""

    def __init__(self, of: LineTraits | None = None) -> None:
        of = of or traits()
        self.bench = Bench(of)
        self.a = Talker(self.bench.a, Role.CONNECT, timing_of(of))
        self.b = Talker(self.bench.b, Role.LISTEN, timing_of(of))
        assert self.bench.run(10.0, lambda: self.a.up and self.b.up)
        self.bench.run(1.0)

    def seconds_for(self, writes: int, depth: int, write: Callable[[], m.Write]) -> float:
        """How long so many writes take with `depth` of them under way."""
        answered, asked = [0], [0]

        def more(now: float) -> None:
            answered[0] += 1
            if asked[0] < writes:
                asked[0] += 1
                self.a.ask(write())

        self.a.on_answer = more
        began = self.bench.now
        for _ in range(depth):
            asked[0] += 1
            self.a.ask(write())
        assert self.bench.run(600.0, lambda: answered[0] == writes)
        return self.bench.now - began

    def restart(self, talker: Talker, of: LineTraits | None = None) -> None:
        """The program at that end is killed and started again."""
        talker.session = None
        self.bench.replace(talker.end, of)
