"""A session that is up: requests, replies, credit, time, and what a bad cable or a bad peer does to it."""

from __future__ import annotations

from itertools import pairwise

import pytest

from hwvirt.buffers import joined
from hwvirt.errors import LocalLinkError, PeerError
from hwvirt.link import messages as m
from hwvirt.link.codec import encode
from hwvirt.link.config import LinkLimits
from hwvirt.link.errors import CorruptFrame, LinkDown
from hwvirt.link.events import Asked, Ended
from hwvirt.link.session import State
from hwvirt.link.wire import HEADER_BYTES, write_frame
from hwvirt.scsi.sense import INTERNAL_TARGET_FAILURE
from tests.link.link_samples import BLOCKS, MESSAGES, REQUESTS, write_of
from tests.link.pair import LinkPair, feed, frames_of

_WRITTEN = m.Written(1, [m.Placement(0, 1, 5)])
_FEW = LinkLimits(requests=2, request_bytes=16384, frame_bytes=8192)


def _answer(request: m.Request) -> m.Reply:
    return _WRITTEN if isinstance(request, m.Write) else m.Busy()


def _up(limits: LinkLimits | None = None) -> LinkPair:
    return LinkPair.up(answer=_answer, limits=limits)


def _forged(pair: LinkPair, message: m.Message, tag: int, *, ahead: int = 0) -> bytes:
    """A frame as a's session would send it next, with a content that it would not send."""
    peer = pair.a.session.peer
    assert peer is not None
    return b"".join(write_frame(peer.epoch, len(pair.a.cable.seen) + ahead, tag, encode(message), pair.a.session.seal))


# Requests and replies


@pytest.mark.parametrize("step_bytes", [1, 3, 64, 1 << 30])
def test_either_side_asks_and_gets_its_own_reply(step_bytes: int) -> None:
    pair = _up()
    tags = [(end, end.ask(request)) for request in REQUESTS for end in (pair.a, pair.b)]
    pair.settle(step_bytes)
    for end in (pair.a, pair.b):
        assert [answer.tag for answer in end.answered] == [tag for owner, tag in tags if owner is end]
        assert [type(asked.message) for asked in end.asked] == [type(request) for request in REQUESTS]
        assert end.statistics.in_flight == 0


def test_replies_may_come_in_any_order() -> None:
    pair = LinkPair.up()
    first, second = pair.a.ask(m.Flush(1)), pair.a.ask(m.Flush(2))
    pair.settle()
    for asked in reversed(pair.b.asked):
        assert isinstance(asked.message, m.Flush)
        pair.b.session.reply(asked.tag, m.Flushed(asked.message.volume))
    pair.settle()
    assert [(one.tag, one.message) for one in pair.a.answered] == [(second, m.Flushed(2)), (first, m.Flushed(1))]


def test_data_arrives_with_its_digests_and_is_not_moved_later() -> None:
    pair = _up()
    requests = [write_of(BLOCKS, lba=lba) for lba in range(400)]
    for request in requests[:200]:
        pair.a.ask(request)
    pair.settle()
    for request in requests[200:]:
        pair.a.ask(request)
    pair.settle()
    for asked, request in zip(pair.b.asked, requests, strict=True):
        assert isinstance(asked.message, m.Write)
        assert (joined(asked.message.data), asked.message.digests) == (BLOCKS, request.digests)


def test_frame_cut_at_each_byte_is_reported_once_the_rest_is_there() -> None:
    pair = LinkPair.up()
    request = write_of(BLOCKS[:512])
    for at_byte in range(1, encode(request).frame_bytes):
        pair.a.ask(request)
        (frame,) = frames_of(b"".join(pair.a.session.outgoing()))
        assert feed(pair.b.session, frame[:at_byte]) == []
        (asked,) = feed(pair.b.session, frame[at_byte:])
        assert isinstance(asked, Asked)
        assert isinstance(asked.message, m.Write)
        assert joined(asked.message.data) == BLOCKS[:512]
        pair.b.session.reply(asked.tag, m.Busy())
        pair.settle()


