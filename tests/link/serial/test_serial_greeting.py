"""How two ends find each other, at any moment of the byte stream."""

from __future__ import annotations

import pytest

from hwvirt.link.serial.frames import KNOCK, VERSION, Hello, HelloFlag, write_hello
from hwvirt.link.serial.greeting import Greeting, News
from hwvirt.link.serial.line import Arrived, Line, LineUp, Lost, Misled
from tests.link.serial.line import Bench, frames_in, traits

YEAR_S = 365 * 86400.0
NONE = HelloFlag(0)


def hello(own: int, echo: int = 0, flags: HelloFlag = NONE) -> Hello:
    return Hello(VERSION, flags, own, echo, 3400)


def test_line_comes_up_at_once_when_both_start() -> None:
    bench = Bench()
    assert bench.run(0.05, lambda: bench.a.line.up and bench.b.line.up)


def test_line_comes_up_whoever_starts_first_and_whenever() -> None:
    for late_s in (0.001, 0.3, 1.7, 3600.0):
        bench = Bench()
        bench.b.wire.up = bench.a.wire.up = False  # nobody is there
        bench.run(late_s)
        bench.b.wire.up = bench.a.wire.up = True
        bench.replace(bench.b)
        assert bench.run(0.5, lambda bench=bench: bench.a.line.up and bench.b.line.up)  # type: ignore[misc]  # no lambda types


def test_cable_that_is_plugged_in_brings_the_line_up_within_a_pause() -> None:
    bench = Bench(traits(last_retry_s=2.0))
    for cut_s in (1.0, 10.0, 50.0):
        for end in bench.ends:
            end.wire.up = False
            end.line.restart(bench.now)
        bench.run(cut_s)
        for end in bench.ends:
            end.wire.up = True
        assert bench.run(2.5, lambda: bench.a.line.up and bench.b.line.up)


def test_end_that_starts_in_the_middle_of_a_frame_comes_up() -> None:
    bench = Bench()
    bench.start()
    bench.a.line.send([bytes(range(256)) * 100])
    bench.run(0.5)
    old = bytes(bench.b.got)
    bench.replace(bench.b)
    assert bench.run(0.5, lambda: bench.a.losses == 1 and bench.a.line.up and bench.b.line.up)
    bench.b.got.clear()
    bench.a.line.send([b"only this"])
    bench.run(1.0)
    assert old
    assert bench.b.got == b"only this"


def test_knocks_of_a_year_fit_a_buffer_that_nobody_reads() -> None:
    line, now, size_bytes = Line(traits(), 7, 0.0), 0.0, 0
    while now < YEAR_S:
        size_bytes += len(line.outgoing(now))
        now = line.next_deadline()
    assert size_bytes < 600
    assert line.next_deadline() < 2 * YEAR_S  # and it goes on


def test_noise_on_the_line_does_not_make_it_talk_without_end() -> None:
    line, size_bytes = Line(traits(), 7, 0.0), 0
    for millisecond in range(10_000):
        line.received(b"\xaa\x00", millisecond / 1000)
        size_bytes += len(line.outgoing(millisecond / 1000))
    assert size_bytes <= 22 * 10 / 0.05 + 22


def test_lost_hellos_are_said_again() -> None:
    for lost in range(6):
        bench = Bench()
        left = [lost]

        def spoil(frame: bytes, left: list[int] = left) -> list[bytes]:
            left[0] -= 1
            return [frame] if left[0] == -1 else [frame] if left[0] < -1 else []

        bench.a.wire.spoil = bench.b.wire.spoil = spoil
        assert bench.run(10.0, lambda bench=bench: bench.a.line.up and bench.b.line.up)  # type: ignore[misc]  # as above


def test_packet_shows_that_the_other_end_is_up_when_its_last_hello_was_lost() -> None:
    line = Line(traits(), 7, 0.0)
    peer = Line(traits(), 3, 0.0)
    assert line.received(peer.outgoing(0.0), 0.01) == []
    assert peer.received(line.outgoing(0.01), 0.02) == [LineUp()]
    peer.outgoing(0.03)  # the hello that says so is lost
    peer.send([b"data"])
    assert line.received(peer.outgoing(0.06), 0.07) == [LineUp(), Arrived(b"data")]


