"""The window: whatever happens to frames, bytes arrive once and in order, and the other end's buffer is never overrun."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from hwvirt.link.serial.frames import Packet
from hwvirt.link.serial.numbers import wrapped
from hwvirt.link.serial.receiver import Receiver
from hwvirt.link.serial.sender import MISSED_BITS, SEGMENTS_MOST, Sender
from hwvirt.link.serial.traits import LineStatistics, LineTraits
from tests.link.serial.line import Bench, Spoil, losing, traits

DATA = random.Random(4).randbytes(20_000)


def carried(spoil_a: Spoil | None = None, spoil_b: Spoil | None = None, of: LineTraits | None = None) -> Bench:
    """A bench on which DATA went both ways, whole and in one session."""
    bench = Bench(of or traits())
    bench.start()
    bench.a.wire.spoil, bench.b.wire.spoil = spoil_a, spoil_b
    for end in bench.ends:
        end.line.send([DATA])
    assert bench.run(120, lambda: len(bench.a.got) >= len(DATA) and len(bench.b.got) >= len(DATA))
    bench.run(10.0)
    assert (bytes(bench.a.got), bytes(bench.b.got)) == (DATA, DATA)
    assert bench.a.losses + bench.b.losses == 0
    assert bench.a.line.idle
    assert bench.b.line.idle
    assert max(end.most_unread for end in bench.ends) <= 3400
    return bench


def nth(victim: int, fate: Callable[[bytes], list[bytes]]) -> Spoil:
    seen = [0]

    def spoil(frame: bytes) -> list[bytes]:
        seen[0] += 1
        return fate(frame) if seen[0] - 1 == victim else [frame]

    return spoil


def flipped(frame: bytes) -> list[bytes]:
    return [frame[:5] + bytes([frame[5] ^ 4]) + frame[6:]]


def test_nothing_is_sent_twice_on_a_good_line() -> None:
    bench = carried()
    for end in bench.ends:
        assert end.line.statistics.resent_segments == end.line.statistics.probes == end.line.statistics.damaged_frames == 0


@pytest.mark.parametrize("fate", [lambda _: [], flipped], ids=["lost", "damaged"])
def test_every_single_frame_may_go_wrong(fate: Callable[[bytes], list[bytes]]) -> None:
    frames = carried().a.line.statistics.sent_frames
    for victim in range(frames + 3):
        bench = carried(nth(victim, fate))
        assert bench.a.line.statistics.resent_segments <= 2


def test_every_single_frame_may_come_twice() -> None:
    frames = carried().a.line.statistics.sent_frames
    for victim in range(frames):
        assert carried(nth(victim, lambda frame: [frame, frame])).a.line.statistics.resent_segments == 0


def swapping(victim: int) -> Spoil:
    seen, held = [0], [b""]

    def spoil(frame: bytes) -> list[bytes]:
        seen[0] += 1
        if seen[0] - 1 == victim:
            held[0] = frame
            return []
        late, held[0] = held[0], b""
        return [frame, late]

    return spoil


def test_every_two_frames_may_change_places() -> None:
    frames = carried().a.line.statistics.sent_frames
    for victim in range(frames):
        carried(swapping(victim))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_seeded_losses_both_ways(rate: float, seed: int) -> None:
    bench = carried(losing(rate, seed), losing(rate, seed + 100))
    if rate > 0.02:
        assert sum(end.line.statistics.resent_segments for end in bench.ends) > 0


@pytest.mark.parametrize("seed", range(4))
def test_bursts_of_loss(seed: int) -> None:
    chance = random.Random(seed)
    left = [0]

    def burst(frame: bytes) -> list[bytes]:
        if not left[0] and chance.random() < 0.03:
            left[0] = chance.randrange(1, 12)
        left[0] = max(0, left[0] - 1)
        return [] if left[0] else [frame]

    carried(burst, burst)


@pytest.mark.parametrize("seed", range(6))
def test_everything_at_once(seed: int) -> None:
    chance = random.Random(seed)
    old: list[bytes] = []

    def spoil(frame: bytes) -> list[bytes]:
        old.append(frame)
        match chance.randrange(20):
            case 0:
                return []
            case 1:
                return flipped(frame)
            case 2:
                return [frame, frame]
            case 3:
                return [chance.choice(old), frame]
            case 4:
                return [chance.randbytes(chance.randrange(1, 40)), frame]
            case 5:
                return [frame[: chance.randrange(len(frame))]]
            case _:
                return [frame]

    carried(spoil, spoil, traits(packs=bool(seed % 2)))


# The receiver's buffer


@pytest.mark.parametrize("buffer_bytes", [1024, 3400, 32_768])
@pytest.mark.parametrize("baud", [9600, 115_200, 3_000_000])
def test_stalled_end_is_never_overrun(baud: int, buffer_bytes: int) -> None:
    bench = Bench(traits(baud=baud, buffer_bytes=buffer_bytes))
    bench.start()
    bench.a.line.send([bytes(random.Random(1).randbytes(1 << 19))])
    bench.b.line.send([bytes(5000)])
    chance = random.Random(2)
    for _ in range(20):
        bench.run(chance.uniform(0.0, 0.2))
        bench.b.stalled = True
        bench.run(chance.choice((0.01, 0.3, 10.0)))
        assert not bench.b.dead
        bench.wake(bench.b)
    most = min(buffer_bytes, MISSED_BITS * bench.a.line.traits.frame_bytes(buffer_bytes))
    assert most // 3 < bench.b.most_unread <= buffer_bytes
    assert bench.run(600 * 115_200 / baud, lambda: len(bench.b.got) == 1 << 19)


def test_end_that_never_reads_again_is_not_overrun_by_sessions_and_knocks() -> None:
    bench = Bench()
    bench.start()
    bench.a.line.send([DATA])
    bench.run(0.1)
    bench.b.stalled = True
    for _ in range(10):
        bench.run(6.0)
        bench.a.line.restart(bench.now)  # as a session does that has heard nothing
    bench.run(86_400.0)
    assert not bench.b.dead


def test_sender_asks_instead_of_sending_again_on_suspicion() -> None:
    bench = Bench()
    bench.start()
    bench.a.line.send([DATA[:500]])
    bench.b.stalled = True
    bench.run(30.0)
    assert bench.a.line.statistics.resent_segments == 0
    assert 3 <= bench.a.line.statistics.probes <= 20
    bench.wake(bench.b)
    assert bench.run(1.0, lambda: bench.a.line.idle)
    assert bench.b.got == DATA[:500]


# By hand


def sender(cut: Callable[[], bytes] = lambda: b"data", buffer_bytes: int = 3400) -> Sender:
    return Sender(buffer_bytes, 0.1, cut, LineStatistics())


def send(by: Sender, count: int, size_bytes: int = 50) -> None:
    for _ in range(count):
        found = by.next_segment()
        assert found is not None
        by.sent(found[0], wants_answer=True, size_bytes=size_bytes, gone_at=0.0)


def test_numbers_go_round_and_nobody_notices() -> None:
    chance, statistics = random.Random(1), LineStatistics()
    by, receiver = sender(), Receiver(850, 0.01, statistics)
    arrived = 0
    for number in range(1, 140_000):
        found = by.next_segment()
        assert found is not None
        by.sent(found[0], wants_answer=True, size_bytes=50, gone_at=0.0)
        if chance.random() < 0.1 and by.has_room(50, data=True):
            continue  # lost, found out with the next one
        arrived += len(receiver.take(Packet(wrapped(number), 0, 0, wrapped(found[0]), found[1], False), 50, 0.0))
        assert by.answered(wrapped(receiver.heard), receiver.missed, 1.0)
    assert arrived > 1.5 * (1 << 16)
    assert statistics.duplicate_segments == 0


def test_answer_about_what_was_never_sent_is_refused() -> None:
    by = sender()
    send(by, 3)
    assert not by.answered(4, 0, 1.0)
    assert by.answered(3, 0, 1.0)
    assert by.idle


def test_window_closes_when_the_answers_cannot_tell_of_more() -> None:
    by = sender(buffer_bytes=1 << 20)
    send(by, MISSED_BITS)
    assert not by.has_room(50, data=True)
    assert by.has_room(50, data=False)


def test_window_closes_at_what_the_receiver_can_hold_behind_a_missing_segment() -> None:
    by = sender(buffer_bytes=1 << 20)
    send(by, 1)
    for number in range(2, SEGMENTS_MOST + 1):
        send(by, 1)
        # The first segment is lost as often as it is sent: with transmission 1, and then never sent again.
        assert by.answered(number, 0 if number > 2 else 1, 1.0)
        if number == 2:
            again = by.next_segment()
            assert again == (0, b"data")
    assert not by.has_segment(unsent=True)
    assert by.next_segment() is None


def test_pauses_between_probes_double_until_an_answer_comes() -> None:
    by = sender()
    send(by, 1)
    assert by.answered(1, 0, 0.1)
    send(by, 1)
    now, pauses = 0.0, []
    for _ in range(6):
        pauses.append(by.probe_at() - now)
        now = by.probe_at()
        by.probed(now)  # there may be no room for it: the next pause begins all the same
    assert [round(pause / pauses[0]) for pause in pauses] == [1, 1, 1, 2, 4, 8]
    found = by.next_segment()
    assert found is not None
    by.sent(found[0], wants_answer=True, size_bytes=50, gone_at=now)
    assert by.answered(2, 0, now)
    assert by.probe_at() == now + pauses[0]  # that it stood still is not how slow it is


def test_receiver_confirms_nothing_that_it_does_not_keep() -> None:
    receiver = Receiver(850, 0.01, LineStatistics())
    assert receiver.take(Packet(1, 0, 0, SEGMENTS_MOST, b"too far", False), 50, 0.0) == []
    assert receiver.heard == 0
    assert receiver.take(Packet(2, 0, 0, 0, b"first", False), 50, 0.0) == [b"first"]
    assert (receiver.heard, receiver.missed) == (2, 1)


def test_receiver_counts_what_it_has_already_and_keeps_it_once() -> None:
    statistics = LineStatistics()
    receiver = Receiver(850, 0.01, statistics)
    first, third = Packet(1, 0, 0, 0, b"a", False), Packet(2, 0, 0, 2, b"c", False)
    assert receiver.take(first, 50, 0.0) == [b"a"]
    assert receiver.take(third, 50, 0.0) == []
    for again in (first, third):
        assert receiver.take(again._replace(number=again.number + 2), 50, 0.0) == []
    assert statistics.duplicate_segments == 2
    assert receiver.take(Packet(5, 0, 0, 1, b"b", False), 50, 0.0) == [b"b", b"c"]


def test_receiver_answers_a_probe_and_a_quarter_of_its_buffer_at_once() -> None:
    receiver = Receiver(850, 0.01, LineStatistics())
    receiver.take(Packet(1, 0, 0, None, b"", True), 16, 1.0)
    assert receiver.answer_at == 1.0
    receiver.answered()
    for number, due in ((2, 2.01), (3, 2.0)):
        receiver.take(Packet(number, 0, 0, number - 2, b"a", False), 425, 2.0)
        assert receiver.answer_at == due
    receiver.answered()
    receiver.take(Packet(4, 0, 0, 2, b"a", False), 425, 3.0)
    assert receiver.answer_at == 3.01


def test_receiver_tells_what_is_missing_at_once_and_the_rest_in_a_moment() -> None:
    receiver = Receiver(850, 0.01, LineStatistics())
    receiver.take(Packet(1, 0, 0, 0, b"a", False), 50, 1.0)
    assert receiver.answer_at == 1.01
    receiver.take(Packet(3, 0, 0, 2, b"c", False), 50, 1.005)
    assert receiver.answer_at == 1.005
    assert receiver.missed == 1
    receiver.answered()
    assert receiver.take(Packet(4, 0, 0, 1, b"b", False), 50, 1.1) == [b"b", b"c"]


def test_missed_bits_are_right_after_any_order() -> None:
    for seed in range(200):
        chance = random.Random(seed)
        receiver = Receiver(850, 0.01, LineStatistics())
        came: set[int] = set()
        at = 0
        for _ in range(60):
            at += chance.choice((1, 1, 1, 2, 5, 40, -3, 0))
            number = max(1, at)
            receiver.take(Packet(number, 0, 0, None, b"", False), 20, 0.0)
            came.add(number)
            heard = max(came)
            bits = sum((heard - 1 - bit not in came and heard - 1 - bit > 0) << bit for bit in range(MISSED_BITS))
            assert (receiver.heard, receiver.missed) == (heard, bits)
