"""Blocks that describe themselves."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwvirt.rig.judge.block import (
    FOREIGN,
    HEADER_BYTES,
    MISDIRECTED,
    TORN,
    ZERO,
    ZEROED,
    BlockId,
    Garbage,
    Torn,
    describe,
    identify,
    make_extent,
    version_of,
    versions_in,
)

U32, U64 = st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)


@given(st.builds(BlockId, volume=U32, lba=U64, version=U64, writer=U32, seed=U64), st.sampled_from((512, 4096)))
def test_a_block_says_whose_it_is(who: BlockId, block_bytes: int) -> None:
    block = make_extent(who.volume, who.lba, 1, who.version, who.writer, who.seed, block_bytes)
    assert len(block) == block_bytes
    assert identify(block) == who
    assert identify(memoryview(bytearray(block))) == who


def test_an_extent_is_its_blocks_in_order() -> None:
    extent = make_extent(1, 100, 8, 5, 2, 42, 4096)
    pieces = (extent[:5000], memoryview(extent)[5000:])
    assert versions_in(pieces, 1, 42, 100, 4096, 2) == [5] * 8
    assert versions_in(pieces, 1, 42, 101, 4096, 2) == [MISDIRECTED] * 8
    assert versions_in(pieces, 1, 43, 100, 4096, 2) == [FOREIGN] * 8
    assert versions_in(pieces, 2, 42, 100, 4096, 2) == [FOREIGN] * 8
    assert versions_in(pieces, 1, 42, 100, 4096, 3) == [FOREIGN] * 8


def test_a_flipped_bit_at_any_byte_is_seen_and_located() -> None:
    who = BlockId(1, 100, 5, 2, 42)
    block = make_extent(1, 100, 1, 5, 2, 42, 512)
    for at in range(512):
        wrong = bytearray(block)
        wrong[at] ^= 1 << at % 8
        seen = identify(wrong)
        if at < HEADER_BYTES:
            assert isinstance(seen, Garbage)
        else:
            assert seen == Torn(who, at, at)


@pytest.mark.parametrize("cut", range(512, 4096, 512))
def test_a_block_of_two_versions_is_torn_at_every_sector(cut: int) -> None:
    old, new = (make_extent(1, 100, 1, version, 2, 42, 4096) for version in (5, 6))
    seen = identify(new[:cut] + old[cut:])
    assert isinstance(seen, Torn)
    assert seen.id.version == 6
    assert cut <= seen.first < cut + 16
    assert 4096 - 16 <= seen.last < 4096
    assert version_of(seen, 1, 42, 100, 2) == TORN


def test_a_torn_block_with_a_tail_of_zeroes_is_not_zeroes() -> None:
    block = make_extent(1, 100, 1, 5, 2, 42, 4096)
    assert isinstance(identify(block[:512] + bytes(3584)), Torn)
    assert isinstance(identify(bytes(4095) + b"\1"), Garbage)


@pytest.mark.parametrize("block_bytes", [512, 4096])
def test_zeroes_are_zeroes(block_bytes: int) -> None:
    assert identify(bytes(block_bytes)) is ZERO
    assert version_of(ZERO, 1, 42, 100) == ZEROED


def test_noise_is_garbage_and_foreign() -> None:
    rng = random.Random(1)
    for _ in range(100):
        seen = identify(rng.randbytes(512))
        assert isinstance(seen, Garbage)
        assert version_of(seen, 1, 42, 100) == FOREIGN


def test_a_block_of_the_other_block_size_is_garbage() -> None:
    block = make_extent(1, 100, 1, 5, 2, 42, 4096)
    assert identify(block[:512]) == Garbage("header of a block of 4096 bytes")


def test_every_identity_has_words() -> None:
    who = BlockId(1, 100, 5, 2, 42)
    words = "volume 1 lba 100 version 5 of writer 2, seed 42"
    assert describe(who, 2) == words
    assert describe(Torn(who, 512, 4095), 2) == f"torn: header of {words}, but bytes 512 to 4095 differ"
    words += " (another run's: this one's writer is 7)"
    assert describe(who, 7) == words
    assert describe(Torn(who, 512, 4095), 7) == f"torn: header of {words}, but bytes 512 to 4095 differ"
    assert describe(Garbage("no header"), 7) == "garbage: no header"
    assert describe(ZERO, 7) == "zeroes"
