"""How much of a line's rate reaches the floors above, in virtual time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hwvirt.link.serial.frames import VERSION, FrameReader, Hello, HelloFlag, Packet, seed_of, write_hello
from hwvirt.link.serial.line import Line, LineUp
from hwvirt.link.serial.traits import LineTraits
from tests.link.serial.line import losing, traits
from tests.link.serial.talk import BLOCK, Talk, Talker, random_write, text_write, zero_write

LINES = [
    traits(baud=115_200, packs=False),
    traits(baud=115_200, packs=True),
    traits(baud=921_600, packs=True),
    traits(baud=3_000_000, packs=True),
    traits(baud=3_000_000, packs=True, buffer_bytes=32_768),
]


def name(of: LineTraits) -> str:
    return f"{of.baud}-{of.buffer_bytes}-{'zstd' if of.packs else 'plain'}"


@pytest.mark.parametrize("of", LINES, ids=name)
def test_random_writes_at_depth_8_get_93_percent_of_the_line(of: LineTraits) -> None:
    writes = min(400, of.baud // 3000)
    seconds = Talk(of).seconds_for(writes, 8, random_write)
    assert writes * BLOCK / (of.baud / 10 * seconds) >= 0.93


@pytest.mark.parametrize("of", LINES, ids=name)
def test_one_write_at_a_time_takes_its_bytes_on_the_wire_and_at_most_a_tenth_more(of: LineTraits) -> None:
    talk = Talk(of)
    for _ in range(5):
        wires = talk.bench.a.wire, talk.bench.b.wire
        before = sum(wire.carried_bytes for wire in wires)
        seconds = talk.seconds_for(1, 1, random_write)
        wire_bytes = sum(wire.carried_bytes for wire in wires) - before
        assert of.line_s(BLOCK) < seconds <= 1.10 * of.line_s(wire_bytes)
        talk.bench.run(0.4)


@pytest.mark.parametrize("of", [LINES[0], LINES[4]], ids=name)
def test_both_directions_at_once_get_90_percent_each(of: LineTraits) -> None:
    talk = Talk(of)
    writes = min(200, of.baud // 5000)
    answered = [0, 0]

    def asker(side: int, talker: Talker) -> Callable[[float], None]:
        def more(now: float) -> None:
            answered[side] += 1
            if answered[side] <= writes - 8:
                talker.ask(random_write())

        return more

    talk.a.on_answer, talk.b.on_answer = asker(0, talk.a), asker(1, talk.b)
    began = talk.bench.now
    for talker in (talk.a, talk.b) * 8:
        talker.ask(random_write())
    assert talk.bench.run(120.0, lambda: min(answered) >= writes)
    assert writes * BLOCK / (of.baud / 10 * (talk.bench.now - began)) >= 0.90


@pytest.mark.parametrize("of", LINES, ids=name)
def test_zero_data_goes_many_times_faster_than_the_line(of: LineTraits) -> None:
    seconds = Talk(of).seconds_for(400, 8, zero_write)
    assert 400 * BLOCK / (of.baud / 10 * seconds) >= 20


@pytest.mark.parametrize("of", LINES[:2], ids=name)
def test_a_message_of_zeroes_alone_is_no_bomb(of: LineTraits) -> None:
    talk = Talk(of)
    assert talk.seconds_for(2, 1, lambda: zero_write(1024)) < 8 * (1 << 20) / 11_520 / 20
    assert talk.a.endings == talk.b.endings == []


@pytest.mark.parametrize("of", [of for of in LINES if of.packs], ids=name)
def test_text_goes_well_above_the_rate_of_the_line(of: LineTraits) -> None:
    writes = min(400, of.baud // 1000)
    seconds = Talk(of).seconds_for(writes, 8, text_write)
    assert writes * BLOCK / (of.baud / 10 * seconds) >= 2


def test_packing_costs_random_data_less_than_a_hundredth() -> None:
    plain, packed = (Talk(of).seconds_for(40, 8, random_write) for of in LINES[:2])
    assert packed < 1.01 * plain


def test_one_packs_only_when_both_can() -> None:
    talk = Talk(traits(packs=True))
    mute = Talk(traits(packs=True))
    mute.restart(mute.b, traits(packs=False))
    mute.bench.run(1.0)
    assert mute.bench.run(5.0, lambda: mute.a.up and mute.b.up)
    assert talk.seconds_for(8, 8, text_write) < 1.5
    assert mute.seconds_for(8, 8, text_write) > 2.5
    assert max(talk.seconds_for(8, 8, zero_write), mute.seconds_for(8, 8, zero_write)) < 0.3


@pytest.mark.parametrize("flags", [HelloFlag(0), HelloFlag.ZSTD])
def test_an_end_that_cannot_put_zeroes_in_gets_them_whole(flags: HelloFlag) -> None:
    line = Line(traits(packs=False), 7, 0.0)
    assert line.received(write_hello(Hello(VERSION, HelloFlag.UP | flags, 3, 7, 3400)), 0.0) == [LineUp()]
    line.send([bytes(4096)])
    reader = FrameReader()
    reader.seed = seed_of(7, 3)
    frames = [reader.read(raw) for now in (0.0, 0.1, 0.2) for raw in reader.closed(line.outgoing(now))]
    sent = b"".join(bytes(frame.data) for frame in frames if isinstance(frame, Packet))
    assert len(sent) > 1000
    assert not any(sent)


@pytest.mark.parametrize(("rate", "least"), [(0.01, 0.88), (0.05, 0.78), (0.2, 0.5)])
def test_lost_frames_cost_little_more_than_themselves(rate: float, least: float) -> None:
    talk = Talk(traits())
    talk.bench.a.wire.spoil, talk.bench.b.wire.spoil = losing(rate, 1), losing(rate, 2)
    seconds = talk.seconds_for(60, 8, random_write)
    assert 60 * BLOCK / (11_520 * seconds) >= least
    assert talk.a.endings == talk.b.endings == []


def test_message_that_takes_minutes_is_no_silence() -> None:
    talk = Talk(traits(packs=False))
    assert talk.seconds_for(1, 1, lambda: random_write(256)) > 90
    assert talk.a.endings == talk.b.endings == []