def test_second_reply_is_our_own_error() -> None:
    pair = LinkPair.up()
    pair.a.ask(m.Flush(1))
    pair.settle()
    tag = pair.b.asked[0].tag
    pair.b.session.reply(tag, m.Busy())
    with pytest.raises(LocalLinkError, match=f"no request with tag {tag} of the place of a waits for a reply"):
        pair.b.session.reply(tag, m.Busy())


def test_reply_that_is_too_large_becomes_a_refusal() -> None:
    pair = LinkPair.up(limits=_FEW)
    pair.a.ask(m.Query(1, None, 100))
    pair.settle()
    pair.b.session.reply(pair.b.asked[0].tag, m.LedgerPage((bytes(8996),), None))
    pair.settle()
    reason = "the LEDGER_PAGE reply has 9056 bytes, more than 8192"
    assert pair.a.answered[0].message == m.Refused(INTERNAL_TARGET_FAILURE, reason=reason)


def test_tags_of_open_requests_are_not_given_again() -> None:
    pair = LinkPair.up()
    pair.a.session._tag = 0xFFFF_FFFD
    tags = [pair.a.ask(m.Flush(1)) for _ in range(3)]
    pair.a.session._tag = 0xFFFF_FFFD
    assert [*tags, pair.a.ask(m.Flush(1))] == [0xFFFF_FFFE, 0xFFFF_FFFF, 1, 2]


def test_frame_numbers_begin_again_after_the_last() -> None:
    pair = _up()
    pair.a.session._sent_frames = pair.b.session._taken_frames = (1 << 32) - 2
    for _ in range(5):
        pair.a.ask(m.Flush(1))
    pair.settle()
    assert len(pair.a.answered) == 5


# Credit


def test_requests_stop_at_the_granted_number() -> None:
    pair = LinkPair.up(limits=_FEW)
    pair.a.ask(m.Flush(1))
    pair.a.ask(m.Flush(2))
    assert not pair.a.session.can_send(1)
    with pytest.raises(LocalLinkError, match="has not granted a request of 52 bytes"):
        pair.a.ask(m.Flush(3))
    pair.settle()
    pair.b.session.reply(pair.b.asked[0].tag, m.Busy())
    assert not pair.a.session.can_send(1)
    pair.settle()
    assert pair.a.session.can_send(1)


