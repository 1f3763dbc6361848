"""Packing: all comes back, random data costs next to nothing, and nobody can be made to unpack without end."""

from __future__ import annotations

import random
import tracemalloc

import pytest
import zstandard

from hwvirt.errors import PeerError
from hwvirt.link.serial.packing import UNPACKED_MOST_BYTES, Packer, Unpacker

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
