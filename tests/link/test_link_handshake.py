"""Who gets in, who does not, and what each is told."""

from __future__ import annotations

import pytest

from hwvirt.link.codec import Kind, encode
from hwvirt.link.config import Identity, LinkTiming, Role
from hwvirt.link.errors import LinkDown
from hwvirt.link.events import Ended, Event, LinkStatistics, Up
from hwvirt.link.messages import Hello, Message, Proof
from hwvirt.link.session import Session, State
from hwvirt.link.wire import HEADER_BYTES, write_frame
from tests.link.link_samples import MESSAGES, write_of
from tests.link.pair import SECRET, LinkPair, feed, frames_of

_SAME_SECRET = "Give both controllers the same secret."


def _kinds(frames: list[bytes]) -> list[Kind]:
    return [Kind(frame[5]) for frame in frames]


def _session(role: Role, name: str = "b", nonce: int = 0) -> Session:
    return Session(role, Identity(name, 9), SECRET, nonce.to_bytes(32, "little"), "there", 0.0)


def _frame(message: Message, number: int = 0, epoch: int = 0) -> bytes:
    return b"".join(write_frame(epoch, number, 0, encode(message)))


def test_both_ends_know_each_other_and_the_epoch() -> None:
    pair = LinkPair.up()
    a, b = pair.a.session.peer, pair.b.session.peer
    assert a is not None and b is not None
    assert (a.name, a.boot_epoch, b.name, b.boot_epoch) == ("b", 2, "a", 1)
    assert a.epoch == b.epoch != 0


def test_no_two_sessions_have_the_same_epoch() -> None:
    peers = [LinkPair.up().a.session.peer for _ in range(20)]
    assert len({peer.epoch for peer in peers if peer}) == 20


@pytest.mark.parametrize("step_bytes", [1, 2, 7, 45])
def test_handshake_in_small_pieces(step_bytes: int) -> None:
    pair = LinkPair()
    pair.settle(step_bytes)
    assert (pair.a.session.state, pair.b.session.state) == (State.UP, State.UP)


def test_listening_side_is_up_only_when_its_proof_was_accepted() -> None:
    pair = LinkPair()
    for _ in range(2):  # hellos, proofs
        pair.collect()
        pair.deliver()
        pair.collect()
        pair.deliver()
    assert (pair.a.session.state, pair.b.session.state) == (State.UP, State.CONFIRM)
    assert not any(isinstance(event, Up) for event in pair.b.events)


def test_wrong_secret_is_told_on_both_sides() -> None:
    pair = LinkPair(secrets=(b"guessed", SECRET))
    pair.settle()
    assert pair.b.reason == f"link: the place of a calls itself a and does not know the secret. {_SAME_SECRET}"
    assert pair.a.reason == f"link: the place of b does not accept the secret of this controller. {_SAME_SECRET}"


def test_peer_without_the_secret_sees_the_hello_and_no_proof() -> None:
    pair = LinkPair(secrets=(b"guessed", SECRET))
    pair.settle()
    assert _kinds(pair.b.cable.seen) == [Kind.HELLO, Kind.BYE]


def test_listener_without_the_secret_is_refused_by_the_connecting_side() -> None:
    session = _session(Role.CONNECT)
    session.outgoing()
    assert not feed(session, _frame(Hello("x", 1, bytes(32), 16, 1 << 20, 1 << 20)))
    (ended,) = feed(session, _frame(Proof(bytes(32)), 1))
    assert isinstance(ended, Ended)
    assert str(ended.error) == f"link: there calls itself x and does not know the secret. {_SAME_SECRET}"


def test_replayed_hello_and_proof_of_another_session_are_refused() -> None:
    overheard = LinkPair.up().a.cable.seen
    session = _session(Role.LISTEN, nonce=4711)
    (ended,) = feed(session, b"".join(overheard))
    assert isinstance(ended, Ended)
    assert "does not know the secret" in str(ended.error)
    assert _kinds(frames_of(b"".join(session.outgoing()))) == [Kind.HELLO, Kind.BYE]


def test_own_frames_sent_back_prove_nothing() -> None:
    session = _session(Role.CONNECT)
    events: list[Event] = []
    while out := b"".join(session.outgoing()):
        events += feed(session, out)
    (ended,) = events
    assert isinstance(ended, Ended)
    assert "does not know the secret" in str(ended.error)


def test_hello_that_was_changed_on_its_way_makes_no_session() -> None:
    pair = LinkPair()
    pair.collect()
    pair.a.cable.frames = [_frame(Hello("a", 99, (1).to_bytes(32, "big"), 256, 1 << 30, 1 << 23))]
    pair.settle()
    assert pair.a.session.state is pair.b.session.state is State.CLOSED
    assert pair.a.session.peer is pair.b.session.peer is None