def test_requests_stop_at_the_granted_bytes() -> None:
    pair = LinkPair.up(limits=LinkLimits(requests=100, request_bytes=16384, frame_bytes=8192))
    request = write_of(bytes(4096))
    cost = encode(request).frame_bytes
    for _ in range(16384 // cost):
        pair.a.ask(request)
    assert not pair.a.session.can_send(cost)
    assert pair.a.session.can_send(16384 % cost)


def test_expected_replies_count_against_the_granted_bytes() -> None:
    pair = LinkPair.up(limits=LinkLimits(requests=100, request_bytes=16384, frame_bytes=8192))
    for _ in range(2):
        pair.a.ask(m.Read(1, [m.Placement(0, 1, 1)]), reply_bytes=8192)
    assert not pair.a.session.can_send(1)


@pytest.mark.parametrize(("data_bytes", "reply_bytes"), [(8192, 0), (512, 8193)], ids=["request", "reply"])
def test_what_no_credit_covers_is_refused_at_once(data_bytes: int, reply_bytes: int) -> None:
    pair = LinkPair.up(limits=_FEW)
    with pytest.raises(LocalLinkError, match=r"is too large\. Requests may have 8192 bytes, replies 8192"):
        pair.a.ask(write_of(bytes(data_bytes)), reply_bytes)


def test_peer_that_asks_beyond_its_credit_is_cut_off() -> None:
    pair = LinkPair.up(limits=_FEW)
    for tag in range(1, 4):
        pair.a.cable.inject(_forged(pair, m.Flush(tag), tag, ahead=tag - 1), len(pair.a.cable.frames))
    pair.settle()
    assert len(pair.b.asked) == 2
    assert pair.b.reason == "link: the place of a asks for more than it was granted."


def test_peer_that_uses_an_open_tag_again_is_cut_off() -> None:
    pair = LinkPair.up()
    for ahead in range(2):
        pair.a.cable.inject(_forged(pair, m.Flush(1), 5, ahead=ahead), ahead)
    pair.settle()
    assert pair.b.reason == "link: the place of a used tag 5 for a second request before the first was answered."


# Epochs and strange replies


def test_frames_of_an_old_epoch_are_refused_and_counted() -> None:
    old = _up()
    for request in REQUESTS:
        old.a.ask(request)
    old.settle()
    pair = _up()
    for frame in old.a.cable.seen + old.b.cable.seen:
        pair.a.cable.inject(frame)
        pair.b.cable.inject(frame)
    pair.settle()
    replayed = len(old.a.cable.seen) + len(old.b.cable.seen)
    for end in (pair.a, pair.b):
        assert (end.asked, end.answered, end.reason) == ([], [], "")
        assert end.statistics.refused == replayed
    pair.a.ask(m.Flush(1))
    pair.settle()
    assert len(pair.a.answered) == 1


def test_reply_to_no_request_is_refused_and_counted() -> None:
    pair = LinkPair.up()
    pair.a.cable.inject(_forged(pair, _WRITTEN, 77))
    pair.settle()
    assert (pair.b.answered, pair.b.statistics.refused, pair.b.reason) == ([], 1, "")


def test_second_reply_to_a_request_is_refused_and_counted() -> None:
    pair = _up()
    tag = pair.b.ask(m.Flush(1))
    pair.settle()
    pair.a.cable.inject(_forged(pair, m.Flushed(9), tag))
    pair.settle()
    assert (len(pair.b.answered), pair.b.statistics.refused) == (1, 1)


def test_reply_of_another_kind_ends_the_session() -> None:
    pair = LinkPair.up()
    tag = pair.b.ask(m.Flush(1))
    pair.settle()
    pair.a.cable.inject(_forged(pair, _WRITTEN, tag))
    pair.settle()
    assert pair.b.answered == []
    assert pair.b.reason == "link: the place of a answered FLUSH with WRITTEN."


@pytest.mark.parametrize("message", [MESSAGES[0], MESSAGES[2]], ids=["Hello", "Proof"])
def test_handshake_is_not_repeated_in_a_session(message: m.Message) -> None:
    pair = LinkPair.up()
    pair.a.cable.inject(_forged(pair, message, 0))
    pair.settle()
    assert pair.b.reason == f"link: the place of a sent a {type(message).__name__} while both sides ask and answer."


# The cable


def _burst(count: int = 5) -> LinkPair:
    pair = _up()
    for volume in range(count):
        pair.a.ask(m.Flush(volume))
    pair.collect()
    return pair


def _asked(pair: LinkPair) -> list[int]:
    return [asked.message.volume for asked in pair.b.asked if isinstance(asked.message, m.Flush)]


def test_lost_frame_ends_the_session_before_the_next_is_acted_on() -> None:
    pair = _burst()
    pair.a.cable.drop(2)
    pair.settle()
    assert _asked(pair) == [0, 1]
    assert pair.b.reason == "link: frames of the place of a are missing: 1. Check the cable."
    assert pair.a.reason == "link: the place of b ended the session because of what it received. Check the cable."


def test_doubled_frames_are_acted_on_once() -> None:
    pair = _burst()
    for index in (4, 2, 0):
        pair.a.cable.double(index)
    pair.settle()
    assert (_asked(pair), pair.b.statistics.refused, len(pair.a.answered)) == ([0, 1, 2, 3, 4], 3, 5)


def test_frames_in_another_order_end_the_session() -> None:
    pair = _burst()
    pair.a.cable.swap(1, 2)
    pair.settle()
    assert _asked(pair) == [0]
    assert pair.b.session.state is State.CLOSED


def test_held_frames_count_when_they_arrive_in_time() -> None:
    pair = _burst()
    pair.a.cable.held_until = 3.0
    pair.advance(2.9)
    pair.settle()
    assert _asked(pair) == []
    pair.advance(0.1)
    pair.settle()
    assert _asked(pair) == [0, 1, 2, 3, 4]


def test_cut_cable_leaves_the_rest_unsaid_and_silence_ends_the_session() -> None:
    pair = _burst()
    pair.a.cable.cut(1, 20)
    pair.deliver()
    pair.advance(5.0)
    assert _asked(pair) == [0]
    assert pair.b.reason == "link: the place of a was silent for 5 s. Check the cable and the other controller."
    assert isinstance(pair.b.events[-1], Ended) and isinstance(pair.b.events[-1].error, LinkDown)


def test_one_flipped_bit_anywhere_ends_the_session_and_nothing_is_acted_on() -> None:
    template = write_of(BLOCKS[:512])
    for bit in range(encode(template).frame_bytes * 8):
        pair = _up()
        pair.a.ask(template)
        pair.collect()
        pair.a.cable.flip(0, bit)
        pair.deliver()
        assert (pair.b.asked, pair.b.session.state) == ([], State.CLOSED), bit
        error = pair.b.events[-1]
        assert isinstance(error, Ended) and isinstance(error.error, PeerError)


def test_damaged_data_is_named_and_counted() -> None:
    pair = _up()
    pair.a.ask(write_of(BLOCKS))
    pair.collect()
    pair.a.cable.flip(0, (len(pair.a.cable.frames[0]) - 1) * 8)
    pair.settle()
    assert pair.b.reason == "link: the place of a sent damaged data. Check the cable."
    assert pair.b.statistics.corrupt == 1
    assert isinstance(pair.b.events[-1], Ended) and isinstance(pair.b.events[-1].error, CorruptFrame)


@pytest.mark.parametrize("where", ["before", "after"])
def test_junk_between_frames_ends_the_session(where: str) -> None:
    pair = _burst(2)
    pair.a.cable.inject(b"junk" * 20, 0 if where == "before" else 1)
    pair.settle()
    assert _asked(pair) == ([] if where == "before" else [0])
    assert pair.b.reason == "link: the place of a does not speak hwvirt's link. Check the address and the cable."


def test_frame_beyond_the_limit_ends_the_session_from_its_header() -> None:
    pair = LinkPair.up(limits=_FEW)
    pair.a.cable.inject(_forged(pair, write_of(bytes(1 << 20)), 1)[:HEADER_BYTES])
    pair.settle()
    assert "bytes where 8192 are allowed" in pair.b.reason
    assert len(pair.b.session.writable()) <= 1 << 18


def test_ended_session_says_and_hears_nothing_more() -> None:
    pair = _burst()
    pair.b.session.close()
    pair.settle()
    assert _asked(pair) == []
    assert pair.a.reason == "link: the place of b closed the session."
    assert (pair.a.session.next_deadline(), pair.a.session.outgoing()) == (float("inf"), [])
    with pytest.raises(LocalLinkError, match="no session with the place of b is up"):
        pair.a.ask(m.Flush(1))


# Time


def test_both_sides_show_signs_of_life_and_measure_the_way() -> None:
    pair = LinkPair.up()
    pair.advance(1.0)
    pair.collect()
    pair.now += 0.25
    pair.settle()
    assert (pair.a.statistics.rtt_us, pair.b.statistics.rtt_us) == (250_000, 250_000)


def test_idle_session_stays_up() -> None:
    pair = LinkPair.up()
    for _ in range(100):
        pair.advance(1.0)
        pair.settle()
    assert pair.a.session.state is pair.b.session.state is State.UP


def test_silent_peer_is_given_up_at_the_deadline() -> None:
    pair = LinkPair.up()
    pair.advance(4.99)
    assert pair.a.reason == ""
    pair.advance(0.01)
    assert pair.a.reason == "link: the place of b was silent for 5 s. Check the cable and the other controller."


def test_own_sleep_is_not_the_peers_silence() -> None:
    pair = LinkPair.up()
    pair.now = 60.0
    assert pair.a.session.tick(pair.now) == []
    assert pair.a.session.next_deadline() > pair.now
    pair.b.session.tick(pair.now)
    pair.settle()
    pair.advance(3.0)
    assert pair.a.session.state is State.UP


def test_deadlines_never_go_back() -> None:
    pair = LinkPair.up()
    deadlines = []
    for _ in range(50):
        deadlines.append(pair.a.session.next_deadline())
        pair.advance(0.3)
        pair.settle()
    assert all(one <= other for one, other in pairwise(deadlines))
