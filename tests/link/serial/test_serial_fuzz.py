"""Bytes of any kind, at any moment: a line never fails, keeps little, and still speaks with its peer afterwards.

python -m tests.link.serial.test_serial_fuzz 1000000 [SEED]     a million inputs; hypothesis would keep them all
"""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwvirt.link.serial.frames import (
    FRAME_MOST_BYTES,
    VERSION,
    FrameReader,
    Hello,
    HelloFlag,
    Packet,
    seed_of,
    write_hello,
    write_packet,
)
from hwvirt.link.serial.line import Arrived, Line, LineUp
from hwvirt.link.serial.packing import UNPACKED_MOST_BYTES
from hwvirt.link.serial.sender import SEGMENTS_MOST
from tests.link.many_inputs import main
from tests.link.serial.line import traits

INPUTS = 10_000
FUZZ = settings(
    max_examples=INPUTS // 4, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
OURS, THEIRS = 7, 3
SEED = seed_of(THEIRS, OURS)

seeds = st.integers(0, 1 << 64).map(random.Random)
"""Frames are built from a seed: hypothesis would take ten times as long to draw their fields."""


def any_packet(chance: random.Random) -> Packet:
    def near() -> int:
        return chance.choice((chance.randrange(70), chance.randrange(1 << 16)))

    missed = chance.choice((0, chance.randrange(1 << 32)))
    if chance.random() < 0.5:
        return Packet(near(), near(), missed, near(), chance.randbytes(chance.randrange(1, 60)), chance.random() < 0.3)
    return Packet(near(), near(), missed, None, b"", chance.random() < 0.5)


def any_hello(chance: random.Random) -> Hello:
    def number() -> int:
        return chance.choice((OURS, THEIRS, OURS + 1, 0, chance.randrange(1 << 32)))

    version = VERSION if chance.random() < 0.9 else chance.randrange(256)
    return Hello(version, HelloFlag(chance.randrange(8)), number(), number(), chance.choice((0, 1024, 3400, 0xFFFF_FFFF)))


def any_piece(chance: random.Random) -> bytes:
    match chance.randrange(5):
        case 0:
            return chance.randbytes(chance.randrange(80))
        case 1:
            return write_hello(any_hello(chance))
        case 2:
            return b"\xaa" * chance.choice((chance.randrange(40), chance.randrange(5000)))
        case 3:
            frame = bytearray(write_packet(any_packet(chance), SEED))
            frame[chance.randrange(len(frame))] ^= 1 << chance.randrange(8)
            return bytes(frame)
        case _:
            return write_packet(any_packet(chance), SEED)


def line_up(*, packs: bool, zeroes: bool = True) -> Line:
    line = Line(traits(packs=packs), OURS, 0.0)
    flags = HelloFlag.UP | HelloFlag.ZSTD | HelloFlag.ZEROES * zeroes
    assert line.received(write_hello(Hello(VERSION, flags, THEIRS, OURS, 3400)), 0.0) == [LineUp()]
    return line


def survive(line: Line, data: bytes, step_bytes: int) -> None:
    """The line takes the data, keeps its bounds, hands out little, and then greets who comes."""
    now, arrived_bytes, handed_out_bytes = 0.0, 0, 0
    for start in range(0, len(data), step_bytes):
        now += 0.001
        events = line.received(data[start : start + step_bytes], now)
        arrived_bytes += sum(len(event.data) for event in events if isinstance(event, Arrived))
        handed_out_bytes += len(line.outgoing(now))
        assert line.next_deadline() >= now - 1.0
    assert arrived_bytes <= len(data) / 16 * UNPACKED_MOST_BYTES
    assert handed_out_bytes <= 11_520 * (now + 0.04) + 600
    assert len(line._reader._rest) <= FRAME_MOST_BYTES
    session = line._session
    if session is not None:
        assert len(session._receiver._held) <= SEGMENTS_MOST
    line.restart(now)
    own = line._greeting.own
    line.received(b"\0", now)
    assert line.received(write_hello(Hello(VERSION, HelloFlag(0), 0x1234, own, 3400)), now) == [LineUp()]


def check_any_bytes(chance: random.Random) -> None:
    survive(Line(traits(), OURS, 0.0), chance.randbytes(chance.randrange(400)), chance.randrange(1, 200))


def check_any_frames(chance: random.Random) -> None:
    line = line_up(packs=chance.random() < 0.5, zeroes=chance.random() < 0.7)
    line.send([bytes(2000)])
    data = b"".join(any_piece(chance) for _ in range(chance.randrange(8)))
    survive(line, data, chance.choice((1, 17, 200, 4096)) if len(data) < 400 else chance.choice((200, 4096)))


def check_damaged_frames(chance: random.Random) -> None:
    sent = [
        Packet(at, at, 0, at, chance.randbytes(chance.randrange(1, 40)), False)
        if chance.random() < 0.8
        else Packet(at, at, 1, None, b"", True)
        for at in range(chance.randrange(1, 12))
    ]
    data = bytearray(b"".join(write_packet(packet, SEED) for packet in sent))
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(4):
            case 0 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at:at] = chance.randbytes(chance.randrange(1, 30))
            case 2:
                del data[at : at + chance.randrange(1, 30)]
            case _:
                data[at:at] = data[chance.randrange(len(data) + 1) :][: chance.randrange(60)]
    reader = FrameReader()
    reader.seed = SEED
    while data:
        step_bytes = chance.randrange(1, 50)
        for raw in reader.closed(bytes(data[:step_bytes])):
            frame = reader.read(raw)
            if frame is not None:
                assert isinstance(frame, Packet)
                assert frame._replace(data=bytes(frame.data)) in sent
        del data[:step_bytes]


def check_any_packets(chance: random.Random) -> None:
    line = line_up(packs=chance.random() < 0.5, zeroes=chance.random() < 0.7)
    line.send([bytes(5000)])
    line.outgoing(0.0)
    survive(line, b"".join(write_packet(any_packet(chance), SEED) for _ in range(chance.randrange(12))), 4096)


@FUZZ
@given(st.binary(max_size=200), st.integers(1, 200))
def test_any_bytes_before_a_session(data: bytes, step_bytes: int) -> None:
    survive(Line(traits(), OURS, 0.0), data, step_bytes)


@FUZZ
@given(seeds)
def test_any_frames_in_a_session(chance: random.Random) -> None:
    check_any_frames(chance)


@FUZZ
@given(seeds)
def test_damage_anywhere_in_a_stream_of_frames_yields_only_frames_that_were_sent(chance: random.Random) -> None:
    check_damaged_frames(chance)


@FUZZ
@given(seeds)
def test_any_packets_of_the_peer_itself(chance: random.Random) -> None:
    check_any_packets(chance)


if __name__ == "__main__":
    main((check_any_bytes, check_any_frames, check_damaged_frames, check_any_packets))
