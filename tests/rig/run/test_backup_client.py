"""A backup client tells how far it is by the clock, however fast its passes are."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable
from itertools import count
from typing import Any

from hwvirt.buffers import Pieces
from hwvirt.digest import block_digests
from hwvirt.host.initiator import Answer, Op
from hwvirt.rig.backup import BackupClient
from hwvirt.trace import Event, Trace

CHUNKS, CHUNK = 8, 256
"""A pass reads so many times; 256 blocks of 4 KiB at once."""


class _Zeroes:
    """A path to a unit that reads as zeroes."""

    block_bytes, blocks, read_only = 4096, CHUNKS * CHUNK, True

    def submit(
        self, op: Op, lba: int, blocks: int, data: Pieces, done: Callable[[Answer], None], *, fua: bool = False
    ) -> None:
        asyncio.get_running_loop().call_soon(done, Answer(0, data=(bytes(blocks * self.block_bytes),)))

    async def close(self) -> None:
        pass


def _told(passes: int, clock: Callable[[], float], original: array[int] | None = None) -> list[Event]:
    """What is told in so many passes."""
    events: list[Event] = []
    trace = Trace("rig")
    trace.subscribe(events.append)
    digests = original or block_digests((bytes(_Zeroes.blocks * _Zeroes.block_bytes),), _Zeroes.block_bytes)

    async def work() -> None:
        client = BackupClient(_Zeroes(), "a/1", digests, trace, progress="backup.progress", clock=clock)
        for _ in range(passes):
            await client.read()

    asyncio.run(work())
    return events


def _fields(events: list[Event]) -> list[dict[str, Any]]:
    return [event.fields for event in events if event.name == "backup.progress"]


def _ticking(step_s: float) -> Callable[[], float]:
    """A clock that is so much later each time that it is asked."""
    return (1000 + step_s * tick for tick in count()).__next__


def test_however_many_passes_a_moment_sees_one_of_them_is_told() -> None:
    assert _fields(_told(20, _ticking(0))) == [{"done": 256, "total": 2048, "number": 1}]


def test_progress_is_told_four_times_a_second_across_passes() -> None:
    told = _fields(_told(2, _ticking(0.125)))
    assert [(fields["number"], fields["done"] // CHUNK) for fields in told] == [
        (number, chunk) for number in (1, 2) for chunk in (1, 3, 5, 7)
    ]


def test_a_slow_pass_is_told_at_every_read() -> None:
    assert [fields["done"] // CHUNK for fields in _fields(_told(1, _ticking(2)))] == list(range(1, CHUNKS + 1))


def test_a_block_that_is_not_the_original_is_told_at_once() -> None:
    original = block_digests((bytes(_Zeroes.blocks * _Zeroes.block_bytes),), _Zeroes.block_bytes)
    original[1000] ^= 1
    names = [event.name for event in _told(2, _ticking(0), original)]
    assert names == ["backup.progress", "backup.mismatch", "backup.mismatch"]
