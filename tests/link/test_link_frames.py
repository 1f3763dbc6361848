"""Every message survives its frame, and no damaged frame is taken for a message."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwvirt.buffers import joined
from hwvirt.errors import LinkError, LocalLinkError, PeerError
from hwvirt.link import codec
from hwvirt.link import messages as m
from hwvirt.link.codec import Kind, decode, encode
from hwvirt.link.errors import CorruptFrame, WrongVersion
from hwvirt.link.wire import HEADER_BYTES, Body, read_header, whole_body, write_frame
from tests.link.link_samples import BLOCKS, MESSAGES, write_of

_MOST = 1 << 20
_PLACE = "there"


def _frame(message: m.Message) -> bytes:
    return b"".join(write_frame(7, 3, 5, encode(message)))


def _read(data: bytes, most_bytes: int = _MOST) -> m.Message | None:
    view = memoryview(data)
    header = read_header(view, most_bytes, _PLACE)
    if header is None or len(view) < header.frame_bytes:
        return None
    return decode(header, view[: header.frame_bytes], _PLACE)


def _plain(value: Any) -> Any:
    """The value with all pieces joined, so that messages compare whatever buffers they lie in."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return type(value), [_plain(getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, list | tuple):
        if all(isinstance(item, bytes | bytearray | memoryview) for item in value):
            return bytes(joined(value)) if value else b""
        return [_plain(item) for item in value]
    return value


def test_samples_cover_every_kind() -> None:
    assert {encode(message).kind for message in MESSAGES} == set(Kind)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_message_survives_its_frame(message: m.Message) -> None:
    assert _plain(_read(_frame(message))) == _plain(message)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_body_knows_the_length_of_its_frame(message: m.Message) -> None:
    assert encode(message).frame_bytes == len(_frame(message))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_header_carries_epoch_number_and_tag(message: m.Message) -> None:
    header = read_header(memoryview(_frame(message)), _MOST, _PLACE)
    assert header is not None
    assert (header.epoch, header.number, header.tag) == (7, 3, 5)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_frame_that_is_cut_off_is_never_a_message(message: m.Message) -> None:
    frame = _frame(message)
    assert all(_read(frame[:end]) is None for end in range(len(frame)))


