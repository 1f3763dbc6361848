"""Digests of blocks: those of the standard, however the blocks lie in their pieces."""

from __future__ import annotations

import random

import pytest

from hwvirt.digest import block_digests, crc32c

BLOCK = 16


def test_digests_are_those_of_the_standard() -> None:
    """RFC 3720 B.4."""
    vectors = {bytes(32): 0x8A9136AA, b"\xff" * 32: 0x62A8AB43, bytes(range(32)): 0x46DD794E}
    for data, digest in vectors.items():
        assert crc32c(data) == digest
        assert crc32c(data[5:], crc32c(data[:5])) == digest
        assert list(block_digests((data,), 32)) == [digest]


def test_the_cut_into_pieces_does_not_matter() -> None:
    random_ = random.Random(1)
    data = random_.randbytes(8 * BLOCK)
    expected = [crc32c(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK)]
    for _ in range(200):
        edges = sorted(random_.randrange(len(data) + 1) for _ in range(random_.randrange(12)))
        pieces = [data[start:end] for start, end in zip([0, *edges], [*edges, len(data)], strict=True)]
        assert list(block_digests(pieces, BLOCK)) == expected
        assert list(block_digests([memoryview(piece) for piece in pieces], BLOCK)) == expected


def test_half_a_block_has_no_digest() -> None:
    for pieces in ((bytes(BLOCK - 1),), (bytes(BLOCK), bytes(3)), (bytes(3 * BLOCK), bytes(1))):
        with pytest.raises(ValueError, match="not a multiple"):
            block_digests(pieces, BLOCK)


def test_no_pieces_have_no_digests() -> None:
    assert block_digests((), BLOCK).typecode == "I"
    assert not block_digests((), BLOCK)
