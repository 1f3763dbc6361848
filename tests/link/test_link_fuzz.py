"""Whatever arrives, a session reports events or its end: it never raises, takes no nonsense for a request, stays small."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from hwvirt.errors import LinkError
from hwvirt.link.codec import encode
from hwvirt.link.config import Identity, Role
from hwvirt.link.events import Asked, Ended, Event
from hwvirt.link.messages import Flush
from hwvirt.link.session import Session
from hwvirt.link.wire import write_frame
from tests.link.link_samples import MESSAGES
from tests.link.pair import SECRET, LinkPair, feed

_ARENA_BYTES = 1 << 18
_OVERHEARD = LinkPair.up()


def _check(session: Session, events: list[Event]) -> None:
    ends = [event for event in events if isinstance(event, Ended)]
    assert len(ends) <= 1
    if ends:
        assert events[-1] is ends[0]
        assert isinstance(ends[0].error, LinkError)
    arena = session.writable().obj
    assert isinstance(arena, bytearray)
    assert len(arena) <= _ARENA_BYTES


def _mutated(data: bytes, chance: random.Random) -> bytes:
    mutated = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(mutated))
        match chance.randrange(4):
            case 0:
                mutated[at] ^= 1 << chance.randrange(8)
            case 1:
                del mutated[at : at + chance.randint(1, 16)]
            case 2:
                mutated[at:at] = chance.randbytes(chance.randint(1, 16))
            case _:
                mutated[at:at] = mutated[chance.randrange(len(mutated)) :][:64]
        if not mutated:
            break
    return bytes(mutated)


def test_only_the_handshake_as_it_was_said_makes_a_session() -> None:
    chance = random.Random(1)
    nonce = _OVERHEARD.b.session._hello.nonce
    said = b"".join(_OVERHEARD.a.cable.seen)
    for number in range(10_000):
        # With the nonce of the overheard session what was said there would be accepted, were it not mutated.
        session = Session(Role.LISTEN, Identity("b", 2), SECRET, nonce, "there", 0.0)
        heard = _mutated(said, chance) if number else said
        events = feed(session, heard, step_bytes=chance.choice((1, 7, 1 << 30)))
        _check(session, events)
        assert (session.peer is not None) == heard.startswith(said)
        assert not any(isinstance(event, Asked) for event in events)


def test_mutated_frames_of_a_session_are_never_misread() -> None:
    chance = random.Random(2)
    for _ in range(1_500):
        pair = LinkPair.up()
        peer = pair.a.session.peer
        assert peer is not None
        volumes = [chance.randrange(1 << 32) for _ in range(3)]
        frames = [
            b"".join(write_frame(peer.epoch, len(pair.a.cable.seen) + n, n + 1, encode(Flush(volume)), pair.a.session.seal))
            for n, volume in enumerate(volumes)
        ]
        events = feed(pair.b.session, _mutated(b"".join(frames), chance))
        _check(pair.b.session, events)
        asked = [event.message for event in events if isinstance(event, Asked)]
        assert asked == [Flush(volume) for volume in volumes[: len(asked)]]


@settings(max_examples=2000, deadline=None, derandomize=True, database=None)
@given(st.lists(st.binary(max_size=600), max_size=4))
def test_any_bytes_end_a_handshake_or_wait_for_more(reads: list[bytes]) -> None:
    session = Session(Role.CONNECT, Identity("a", 1), SECRET, bytes(32), "there", 0.0)
    _check(session, [event for data in reads for event in feed(session, data)])


def test_sound_frames_of_any_kind_in_any_order_never_raise() -> None:
    chance = random.Random(3)
    for _ in range(500):
        pair = LinkPair.up()
        peer = pair.a.session.peer
        assert peer is not None
        events: list[Event] = []
        for number in range(len(pair.a.cable.seen), len(pair.a.cable.seen) + 12):
            body, tag = encode(chance.choice(MESSAGES)), chance.randrange(4)
            frame = write_frame(peer.epoch, number, tag, body, pair.a.session.seal)
            events += feed(pair.b.session, b"".join(frame))
        _check(pair.b.session, events)
