"""Reading disks for the judge: digests of whole volumes, and what each block says of itself."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from hwvirt.digest import block_digests, crc32c
from hwvirt.errors import DiskError
from hwvirt.rig.judge.block import Identity, identify, version_of
from hwvirt.rig.judge.evidence import BlockReader
from hwvirt.rig.judge.history import History, Ints

__all__ = ["Survey", "read_digests", "survey"]

_READ_BYTES = 1 << 20


class Survey(NamedTuple):
    """What lies at places: version (see `version_of`) and CRC-32C; by index the identity of what is not a good block."""

    version: Ints
    digest: Ints
    strange: dict[int, Identity]


def read_digests(reader: BlockReader, blocks: int, block_bytes: int) -> array[int]:
    """The CRC-32C of each block of a volume."""
    digests = array("I")
    step = _READ_BYTES // block_bytes
    for lba in range(0, blocks, step):
        digests += block_digests((_read(reader, lba, min(step, blocks - lba), block_bytes),), block_bytes)
    return digests


def survey(reader: BlockReader, places: Ints, lbas: Ints, history: History) -> Survey:
    """Reads `places`, where the blocks `lbas` of the history's logical unit should lie."""
    versions, digests = np.zeros(len(places), np.int64), np.zeros(len(places), np.int64)
    strange: dict[int, Identity] = {}
    order = np.argsort(places, kind="stable")
    for index, block in zip(order.tolist(), _blocks(reader, places[order], history), strict=True):
        identity = identify(block)
        version = version_of(identity, history.volume, history.seed, int(lbas[index]), history.writer)
        versions[index], digests[index] = version, crc32c(block)
        if version < 0:
            strange[index] = identity
    return Survey(versions, digests, strange)


def _blocks(reader: BlockReader, places: Ints, history: History) -> Iterator[memoryview]:
    """The block at each of the sorted places; neighbours are read together."""
    size, most = history.block_bytes, _READ_BYTES // history.block_bytes
    breaks = np.flatnonzero(np.diff(places) != 1) + 1
    for start, stop in pairwise([0, *breaks.tolist(), len(places)]):
        for at in range(start, stop, most):
            blocks = min(most, stop - at)
            data = memoryview(_read(reader, int(places[at]), blocks, size))
            yield from (data[offset : offset + size] for offset in range(0, blocks * size, size))


def _read(reader: BlockReader, lba: int, blocks: int, block_bytes: int) -> bytes:
    data = reader(lba, blocks)
    if len(data) != blocks * block_bytes:
        raise DiskError(f"a read of {blocks} blocks at lba {lba} returned {len(data)} bytes")
    return data
