"""Packing: all comes back, random data costs next to nothing, and nobody can be made to unpack without end."""

from __future__ import annotations

import random
import tracemalloc

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from hwvirt.errors import PeerError
from hwvirt.link.serial.packing import UNPACKED_MOST_BYTES, Packer, Unpacker
from hwvirt.link.serial.zeros import ZeroPacker, ZeroUnpacker

CHANCE = random.Random(5)
BLOCKS = [CHANCE.randbytes(4096), bytes(4096), b"pattern " * 512, b"", b"x", CHANCE.randbytes(16_384), bytes(16_384)]


def test_every_flush_can_be_unpacked_at_once() -> None:
    packer, unpacker = Packer(), Unpacker()
    for block in BLOCKS * 3:
        assert b"".join(unpacker.unpack(packer.pack(block), "b")) == block


def test_packed_bytes_may_be_cut_anywhere() -> None:
    packer, unpacker = Packer(), Unpacker()
    packed = b"".join(map(packer.pack, BLOCKS))
    pieces = [packed[at : at + 7] for at in range(0, len(packed), 7)]
    assert b"".join(out for piece in pieces for out in unpacker.unpack(piece, "b")) == b"".join(BLOCKS)


def test_random_data_grows_by_less_than_a_thousandth() -> None:
    packer = Packer()
    packer.pack(b"begin")
    assert len(packer.pack(CHANCE.randbytes(4176))) <= 4180


def test_zeros_and_repetitions_nearly_vanish() -> None:
    packer, block = Packer(), CHANCE.randbytes(4096)
    packer.pack(block)
    assert len(packer.pack(bytes(16_384))) < 20
    assert len(packer.pack(block)) < 20


def test_bomb_is_refused_and_takes_no_memory() -> None:
    packer = Packer()
    bomb = b"".join(packer.pack(bytes(1 << 20)) for _ in range(64))
    assert len(bomb) < 4096
    tracemalloc.start()
    try:
        with pytest.raises(PeerError, match=f"^link: a segment of b unpacks to more than {UNPACKED_MOST_BYTES} bytes.$"):
            Unpacker().unpack(bomb, "b")
        assert tracemalloc.get_traced_memory()[1] < 4 * UNPACKED_MOST_BYTES
    finally:
        tracemalloc.stop()


def test_window_larger_than_ours_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=27)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = stream.compress(bytes(1 << 20)) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    with pytest.raises(PeerError, match=r"^link: what b sent cannot be unpacked: "):
        Unpacker().unpack(packed, "b")


def test_what_no_packer_made_is_refused() -> None:
    with pytest.raises(PeerError, match=r"^link: what b sent cannot be unpacked: "):
        Unpacker().unpack(b"no zstd at all", "b")


# Zeroes alone

pieces = st.lists(st.one_of(st.binary(max_size=80), st.integers(1, 3000).map(bytes)), max_size=6).map(b"".join)


def unpacked(unpacker: ZeroUnpacker, packed: bytes, step_bytes: int) -> bytes:
    found = [unpacker.unpack(packed[at : at + step_bytes], "b") for at in range(0, len(packed), step_bytes)]
    return b"".join(out for each in found for out in each)


@settings(deadline=None, max_examples=300, derandomize=True, database=None)
@given(st.lists(pieces, max_size=4), st.integers(1, 40))
def test_whatever_has_zeroes_comes_back_wherever_it_is_cut(sent: list[bytes], step_bytes: int) -> None:
    packer = ZeroPacker()
    assert unpacked(ZeroUnpacker(), b"".join(map(packer.pack, sent)), step_bytes) == b"".join(sent)


def test_every_flush_of_zeroes_can_be_put_in_at_once() -> None:
    packer, unpacker = ZeroPacker(), ZeroUnpacker()
    for block in BLOCKS * 3:
        assert b"".join(unpacker.unpack(packer.pack(block), "b")) == block


def test_a_block_of_zeroes_is_a_number_and_random_data_grows_by_one() -> None:
    packer, block = ZeroPacker(), CHANCE.randbytes(4096)
    assert len(packer.pack(bytes(4096))) == len(packer.pack(bytes(16_384))) == 2
    assert len(packer.pack(block)) == 4098
    assert len(packer.pack(b"head" + bytes(4096) + block + bytes(4096))) == 6 + 2 + 4098 + 2


def test_bomb_of_zeroes_is_refused_and_takes_no_memory() -> None:
    bomb = ZeroPacker().pack(bytes(64 << 20))
    assert len(bomb) <= 4098
    assert len(unpacked(ZeroUnpacker(), bomb, 8)) == 64 << 20, "in small segments it is only slow, and paid for"
    tracemalloc.start()
    try:
        with pytest.raises(PeerError, match=f"^link: a segment of b unpacks to more than {UNPACKED_MOST_BYTES} bytes.$"):
            ZeroUnpacker().unpack(bomb, "b")
        assert tracemalloc.get_traced_memory()[1] < 2 * UNPACKED_MOST_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("nothing", [b"\0\0", b"\0\x80"])
def test_a_run_of_nothing_is_refused(nothing: bytes) -> None:
    with pytest.raises(PeerError, match=r"^link: what b sent cannot be unpacked: a run of nothing\.$"):
        ZeroUnpacker().unpack(b"\x01\0x" + nothing, "b")
