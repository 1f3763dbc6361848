"""Requests: taken off the bytes whole and in parts, refused with the right errno, and said in the right CDB."""

from __future__ import annotations

import random
import struct
from errno import EINVAL, ENOSPC, ENOTSUP, EPERM

import pytest

from hwvirt.buffers import joined
from hwvirt.host.nbd import wire
from hwvirt.host.nbd.requests import Request, command_of, refusal, rest_of, take_requests
from hwvirt.host.nbd.wire import NbdViolation
from tests.host.ram_unit import READ_16, UNMAP, WRITE_16, WRITE_SAME_16, RamUnit

READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZEROES, STATUS = range(8)
FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO = 1, 2, 4, 8, 16
MIB = 1 << 20
SIZE = 64 * MIB
EXPORT = RamUnit(SIZE // 4096).export()
FROZEN = RamUnit(SIZE // 4096).export(read_only=True)


def frame(kind: int, offset: int = 0, length: int = 0, data: bytes = b"", flags: int = 0, cookie: int = 1) -> bytes:
    return struct.pack(">IHHQQI", 0x25609513, flags, kind, cookie, offset, length) + data


def request(kind: int, offset: int, length: int, flags: int = 0, data: bytes = b"") -> Request:
    return Request(kind, flags, 1, offset, length, memoryview(data))


def test_layouts_have_the_sizes_of_the_protocol() -> None:
    sizes = {
        "GREETING": 18,
        "CLIENT_FLAGS": 4,
        "OPTION": 16,
        "OPTION_REPLY": 20,
        "EXPORT_NAME_REPLY": 10,
        "EXPORT": 12,
        "BLOCK_SIZES": 14,
        "CONTEXT": 4,
        "REQUEST": 28,
        "SIMPLE_REPLY": 16,
        "CHUNK": 20,
        "HOLE": 12,
        "ERROR_CHUNK": 6,
        "DESCRIPTOR": 8,
    }
    assert {name: getattr(wire, name).size for name in sizes} == sizes


STREAM = (
    frame(READ, 0, 4096, cookie=1)
    + frame(WRITE, 4096, 8, b"12345678", cookie=2)
    + frame(FLUSH, cookie=3)
    + frame(WRITE, 0, 4, b"abcd", FUA, cookie=4)
    + frame(77, 5, 6, flags=0xFFFF, cookie=5)
)


def test_one_read_of_the_socket_is_one_batch() -> None:
    taken = take_requests(memoryview(STREAM + b"rest"), 100, MIB)
    assert [(one.type, one.cookie, bytes(one.data)) for one in taken.requests] == [
        (READ, 1, b""),
        (WRITE, 2, b"12345678"),
        (FLUSH, 3, b""),
        (WRITE, 4, b"abcd"),
        (77, 5, b""),
    ]
    assert taken.consumed == len(STREAM)
    assert taken.transfer_bytes == 4096 + 8 + 4
    assert not taken.full


def test_requests_cut_at_any_place_come_out_the_same() -> None:
    for cut in range(len(STREAM)):
        first = take_requests(memoryview(STREAM[:cut]), 100, MIB)
        assert not first.full
        rest = STREAM[first.consumed :]
        assert len(rest) >= first.wanted > cut - first.consumed
        second = take_requests(memoryview(rest), 100, MIB)
        assert [one.cookie for one in first.requests + second.requests] == [1, 2, 3, 4, 5]


def test_wanted_tells_how_much_completes_a_write() -> None:
    taken = take_requests(memoryview(frame(WRITE, 0, 1 << 20, b"begin")), 100, MIB)
    assert (taken.requests, taken.consumed, taken.wanted) == ([], 0, 28 + MIB)


def test_limits_leave_the_rest_for_later() -> None:
    two = take_requests(memoryview(STREAM), 2, MIB)
    assert (len(two.requests), two.full) == (2, True)
    small = take_requests(memoryview(STREAM), 100, 4100)
    assert ([one.cookie for one in small.requests], small.full) == ([1], True)
    exact = take_requests(memoryview(STREAM), 5, 4096 + 12)
    assert (len(exact.requests), exact.full) == (5, False)


def test_nothing_is_taken_beyond_a_goodbye() -> None:
    goodbye = frame(DISC)
    taken = take_requests(memoryview(goodbye + STREAM), 100, MIB)
    assert ([one.type for one in taken.requests], taken.consumed) == ([DISC], len(goodbye))


def test_a_wrong_magic_is_a_violation() -> None:
    with pytest.raises(NbdViolation, match=r"^a request began with 0x25609514$"):
        take_requests(memoryview(frame(READ) + b"\x25\x60\x95\x14" + bytes(24)), 100, MIB)


def test_a_write_that_cannot_be_received_is_a_violation() -> None:
    with pytest.raises(NbdViolation, match=r"^a write of 33554433 bytes, more than 33554432$"):
        take_requests(memoryview(frame(WRITE, 0, (32 << 20) + 1)), 100, MIB)


def test_junk_is_taken_or_a_violation_and_never_anything_else() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        junk = bytearray(STREAM)
        for _ in range(rng.randint(1, 8)):
            junk[rng.randrange(len(junk))] = rng.randrange(256)
        try:
            taken = take_requests(memoryview(junk), 100, 64 * MIB)
        except NbdViolation:
            continue
        assert taken.consumed <= len(junk)


REFUSALS = [
    # in order
    (request(READ, 0, 4096), 0),
    (request(READ, 1, 1, DF | FUA), 0),
    (request(READ, SIZE - 1, 1), 0),
    (request(WRITE, SIZE - 4096, 4096, FUA), 0),
    (request(FLUSH, 0, 0, FUA), 0),
    (request(TRIM, 1, 100), 0),
    (request(TRIM, 0, SIZE), 0),
    (request(CACHE, 0, 1), 0),
    (request(ZEROES, 0, SIZE, FAST_ZERO), 0),
    (request(ZEROES, 0, SIZE, NO_HOLE), 0),
    (request(STATUS, 0, SIZE, REQ_ONE), 0),
    # not
    (request(READ, SIZE, 1), EINVAL),
    (request(READ, SIZE - 1, 2), EINVAL),
    (request(READ, (1 << 64) - 1, 4096), EINVAL),
    (request(READ, 0, 0), EINVAL),
    (request(READ, 0, 32 * MIB + 1), EINVAL),
    (request(READ, 0, 4096, NO_HOLE), EINVAL),
    (request(WRITE, SIZE, 4096), ENOSPC),
    (request(WRITE, 512, 4096), EINVAL),
    (request(WRITE, 0, 512), EINVAL),
    (request(WRITE, 0, 4096, DF), EINVAL),
    (request(FLUSH, 4096, 0), EINVAL),
    (request(FLUSH, 0, 4096), EINVAL),
    (request(FLUSH, 0, 0, 0x8000), EINVAL),
    (request(TRIM, 4096, SIZE), ENOSPC),
    (request(ZEROES, SIZE, 4096), ENOSPC),
    (request(ZEROES, 1, 4096), EINVAL),
    (request(ZEROES, 0, 4096, NO_HOLE | FAST_ZERO), ENOTSUP),
    (request(ZEROES, 4096, SIZE, NO_HOLE), ENOSPC),
    (request(STATUS, SIZE, 4096), EINVAL),
    (request(STATUS, 0, 100), EINVAL),
    (request(8, 0, 0), EINVAL),
    (request(0xFFFF, 0, 0), EINVAL),
]


@pytest.mark.parametrize(("one", "error"), REFUSALS)
def test_refusal(one: Request, error: int) -> None:
    assert refusal(EXPORT, one) == error


@pytest.mark.parametrize("kind", [WRITE, TRIM, ZEROES])
def test_a_read_only_export_refuses_to_be_changed(kind: int) -> None:
    assert refusal(FROZEN, request(kind, 0, 4096)) == EPERM


def test_a_read_only_export_is_read_and_flushed() -> None:
    assert refusal(FROZEN, request(READ, 0, 4096)) == 0
    assert refusal(FROZEN, request(FLUSH, 0, 0)) == 0


def extent_of(cdb: bytes) -> tuple[int, int, int]:
    """Operation code, LBA, blocks of a 16-byte CDB, SBC-4."""
    lba, blocks = struct.unpack_from(">QI", cdb, 2)
    return cdb[0], lba, blocks


@pytest.mark.parametrize(
    ("offset", "length", "lba", "blocks"),
    [(0, 4096, 0, 1), (8192, 12288, 2, 3), (1, 1, 0, 1), (4095, 2, 0, 2), (4096, 4097, 1, 2), (SIZE - 1, 1, 16383, 1)],
)
def test_a_read_covers_the_whole_blocks_around_it(offset: int, length: int, lba: int, blocks: int) -> None:
    command = command_of(EXPORT, request(READ, offset, length))
    assert command is not None
    assert extent_of(command.cdb) == (READ_16, lba, blocks)
    assert command.data_in_length == blocks * 4096


@pytest.mark.parametrize(("flags", "bit"), [(0, 0), (FUA, 0x08)])
def test_a_write_carries_its_data_and_fua(flags: int, bit: int) -> None:
    data = bytes(range(256)) * 32
    command = command_of(EXPORT, request(WRITE, 4096, 8192, flags, data))
    assert command is not None
    assert extent_of(command.cdb) == (WRITE_16, 1, 2)
    assert command.cdb[1] & 0x08 == bit
    assert joined(command.data_out) == data


@pytest.mark.parametrize(
    ("offset", "length", "extent"),
    [(4096, 8192, (1, 2)), (4095, 8193, (1, 2)), (4097, 8191, (2, 1)), (1, 4096, None), (0, 100, None)],
)
def test_a_trim_gives_back_only_the_whole_blocks_within_it(
    offset: int, length: int, extent: tuple[int, int] | None
) -> None:
    command = command_of(EXPORT, request(TRIM, offset, length))
    if extent is None:
        assert command is None
        return
    assert command is not None
    assert command.cdb[0] == UNMAP
    parameters = bytes(joined(command.data_out))
    assert struct.unpack(">HH4xQI4x", parameters) == (22, 16, *extent)


def test_zeroes_may_be_a_hole() -> None:
    command = command_of(EXPORT, request(ZEROES, 4096, 3 * 4096, FUA))
    assert command is not None
    assert extent_of(command.cdb) == (WRITE_SAME_16, 1, 3)
    assert command.cdb[1] & 0x08, "UNMAP"


def test_zeroes_that_may_not_be_a_hole_are_written() -> None:
    command = command_of(EXPORT, request(ZEROES, 0, 2 * MIB + 4096, NO_HOLE))
    assert command is not None
    assert extent_of(command.cdb) == (WRITE_16, 0, 513)
    assert joined(command.data_out) == bytes(2 * MIB + 4096)


@pytest.mark.parametrize(
    ("flags", "length", "extents"),
    [
        (NO_HOLE, 32 * MIB, [(1, 8192)]),
        (NO_HOLE, 32 * MIB + 4096, [(1, 8192), (8193, 1)]),
        (NO_HOLE | FUA, 60 * MIB, [(1, 8192), (8193, 7168)]),
        (0, 60 * MIB, [(1, 15360)]),
    ],
)
def test_zeroes_are_written_a_transfer_at_a_time(flags: int, length: int, extents: list[tuple[int, int]]) -> None:
    one = request(ZEROES, 4096, length, flags)
    first = command_of(EXPORT, one)
    assert first is not None
    commands = [first, *rest_of(EXPORT, one)]
    assert [extent_of(command.cdb)[1:] for command in commands] == extents
    pieces = [piece for command in commands for piece in command.data_out]
    assert len({id(piece.obj) for piece in pieces if isinstance(piece, memoryview)}) <= 1, "one buffer for all of them"
    if flags:
        assert sum(map(len, pieces)) == length
        assert not any(any(piece[::4096]) for piece in pieces)


def test_zeroes_that_are_data_count_like_data_in_flight() -> None:
    wire = b"".join(
        struct.pack(">IHHQQI", 0x25609513, flags, ZEROES, cookie, 0, 60 * MIB)
        for cookie, flags in enumerate((NO_HOLE, 0, NO_HOLE, NO_HOLE))
    )
    taken = take_requests(memoryview(wire), 100, 64 * MIB)
    assert ([one.cookie for one in taken.requests], taken.transfer_bytes, taken.full) == ([0, 1, 2], 64 * MIB, True)