def test_one_flipped_bit_anywhere_is_refused() -> None:
    for message in MESSAGES:
        frame = bytearray(_frame(message))
        for bit in range(len(frame) * 8):
            frame[bit // 8] ^= 1 << bit % 8
            with pytest.raises((CorruptFrame, WrongVersion)):
                _read(bytes(frame))
            frame[bit // 8] ^= 1 << bit % 8


def test_junk_before_a_frame_is_refused_at_its_first_wrong_byte() -> None:
    for junk in (b"\x00", b"H\x00", b"HW\x00", b"HWV\x00", b"NBDMAGIC"):
        with pytest.raises(CorruptFrame, match="there does not speak hwvirt's link"):
            _read(junk)


def test_junk_after_a_frame_changes_nothing() -> None:
    for message in MESSAGES:
        assert _plain(_read(_frame(message) + b"junk")) == _plain(message)


def test_other_version_is_named() -> None:
    frame = bytearray(_frame(m.Done()))
    frame[4] = 2
    with pytest.raises(WrongVersion) as refused:
        _read(bytes(frame))
    assert str(refused.value) == (
        "link: there speaks version 2 of the link, this controller version 1. Run the same hwvirt on both sides."
    )


def test_too_large_frame_is_refused_from_its_header_alone() -> None:
    frame = _frame(write_of(BLOCKS))
    assert _read(frame[:HEADER_BYTES], len(frame)) is None
    with pytest.raises(PeerError, match=f"announced a frame of {len(frame)} bytes where {len(frame) - 1} are allowed"):
        _read(frame[:HEADER_BYTES], len(frame) - 1)


@pytest.mark.parametrize(("data_bytes", "grain_bytes"), [(1024, 0), (1024, 1), (1024, 511), (1000, 512), (0, 512)])
def test_data_in_odd_grains_is_refused(data_bytes: int, grain_bytes: int) -> None:
    body = encode(write_of(bytes(1024)))._replace(data_bytes=data_bytes, grain_bytes=grain_bytes)
    with pytest.raises(PeerError, match=f"there sent {data_bytes} bytes of data in grains of {grain_bytes}"):
        _read(b"".join(write_frame(0, 0, 0, body)))


def _misfits() -> list[tuple[str, Body]]:
    write, read = encode(write_of(BLOCKS)), encode(m.Read(1, [m.Placement(0, 0, 1)]))
    return [
        ("unknown kind", whole_body(0x3F, b"")),
        ("data where there is none", whole_body(Kind.FLUSH, encode(m.Flush(1)).meta, (b"data",))),
        ("meta too short", whole_body(Kind.FLUSH, b"\0\0\0")),
        ("meta too long", whole_body(Kind.DONE, b"\0")),
        ("half a slice", write._replace(meta=write.meta[:-1])),
        ("slices and data differ", write._replace(meta=write.meta[:12] + write.meta[12:] * 2)),
        ("no blocks", read._replace(meta=read.meta[:-4] + bytes(4))),
        ("unknown status", whole_body(Kind.EXECUTED, b"\x01" + bytes(10))),
        ("unknown sense key", whole_body(Kind.REFUSED, b"\x1f" + bytes(15))),
        ("unknown farewell", whole_body(Kind.BYE, b"\x63")),
        ("reason that is no text", whole_body(Kind.REFUSED, bytes(16) + b"\xff\xfe")),
        ("name that rings the bell", whole_body(Kind.HELLO, bytes(56) + b"a\x07")),
        ("no name", whole_body(Kind.HELLO, bytes(56))),
        ("name too long", whole_body(Kind.HELLO, bytes(56) + b"a" * 65)),
        ("CDB that is cut off", whole_body(Kind.EXECUTE, bytes(4) + b"\x10\0" + bytes(8) + b"\0" * 15)),
        ("less data than its rows name", whole_body(Kind.EXECUTED, b"\0\0\0" + bytes(4) + b"\1\0\0\0")),
        ("more data than its rows name", whole_body(Kind.EXECUTED, b"", (b"data",))),
    ]


@pytest.mark.parametrize(("what", "body"), _misfits(), ids=lambda value: value if isinstance(value, str) else "")
def test_sound_frame_of_nonsense_is_the_peers_fault(what: str, body: Body) -> None:
    with pytest.raises(PeerError, match="link: there sent"):
        _read(b"".join(write_frame(0, 0, 0, body)))


@pytest.mark.parametrize(
    "message",
    [
        m.Flush(1 << 32),
        m.Unmap(1, [m.Slice(-1, 1, 1)]),
        m.Write(1, 1, [m.Slice(0, 1, 1)], (bytes(513),), encode(write_of(bytes(1024))).digests),
        m.Write(1, 1, [m.Slice(0, 1, 1)], (bytes(512),), encode(m.Done()).digests),
    ],
    ids=["number too large", "number below zero", "blocks not whole", "digests missing"],
)
def test_message_that_fits_no_frame_is_our_fault(message: m.Message) -> None:
    with pytest.raises(LocalLinkError):
        encode(message)


@settings(max_examples=2000, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(sorted(Kind)), st.binary(max_size=200), st.binary(max_size=64))
def test_any_meta_and_data_is_a_message_or_a_link_error(kind: int, meta: bytes, data: bytes) -> None:
    frame = b"".join(write_frame(0, 0, 0, whole_body(kind, meta, (data,))))
    try:
        message = _read(frame)
    except LinkError:
        return
    assert message is not None
    assert codec.encode(message).kind == kind


@settings(max_examples=2000, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(MESSAGES), st.data())
def test_mutated_frame_is_the_same_message_or_a_link_error(message: m.Message, data: st.DataObject) -> None:
    frame = _frame(message)
    start = data.draw(st.integers(0, len(frame)))
    mutated = frame[:start] + data.draw(st.binary(max_size=8)) + frame[data.draw(st.integers(start, len(frame))) :]
    try:
        read = _read(mutated)
    except LinkError:
        return
    assert read is None or _plain(read) == _plain(message)