def test_restarted_end_is_believed_only_after_it_echoes() -> None:
    us = Greeting(7, 0.0, 0.05, 2.0)
    assert us.heard(hello(3, 7), 0.0) is News.UP
    assert us.sign(0.0) == (3, True)
    assert us.heard(hello(4), 1.0) is News.NOTHING
    assert us.up
    assert us.sign(1.0) == (3, True)  # tells whom it is up with
    assert us.heard(hello(4, 7), 1.1) is News.LOST
    assert (us.own, us.peer, us.up) == (8, 4, False)
    assert us.sign(1.1) == (4, False)
    assert us.heard(hello(4, 8, HelloFlag.UP), 1.2) is News.UP


@pytest.mark.parametrize("step", ["a hello", "a later hello", "an answer"])
def test_replayed_hellos_of_an_older_session_change_nothing(step: str) -> None:
    bench = Bench()
    seen: list[bytes] = []
    bench.a.wire.spoil = lambda frame: [seen.append(frame) or frame]  # type: ignore[func-returns-value]  # append tells nothing
    bench.start()
    hellos = [frame for frame in seen if len(frame) > 15]
    bench.replace(bench.a)
    bench.run(0.5)
    assert bench.a.line.up
    old = {"a hello": hellos[:1], "a later hello": hellos[-1:], "an answer": hellos}[step]
    events = len(bench.b.events)
    for frame in old * 3:
        bench.inject(bench.b, frame)
        bench.run(0.2)
    assert len(bench.b.events) == events
    assert bench.a.line.up
    assert bench.b.line.up


def test_no_two_ends_ping_pong_hellos() -> None:
    bench = Bench()
    bench.start()
    sent = bench.a.line.statistics.sent_frames + bench.b.line.statistics.sent_frames
    bench.inject(bench.a, write_hello(hello(0x55, 0x66, HelloFlag.UP)))
    bench.inject(bench.b, write_hello(hello(0x77)))
    bench.run(5.0)
    assert bench.a.line.statistics.sent_frames + bench.b.line.statistics.sent_frames - sent <= 2


def test_looped_line_is_named() -> None:
    line = Line(traits(), 7, 0.0)
    (event,) = line.received(line.outgoing(0.0), 0.01)
    assert isinstance(event, Misled)
    assert str(event.error) == (
        "link: on the line this controller hears itself. Take the loop off, or connect the other controller."
    )
    assert not line.up


def test_other_version_and_nonsense_are_named_and_refused() -> None:
    line = Line(traits(), 7, 0.0)
    (other,) = line.received(write_hello(hello(3, 7)._replace(version=2)), 0.01)
    assert isinstance(other, Misled)
    assert other.error.reason == "link: the line speaks version 2 of the line, this controller version 1."
    for frame in (hello(0, 7), hello(3, 7)._replace(buffer_bytes=0)):
        (nonsense,) = line.received(write_hello(frame), 0.01)
        assert isinstance(nonsense, Misled)
    assert not line.up


def test_end_that_rests_says_nothing_and_hears_nothing() -> None:
    line = Line(traits(), 7, 0.0)
    line.outgoing(0.0)
    line.restart(5.0)
    assert line.received(write_hello(hello(3, 8)), 1.0) == []
    assert line.outgoing(1.0) == b""
    assert line.next_deadline() == 5.0
    assert len(line.outgoing(5.0)) > len(KNOCK)
    assert line.received(write_hello(hello(3, 8)), 5.1) == [LineUp()]


def test_closed_session_ends_at_the_other_end_too() -> None:
    bench = Bench()
    bench.start()
    bench.a.line.restart(bench.now + 0.1)
    assert bench.run(1.0, lambda: bench.b.losses == 1 and bench.a.line.up and bench.b.line.up)
    lost = next(event for event in bench.b.events if isinstance(event, Lost))
    assert str(lost.error) == "link: the other controller on the line has begun anew."


def test_every_hello_is_a_frame() -> None:
    line = Line(traits(), 0xFFFF_FFFF, 0.0)
    line.restart(0.0)
    assert line.received(write_hello(hello(3, 1)), 0.0) == [LineUp()]  # numbers go round, and leave zero out
    assert len(frames_in(line.outgoing(0.0))) == 1