def test_two_controllers_of_one_name_are_refused() -> None:
    pair = LinkPair(names=("a", "a"))
    pair.settle()
    next_step = "Give them different names, or correct the address."
    assert pair.b.reason == f"link: the place of a is called a, as this controller is. {next_step}"
    assert pair.a.reason == f"link: the place of b is called a, as this controller is. {next_step}"


def test_third_controller_is_refused() -> None:
    pair = LinkPair(names=("c", "b"), only_peers=(None, "a"))
    pair.settle()
    next_step = "Give every pair of controllers a port of its own."
    assert pair.b.reason == f"link: the place of a is c, but the peer of this controller is a. {next_step}"
    assert pair.a.reason == f"link: the place of b is the peer of another controller. {next_step}"


def test_other_version_is_told_and_answered() -> None:
    session = _session(Role.LISTEN)
    hello = bytearray(_frame(MESSAGES[0]))
    hello[4] = 9
    (ended,) = feed(session, hello)
    assert isinstance(ended, Ended)
    assert str(ended.error) == (
        "link: there speaks version 9 of the link, this controller version 1. Run the same hwvirt on both sides."
    )
    assert _kinds(frames_of(b"".join(session.outgoing()))) == [Kind.BYE]


def test_junk_is_not_answered() -> None:
    session = _session(Role.LISTEN)
    (ended,) = feed(session, b"GET / HTTP/1.0\r\n\r\n")
    assert isinstance(ended, Ended)
    assert str(ended.error) == "link: there does not speak hwvirt's link. Check the address and the cable."
    assert session.outgoing() == []


def test_silence_ends_the_handshake() -> None:
    session = _session(Role.LISTEN)
    assert session.next_deadline() == LinkTiming().handshake_s
    assert session.tick(4.999) == []
    (ended,) = session.tick(5.0)
    assert isinstance(ended, Ended)
    assert str(ended.error) == "link: there did not prove itself within 5 s. See that a hwvirt controller is there."


def test_slow_trickle_does_not_stretch_the_handshake() -> None:
    session = _session(Role.LISTEN)
    for second, byte in enumerate(_frame(MESSAGES[0])[:5]):
        assert feed(session, bytes([byte]), now=second) == []
    assert len(session.tick(5.0)) == 1


def test_large_frame_before_the_proof_is_refused_from_its_header() -> None:
    session = _session(Role.LISTEN)
    (ended,) = feed(session, _frame(write_of(bytes(1 << 20)))[:HEADER_BYTES])
    assert isinstance(ended, Ended)
    assert "bytes where 512 are allowed" in str(ended.error)


_OUT_OF_TURN = [message for message in MESSAGES if encode(message).frame_bytes <= 512]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("hello_first", [False, True], ids=["hello awaited", "proof awaited"])
def test_nothing_but_the_next_step_is_accepted_before_the_proof(role: Role, hello_first: bool) -> None:
    awaited = Kind.PROOF if hello_first else Kind.HELLO
    for message in _OUT_OF_TURN:
        if encode(message).kind in (awaited, Kind.BYE):
            continue
        session = _session(role)
        if hello_first:
            feed(session, _frame(Hello("x", 1, bytes(32), 16, 1 << 20, 1 << 20)))
        (ended,) = feed(session, _frame(message, number=int(hello_first)))
        assert isinstance(ended, Ended)
        assert f"sent a {type(message).__name__} while its" in str(ended.error)


def test_limits_that_cannot_work_are_refused() -> None:
    session = _session(Role.LISTEN)
    (ended,) = feed(session, _frame(Hello("x", 1, bytes(32), 0, 1 << 20, 1 << 20)))
    assert isinstance(ended, Ended)
    assert str(ended.error) == "link: there grants limits that cannot be used."


def test_frame_of_some_epoch_before_the_proof_is_refused_and_counted() -> None:
    statistics = LinkStatistics()
    session = Session(Role.LISTEN, Identity("b", 1), SECRET, bytes(32), "there", 0.0, statistics=statistics)
    overheard = [frame for frame in LinkPair.up().a.cable.seen if frame[5] == Kind.PING]
    assert feed(session, overheard[0]) == []
    assert statistics.refused == 1


def test_farewell_in_the_handshake_is_understood() -> None:
    session = _session(Role.CONNECT)
    (ended,) = feed(session, _frame(MESSAGES[5]))
    assert isinstance(ended, Ended)
    assert isinstance(ended.error, LinkDown)
    assert str(ended.error) == "link: there closed the session."
