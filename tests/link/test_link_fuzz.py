"""Whatever arrives, a session reports events or its end: it never raises, takes no nonsense for a request, stays small.

python -m tests.link.test_link_fuzz 1000000 [SEED]     a million inputs; hypothesis would keep them all
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from hwvirt import buffers
from hwvirt.digest import block_digests
from hwvirt.errors import LinkError
from hwvirt.link.codec import Kind, encode
from hwvirt.link.config import Identity, Role
from hwvirt.link.events import Asked, Ended, Event
from hwvirt.link.messages import Flush
from hwvirt.link.session import Session
from hwvirt.link.wire import MAGIC, VERSION, Body, write_frame
from tests.link.link_samples import MESSAGES
from tests.link.many_inputs import main
from tests.link.pair import SECRET, LinkPair, feed

_ARENA_BYTES = 1 << 18
_HANDSHAKE_REPLIES_BYTES = 600
"""What a session says in its handshake, at most: a hello with the longest name, a proof, a farewell."""
_OVERHEARD = LinkPair.up()
_SAID = b"".join(_OVERHEARD.a.cable.seen)
_PING = _OVERHEARD.a.cable.seen[-1]


def _check(session: Session, events: list[Event], said_bytes: int = 0) -> None:
    """The events make sense; `said_bytes` is what the session may say beyond its handshake."""
    ends = [event for event in events if isinstance(event, Ended)]
    assert len(ends) <= 1
    if ends:
        assert events[-1] is ends[0]
        assert isinstance(ends[0].error, LinkError)
    arena = session.writable().obj
    assert isinstance(arena, bytearray)
    assert len(arena) <= _ARENA_BYTES
    assert buffers.length(session.outgoing()) <= _HANDSHAKE_REPLIES_BYTES + said_bytes


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


def _check_handshake(chance: random.Random, heard: bytes) -> None:
    # With the nonce of the overheard session what was said there is accepted, if it is not mutated.
    nonce = _OVERHEARD.b.session._hello.nonce
    session = Session(Role.LISTEN, Identity("b", 2), SECRET, nonce, "there", 0.0)
    events = feed(session, heard, step_bytes=chance.choice((1, 7, 1 << 30)))
    _check(session, events, said_bytes=len(heard))
    assert session.peer is not None or not heard.startswith(_SAID)
    assert session.peer is None or _heeded(heard).startswith(_SAID)
    assert not any(isinstance(event, Asked) for event in events)


def _heeded(heard: bytes) -> bytes:
    """Without what a session throws away: a frame of the epoch (here a ping) that comes before the epoch has begun."""
    rest = heard.split(_PING)
    return b"".join(rest[:-1]) + _PING + rest[-1]


def _check_mutated_handshake(chance: random.Random) -> None:
    _check_handshake(chance, _mutated(_SAID, chance))


def _check_mutated_frames(chance: random.Random) -> None:
    pair = LinkPair.up()
    peer = pair.a.session.peer
    assert peer is not None
    volumes = [chance.randrange(1 << 32) for _ in range(3)]
    frames = [
        b"".join(write_frame(peer.epoch, len(pair.a.cable.seen) + n, n + 1, encode(Flush(volume)), pair.a.session.seal))
        for n, volume in enumerate(volumes)
    ]
    events = feed(pair.b.session, _mutated(b"".join(frames), chance), step_bytes=chance.choice((1, 50, 1 << 30)))
    _check(pair.b.session, events)
    asked = [event.message for event in events if isinstance(event, Asked)]
    assert asked == [Flush(volume) for volume in volumes[: len(asked)]]


def _check_any_bytes(chance: random.Random) -> None:
    session = Session(chance.choice(list(Role)), Identity("a", 1), SECRET, bytes(32), "there", 0.0)
    # The front is now and then right, else nothing gets past the first byte.
    data = chance.choice((b"", MAGIC, MAGIC + bytes([VERSION]))) + chance.randbytes(chance.randrange(600))
    _check(session, feed(session, data, step_bytes=chance.choice((1, 40, 1 << 30))))
    assert session.peer is None


def _check_sound_frames(chance: random.Random) -> None:
    pair = LinkPair.up()
    peer = pair.a.session.peer
    assert peer is not None
    events: list[Event] = []
    heard_bytes = 0
    for number in range(len(pair.a.cable.seen), len(pair.a.cable.seen) + chance.randint(1, 12)):
        body, tag = encode(chance.choice(MESSAGES)), chance.randrange(4)
        frame = b"".join(write_frame(peer.epoch, number, tag, body, pair.a.session.seal))
        events += feed(pair.b.session, frame)
        heard_bytes += len(frame)
    _check(pair.b.session, events, said_bytes=heard_bytes)


def _check_frames_of_any_meta(chance: random.Random) -> None:
    """The peer itself, who knows the seal, sends messages of its own invention."""
    pair = LinkPair.up()
    peer = pair.a.session.peer
    assert peer is not None
    meta = chance.randbytes(chance.choice((chance.randrange(100), chance.choice((0, 1, 4, 8, 12, 16, 20, 24, 28, 32, 40)))))
    kind = chance.choice((*Kind, chance.randrange(256)))
    grain_bytes, grains = chance.choice((0, 512, chance.randrange(1, 600))), chance.choice((0, 1, chance.randrange(4)))
    data = chance.randbytes(grain_bytes * grains)
    digests = block_digests((data,), grain_bytes) if data else array("I")
    body = Body(kind, meta, (data,), len(data), digests, grain_bytes if data else 0)
    number = len(pair.a.cable.seen)
    frame = b"".join(write_frame(peer.epoch, number, chance.randrange(3), body, pair.a.session.seal))
    _check(pair.b.session, feed(pair.b.session, frame), said_bytes=len(frame))


_CHECKS = (
    _check_mutated_handshake,
    _check_mutated_frames,
    _check_any_bytes,
    _check_sound_frames,
    _check_frames_of_any_meta,
)


def _seeds(salt: int, inputs: int) -> Iterator[random.Random]:
    return (random.Random(f"{salt}/{number}") for number in range(inputs))


def test_only_the_handshake_as_it_was_said_makes_a_session() -> None:
    _check_handshake(random.Random(0), _SAID)
    for chance in _seeds(1, 10_000):
        _check_mutated_handshake(chance)


def test_mutated_frames_of_a_session_are_never_misread() -> None:
    for chance in _seeds(2, 1_500):
        _check_mutated_frames(chance)


@settings(max_examples=1000, deadline=None, derandomize=True, database=None)
@given(st.lists(st.binary(max_size=600), max_size=4))
def test_any_bytes_end_a_handshake_or_wait_for_more(reads: list[bytes]) -> None:
    session = Session(Role.CONNECT, Identity("a", 1), SECRET, bytes(32), "there", 0.0)
    _check(session, [event for data in reads for event in feed(session, data)])


def test_bytes_that_begin_like_a_frame_make_no_session() -> None:
    for chance in _seeds(3, 2_000):
        _check_any_bytes(chance)


def test_sound_frames_of_any_kind_in_any_order_never_raise() -> None:
    for chance in _seeds(4, 500):
        _check_sound_frames(chance)


def test_frames_of_any_meta_from_the_peer_itself_never_raise() -> None:
    for chance in _seeds(5, 2_000):
        _check_frames_of_any_meta(chance)


if __name__ == "__main__":
    main(_CHECKS)
