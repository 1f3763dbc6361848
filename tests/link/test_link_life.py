"""A session that cannot go on ends at its deadline, one that is only slow does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from hwvirt.buffers import Buffer
from hwvirt.errors import LinkError
from hwvirt.link import messages as m
from hwvirt.link.config import Identity, LinkTiming, Role
from hwvirt.link.connection import Connection, Responder
from hwvirt.link.events import LinkStatistics, Peer
from hwvirt.link.life import Life, Sign
from hwvirt.link.session import Session
from tests.link.link_samples import write_of
from tests.link.pair import SECRET, End, LinkPair, feed

_UNFINISHED = "began a frame and did not go on with it for 5 s. Check the cable."


def _pass_time(pair: LinkPair, seconds: int) -> None:
    for _ in range(seconds):
        pair.advance(1.0)
        pair.settle()


@pytest.mark.parametrize("at_byte", [1, 47, 48, 60, 1000, 4150])
@pytest.mark.parametrize("sender", ["a", "b"])
def test_frame_that_loses_its_end_ends_the_session_although_signs_of_life_go_on(sender: str, at_byte: int) -> None:
    pair = LinkPair.up()
    near, far = (pair.a, pair.b) if sender == "a" else (pair.b, pair.a)
    near.ask(write_of(bytes(4096)))
    pair.collect()
    near.cable.cut(0, at_byte)
    _pass_time(pair, 11)
    assert far.asked == []
    assert far.reason
    assert near.reason.endswith("ended the session because of what it received. Check the cable.")


def test_frame_that_loses_its_end_is_told_as_what_it_is() -> None:
    pair = LinkPair.up()
    pair.a.ask(write_of(bytes(65536)))
    pair.collect()
    pair.a.cable.cut(0, 100)
    _pass_time(pair, 11)
    assert pair.b.reason == f"link: the place of a {_UNFINISHED}"


@pytest.mark.parametrize("bytes_per_s", [300, 1152, 11520])
def test_large_frame_on_a_slow_line_is_waited_for(bytes_per_s: int) -> None:
    pair = LinkPair.up()
    pair.a.ask(write_of(bytes(bytes_per_s // 128 * 512 * 15)))
    pair.collect()
    (frame,) = pair.a.cable.take(0.0)
    for start in range(0, len(frame), bytes_per_s):
        assert pair.b.reason == ""
        pair.b.events += feed(pair.b.session, frame[start : start + bytes_per_s], pair.now)
        pair.now += 1.0
        pair.b.events += pair.b.session.tick(pair.now)
    assert len(pair.b.asked) == 1


def test_signs_of_life_are_due_each_second_and_silence_after_five() -> None:
    life = Life(LinkTiming(), 10.0)
    assert (life.next_deadline(), life.due(10.9, 0, 0)) == (11.0, Sign.NOTHING)
    for second in range(11, 15):
        assert life.due(second, 0, 0) is Sign.PING
        life.pinged_at = second
    assert life.next_deadline() == 15.0
    assert life.due(15.0, 0, 0) is Sign.SILENCE


class _Wire:
    """A port that keeps what is sent, and the owner of the connection on it, which answers each request at once."""

    def __init__(self) -> None:
        self.sent: list[Buffer] = []
        self.closed = False
        self.reason = ""
        self.on_request: Callable[[m.Request, Responder], None] = lambda request, responder: responder.reply(m.Busy())

    def send(self, buffers: list[Buffer]) -> None:
        self.sent += buffers

    def close(self) -> None:
        self.closed = True

    def up(self, connection: Connection, peer: Peer) -> None:
        pass

    def ended(self, connection: Connection, error: LinkError) -> None:
        self.reason = str(error)


def test_request_that_arrives_with_damage_behind_it_is_answered_into_nothing() -> None:
    """Both come out of one read: when the request is handed up, its session is over already."""

    async def story() -> None:
        pair, wire, statistics = LinkPair(), _Wire(), LinkStatistics()
        session = Session(Role.LISTEN, Identity("b", 2), SECRET, bytes(32), "the place of a", 0.0, statistics=statistics)
        connection = Connection(session, wire, wire, statistics)
        a = pair.a.session

        def exchange(junk: bytes = b"") -> None:
            for side in range(2):
                said = b"".join(a.outgoing()) + (junk if not side else b"")
                room = connection.writable()
                room[: len(said)] = said
                connection.received(len(said))
                feed(a, b"".join(wire.sent))
                wire.sent.clear()

        exchange()
        End(a, statistics).ask(m.Flush(1))
        exchange(junk=b"junk" * 20)
        assert wire.closed
        assert wire.reason == "link: the place of a does not speak hwvirt's link. Check the address and the cable."
        assert statistics.dropped_replies == 1

    asyncio.run(story())
