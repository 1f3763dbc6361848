"""CRC-32C of blocks: computed once at the entrance, carried with the data, kept in the ledger, checked at the exit.

Ref: RFC 7143 12.1 (polynomial), RFC 3720 B.4 (test vectors).
"""

from __future__ import annotations

from array import array

import crc32c as _crc32c

from hwvirt.buffers import Buffer, Pieces, split

__all__ = ["block_digests", "crc32c"]


def crc32c(data: Buffer, before: int = 0) -> int:
    """CRC-32C of `data`, continuing from the digest of what came before."""
    return int(_crc32c.crc32c(data, before))


def block_digests(pieces: Pieces, block_bytes: int) -> array[int]:
    """One CRC-32C for each block of `pieces`, as an array of typecode "I".

    Raises ValueError when the bytes are not a multiple of `block_bytes`.
    """
    digest = _crc32c.crc32c
    digests = array("I")
    for piece in pieces:
        size_bytes = len(piece)
        if size_bytes == block_bytes:  # a host's small write: no view, no slice
            digests.append(digest(piece))
        elif size_bytes % block_bytes:  # blocks straddle the pieces
            return array("I", [digest(block) for block in split(pieces, block_bytes)])
        else:
            view = memoryview(piece)
            digests.fromlist([digest(view[at : at + block_bytes]) for at in range(0, size_bytes, block_bytes)])
    return digests
