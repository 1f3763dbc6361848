"""Frames of a serial line: what is written is read, and nothing else is, wherever junk lies."""

from __future__ import annotations

import random

import pytest

from hwvirt.link.serial.frames import (
    FRAME_MOST_BYTES,
    KNOCK,
    PACKET_MOST_BYTES,
    VERSION,
    Frame,
    FrameReader,
    Hello,
    HelloFlag,
    Packet,
    payload_bytes,
    seed_of,
    write_hello,
    write_packet,
)

SEED = seed_of(7, 9)
HELLO = Hello(VERSION, HelloFlag.UP | HelloFlag.ZSTD, 0x01020304, 0, 3400)
PACKETS = [
    Packet(1, 0, 0, 0, b"data", False),
    Packet(0xFFFF, 0x1234, 0, None, b"", False),
    Packet(0, 0, 0xFFFF_FFFF, None, b"", True),
    Packet(256, 0, 5, 0xFFFF, bytes(300), False),
    Packet(2, 1, 0, 3, bytes(range(256)) * 2, True),
]
FRAMES: list[Frame] = [HELLO, *PACKETS]
JUNK = [b"\x01", b"\xff" * 40, b"login: \r\n", b"\x00\x05ab\x00", bytes(range(256)), b"\x00" * 5]


def written(frame: Frame, seed: int = SEED) -> bytes:
    return write_hello(frame) if isinstance(frame, Hello) else write_packet(frame, seed)


def reader(seed: int | None = SEED) -> FrameReader:
    fresh = FrameReader()
    fresh.seed = seed
    return fresh


def read(data: bytes, by: FrameReader | None = None) -> list[Frame]:
    by = by or reader()
    return [frame for raw in by.closed(data) if (frame := by.read(raw)) is not None]


def plain(frames: list[Frame]) -> list[Frame]:
    return [frame._replace(data=bytes(frame.data)) if isinstance(frame, Packet) else frame for frame in frames]


ALL = b"".join(map(written, FRAMES))


def test_frames_are_read_as_they_were_written() -> None:
    assert plain(read(ALL)) == FRAMES


def test_frames_are_read_byte_by_byte() -> None:
    by = reader()
    assert plain([frame for at in range(len(ALL)) for frame in read(ALL[at : at + 1], by)]) == FRAMES


def test_frames_are_read_cut_at_every_offset() -> None:
    for cut in range(len(ALL) + 1):
        by = reader()
        assert plain(read(ALL[:cut], by) + read(ALL[cut:], by)) == FRAMES


def test_one_flipped_bit_spoils_one_frame_and_invents_none() -> None:
    for at in range(len(ALL) * 8):
        damaged = bytearray(ALL)
        damaged[at // 8] ^= 1 << at % 8
        found = plain(read(bytes(damaged)))
        assert len(found) >= len(FRAMES) - 1
        assert [frame for frame in found if frame not in FRAMES] == []


@pytest.mark.parametrize("junk", JUNK)
def test_junk_between_frames_costs_no_frame(junk: bytes) -> None:
    data = junk + junk.join(map(written, FRAMES)) + junk
    assert plain(read(data)) == FRAMES


def test_junk_inside_a_frame_costs_that_frame_only() -> None:
    for victim, frame in enumerate(FRAMES):
        whole = written(frame)
        before, after = b"".join(map(written, FRAMES[:victim])), b"".join(map(written, FRAMES[victim + 1 :]))
        for at in range(1, len(whole)):
            for junk in (b"\x01", b"\x00", b"\xa5\x00\x5a"):
                found = plain(read(before + whole[:at] + junk + whole[at:] + after))
                # A zero at the edge of a frame is not inside.
                assert found in (FRAMES, FRAMES[:victim] + FRAMES[victim + 1 :])


def test_truncated_frame_costs_no_other() -> None:
    first, second = written(PACKETS[4]), written(HELLO)
    for cut in range(len(first)):
        assert HELLO in plain(read(first[:cut] + second))


def test_packet_of_another_session_is_refused() -> None:
    seeds = [seed_of(7, 10), seed_of(8, 9), seed_of(9, 7), 0]
    for seed in seeds:
        by = reader(seed)
        assert read(b"".join(map(written, PACKETS)), by) == []
        assert by.take_damaged() == len(PACKETS)
    assert read(b"".join(map(written, PACKETS)), reader(None)) == []


def test_packet_with_parts_it_should_not_have_is_refused() -> None:
    from cobs import cobs  # type: ignore[import-untyped]  # it has no stubs

    from hwvirt.digest import crc32c

    for body in (
        b"\x08\x00\x00\x00\x00",
        b"\x01\x00\x00\x00\x00",
        b"\x02\x00\x00\x00\x00",
        b"\x00\x00\x00\x00\x00!",
        b"\x01" * 7,
    ):
        frame = cobs.encode(body + crc32c(body, SEED).to_bytes(4, "little"))
        assert read(b"\0" + frame + b"\0") == []
    short_hello = written(HELLO)[:5]
    assert read(short_hello + b"\0") == []


def test_hello_of_another_version_tells_its_version() -> None:
    (found,) = read(write_hello(HELLO._replace(version=9)))
    assert isinstance(found, Hello)
    assert found.version == 9


def test_knocks_are_no_frames_and_no_damage() -> None:
    by = reader()
    assert by.closed(KNOCK * 100) == []
    assert by.take_damaged() == 0


def test_endless_junk_is_not_kept() -> None:
    by = reader()
    for _ in range(100):
        assert by.closed(b"\xaa" * 1000) == []
        assert len(by._rest) <= FRAME_MOST_BYTES
    assert by.take_damaged() == 1
    assert plain(read(b"the end of it" + ALL, by)) == FRAMES
    assert by.take_damaged() == 0


def test_frame_beyond_the_longest_is_refused() -> None:
    longest = written(PACKETS[0]._replace(data=bytes([1]) * payload_bytes(FRAME_MOST_BYTES)))
    assert len(read(longest)) == 1
    assert read(written(PACKETS[0]._replace(data=bytes([1]) * (FRAME_MOST_BYTES + 1)))) == []


@pytest.mark.parametrize("frame_bytes", [256, 257, 511, 566, 1024, FRAME_MOST_BYTES])
def test_full_segment_fits_its_frame_whatever_the_data(frame_bytes: int) -> None:
    size_bytes = payload_bytes(frame_bytes)
    for data in (bytes([1]) * size_bytes, bytes(size_bytes), random.Random(1).randbytes(size_bytes)):
        frame = written(Packet(0x0101, 0x0101, 0x01010101, 0x0101, data, True))
        assert frame_bytes - 20 <= len(frame) <= frame_bytes
        assert plain(read(frame))[0] == Packet(0x0101, 0x0101, 0x01010101, 0x0101, data, True)
    assert len(written(Packet(0x0101, 0x0101, 0x01010101, None, b"", True), 5)) <= PACKET_MOST_BYTES
