"""Somebody reads the cable, knows every rule and every number, but not the secret: he can end a session, and no more."""

from __future__ import annotations

import pytest

from hwvirt.digest import crc32c
from hwvirt.link import messages as m
from hwvirt.link.codec import encode
from hwvirt.link.config import Role
from hwvirt.link.faults.forgery import forged
from hwvirt.link.handshake import Handshake
from hwvirt.link.wire import HEADER_BYTES, write_frame
from tests.link.link_samples import write_of
from tests.link.pair import End, LinkPair

_CRC_AT = HEADER_BYTES - 4
_WRITTEN = m.Written(3, [m.Placement(10, 1, 1)])
_FORGED = "sent a damaged or forged frame. Check the cable."


def _epoch(end: End) -> int:
    peer = end.session.peer
    assert peer is not None
    return peer.epoch


def _asked() -> tuple[LinkPair, int]:
    """A pair in which a has asked and b has not answered yet."""
    pair = LinkPair.up()
    tag = pair.a.ask(write_of(bytes(512)))
    pair.settle()
    return pair, tag


def test_reply_with_another_position_is_refused_before_the_true_one_comes() -> None:
    pair, tag = _asked()
    pair.b.session.reply(tag, _WRITTEN)
    pair.collect()
    fake = forged(pair.b.cable.frames[0])
    assert fake is not None
    pair.b.cable.inject(fake)
    pair.settle()
    assert pair.a.answered == []
    assert pair.a.reason == f"link: the place of b {_FORGED}"
    assert pair.a.statistics.corrupt == 1


def test_reply_that_is_made_up_is_refused() -> None:
    pair, tag = _asked()
    pair.b.cable.inject(b"".join(write_frame(_epoch(pair.a), len(pair.b.cable.seen), tag, encode(_WRITTEN))))
    pair.settle()
    assert (pair.a.answered, pair.a.reason) == ([], f"link: the place of b {_FORGED}")


def test_request_that_is_made_up_is_refused() -> None:
    pair = LinkPair.up()
    pair.a.cable.inject(b"".join(write_frame(_epoch(pair.a), len(pair.a.cable.seen), 1, encode(m.Drop(0, 0, 100)))))
    pair.settle()
    assert (pair.b.asked, pair.b.reason) == ([], f"link: the place of a {_FORGED}")


def test_own_frames_sent_back_are_refused() -> None:
    pair, _ = _asked()
    mine = pair.a.cable.seen[len(pair.b.cable.seen)]  # the number that a awaits
    pair.b.cable.inject(mine)
    pair.settle()
    assert (pair.a.asked, pair.a.reason) == ([], f"link: the place of b {_FORGED}")


def test_seals_of_two_directions_and_of_two_sessions_differ() -> None:
    one, other = LinkPair.up(), LinkPair.up()
    seals = {end.session.seal.of(b"header", b"meta") for pair in (one, other) for end in (pair.a, pair.b)}
    assert len(seals) == 4


@pytest.mark.parametrize("role", Role)
def test_seal_comes_from_the_secret_and_not_only_from_what_everybody_can_read(role: Role) -> None:
    hello = m.Hello("a", 1, bytes(32), 1, 4096, 4096)
    seals = {Handshake(secret, hello, hello).seal(role).of(b"header", b"meta") for secret in (b"one", b"other")}
    assert len(seals) == 2


def test_no_changed_byte_is_believed_however_right_the_header_crc_is() -> None:
    request = write_of(bytes(512))
    for offset in range(encode(request).frame_bytes):
        pair = LinkPair.up()
        pair.a.ask(request)
        pair.collect()
        changed = bytearray(pair.a.cable.frames[0])
        changed[offset] ^= 1
        changed[_CRC_AT:HEADER_BYTES] = crc32c(changed[:_CRC_AT]).to_bytes(4, "little")
        pair.a.cable.frames = [bytes(changed)]
        pair.deliver()
        in_header_crc = _CRC_AT <= offset < HEADER_BYTES
        assert [event.message for event in pair.b.asked] == [request] * in_header_crc, f"byte {offset}"
