"""Either end may begin anew at any moment: what arrives in a session was sent in it, from its first byte on."""

from __future__ import annotations

import random

import pytest

from hwvirt.link.errors import LinkDown
from hwvirt.link.serial.line import Arrived, Line, LineEvent, LineUp, Lost
from hwvirt.link.serial.packing import UNPACKED_MOST_BYTES
from tests.link.serial.line import Bench, End, losing, traits
from tests.link.serial.talk import Talk, random_write

LABEL_BYTES = 8


class Labelled:
    """Sends, in each session of the line, a text that only this session has; keeps what came in each."""

    def __init__(self, end: End, name: str, size_bytes: int) -> None:
        self.end = end
        self.sent: list[bytes] = []
        self.came: list[bytearray] = []
        self._name = name
        self._size_bytes = size_bytes
        end.program = self

    def event(self, event: LineEvent, now: float) -> None:
        match event:
            case LineUp():
                label = f"{self._name}{len(self.sent):07d}".encode()
                self.sent.append(label + random.Random(label).randbytes(self._size_bytes))
                self.came.append(bytearray())
                self.end.line.send([self.sent[-1]])
            case Arrived(data):
                self.came[-1] += data
            case _:
                pass

    def deadline(self) -> float:
        return float("inf")

    def tick(self, now: float) -> None:
        raise AssertionError


def check(a: Labelled, b: Labelled) -> None:
    """Each session of one end heard one session of the other at most, and a beginning of what that one sent."""
    for listener, speaker in ((a, b), (b, a)):
        heard = set()
        for came in map(bytes, listener.came):
            if came:
                (source,) = [text for text in speaker.sent if text.startswith(came[:LABEL_BYTES])][:1]
                assert source.startswith(came)
                if len(came) >= LABEL_BYTES:
                    assert source not in heard
                    heard.add(source)


def labelled(bench: Bench, size_bytes: int = 3000) -> tuple[Labelled, Labelled]:
    return Labelled(bench.a, "a", size_bytes), Labelled(bench.b, "b", size_bytes)


def end_well(bench: Bench, a: Labelled, b: Labelled) -> None:
    bench.a.wire.spoil = bench.b.wire.spoil = None
    assert bench.run(
        20.0, lambda: bool(a.came and b.came) and bytes(a.came[-1]) == b.sent[-1] and bytes(b.came[-1]) == a.sent[-1]
    )
    check(a, b)


@pytest.mark.parametrize("how", ["killed", "closed"])
@pytest.mark.parametrize("who", ["a", "b"])
def test_restart_at_every_moment_of_a_session(who: str, how: str) -> None:
    for moment in range(120):
        bench = Bench(traits(packs=bool(moment % 2)))
        a, b = labelled(bench)
        bench.run(moment * 0.0031)
        end = getattr(bench, who)
        if how == "killed":
            bench.replace(end, traits(packs=bool(moment % 3)))
        else:
            end.line.restart(bench.now + moment % 3 * 0.05)
        end_well(bench, a, b)
        assert len(a.sent) <= 3


@pytest.mark.parametrize("seed", range(12))
def test_many_restarts_of_both_ends_on_a_bad_line(seed: int) -> None:
    chance = random.Random(seed)
    bench = Bench()
    a, b = labelled(bench)
    bench.a.wire.spoil, bench.b.wire.spoil = losing(0.2, seed), losing(0.2, seed + 50)
    for _ in range(40):
        bench.run(chance.choice((0.0005, 0.003, 0.02, 0.2)))
        end = chance.choice(bench.ends)
        if chance.random() < 0.5:
            bench.replace(end)
        else:
            end.line.restart(bench.now + chance.choice((0.0, 0.03)))
        check(a, b)
    end_well(bench, a, b)


def test_frames_of_an_older_session_are_refused() -> None:
    bench = Bench()
    a, b = labelled(bench, 300)
    old: list[bytes] = []
    bench.a.wire.spoil = lambda frame: [old.append(frame) or frame]  # type: ignore[func-returns-value]  # append tells nothing
    bench.run(0.5)
    bench.replace(bench.b)
    bench.run(0.5)
    bench.a.wire.spoil = None
    packets = [frame for frame in old if len(frame) != 22]
    damaged = bench.b.line.statistics.damaged_frames
    for frame in packets:
        bench.inject(bench.b, frame)
    assert bench.b.line.statistics.damaged_frames >= damaged + len(packets) - 8  # those of the newest session are known
    end_well(bench, a, b)


def test_lost_session_says_why() -> None:
    bench = Bench()
    bench.start()
    bench.replace(bench.b)
    bench.run(0.5)
    (lost,) = [event for event in bench.a.events if isinstance(event, Lost)]
    assert isinstance(lost.error, LinkDown)
    assert str(lost.error) == "link: the other controller on the line has begun anew."


def test_garbage_of_any_length_costs_no_session() -> None:
    bench = Bench()
    a, b = labelled(bench, 20_000)
    chance = random.Random(3)
    for _ in range(60):
        bench.run(0.05)
        bench.inject(chance.choice(bench.ends), chance.randbytes(chance.choice((1, 30, 3000))))
    end_well(bench, a, b)
    assert len(a.sent) == len(b.sent) == 1


def test_segment_that_unpacks_to_too_much_ends_the_session() -> None:
    line, peer = Line(traits(packs=True), 7, 0.0), Line(traits(packs=True), 3, 0.0)
    assert line.received(peer.outgoing(0.0), 0.0) == []
    assert peer.received(line.outgoing(0.0), 0.0) == [LineUp()]
    assert line.received(peer.outgoing(0.1), 0.1) == [LineUp()]
    stream = peer._session
    assert stream is not None
    assert stream._packer is not None
    stream._ready += stream._packer.pack(bytes(8 * UNPACKED_MOST_BYTES))
    (lost,) = line.received(peer.outgoing(0.2), 0.2)
    assert isinstance(lost, Lost)
    assert str(lost.error) == f"link: a segment of the line unpacks to more than {UNPACKED_MOST_BYTES} bytes."
    assert not line.up


# With the session of the link above


def test_session_of_the_link_ends_with_that_of_the_line_and_another_begins() -> None:
    talk = Talk()
    talk.a.ask(random_write(4))
    talk.bench.run(0.2)
    talk.restart(talk.b)
    assert talk.bench.run(2.0, lambda: talk.a.up and talk.b.up)
    assert talk.a.endings == ["link: the other controller on the line has begun anew."]
    assert talk.seconds_for(1, 1, random_write) < 0.5


def test_cut_cable_is_a_silence_of_the_session_and_heals() -> None:
    talk = Talk()
    for end in talk.bench.ends:
        end.wire.up = False
    talk.bench.run(7.0)
    assert not talk.a.up
    assert [ending for ending in talk.a.endings if "was silent for 5 s" in ending]
    for end in talk.bench.ends:
        end.wire.up = True
    assert talk.bench.run(3.0, lambda: talk.a.up and talk.b.up)


def test_half_open_line_heals() -> None:
    talk = Talk()
    talk.bench.a.wire.up = False
    talk.bench.run(20.0)
    assert not talk.a.up
    talk.bench.a.wire.up = True
    assert talk.bench.run(3.0, lambda: talk.a.up and talk.b.up)
    assert talk.seconds_for(1, 1, random_write) < 0.5
