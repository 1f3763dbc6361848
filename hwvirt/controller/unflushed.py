"""Writes that the store has answered and no flush of the same epoch has covered: kept, to be sent again after a crash.

The rule is that of the NFS write verifier (RFC 1813 3.3.7): what was acknowledged is lost nowhere while A lives.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hwvirt.buffers import Pieces, length
from hwvirt.link.messages import Slice

__all__ = ["Sent", "Unflushed"]


_SLICE_BYTES = 512
"""What a slice weighs besides its data, here, in the map's changes and in the store's ledger: unmaps have nothing else."""


class Sent(NamedTuple):
    """One answered request; no digests and no data: the slices were unmapped."""

    slices: Sequence[Slice]
    data: Pieces
    digests: array[int]


class Unflushed:
    """In the order of their answers. `size_bytes`: their data; `weight_bytes`: with what they cost besides."""

    def __init__(self) -> None:
        self._sent: deque[Sent] = deque()
        self._dropped = 0
        self.size_bytes = self.weight_bytes = 0

    def add(self, sent: Sent) -> None:
        """The store has answered this."""
        self._sent.append(sent)
        self._count(sent, 1)

    def mark(self) -> int:
        """A mark behind everything that was added so far."""
        return self._dropped + len(self._sent)

    def drop_before(self, mark: int) -> None:
        """A flush has covered what was added before the mark was taken."""
        while self._dropped < mark and self._sent:
            self._count(self._sent.popleft(), -1)
            self._dropped += 1

    def clear(self) -> None:
        """Nothing of it matters any more."""
        self.drop_before(self.mark())

    def _count(self, sent: Sent, sign: int) -> None:
        data_bytes = length(sent.data)
        self.size_bytes += sign * data_bytes
        self.weight_bytes += sign * (data_bytes + _SLICE_BYTES * len(sent.slices))

    def __iter__(self) -> Iterator[Sent]:
        return iter(tuple(self._sent))
