"""Runs: neighbours join, nothing is lost or reordered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hwvirt.disk.runs import Run, cut, runs, sliced
from hwvirt.scsi.volume import Extent
from tests.disk.diskkit import neighbourly


def test_neighbours_join_up_to_the_longest() -> None:
    batch = [Extent(0, 2), Extent(2, 2), Extent(4, 1), Extent(9, 9), Extent(18, 1), Extent(3, 1)]
    assert list(runs(batch, 4)) == [Run(0, 4, 0, 2), Run(4, 1, 2, 1), Run(9, 9, 3, 1), Run(18, 1, 4, 1), Run(3, 1, 5, 1)]
    assert list(runs([], 4)) == []


@given(neighbourly(64), st.integers(1, 20))
def test_runs_cover_the_batch_in_order(batch: list[Extent], max_blocks: int) -> None:
    plan = list(runs(batch, max_blocks))
    assert [run.first for run in plan] == [sum(run.items for run in plan[:number]) for number in range(len(plan))]
    for run in plan:
        items = batch[run.first : run.first + run.items]
        blocks = [lba for item in items for lba in range(item.lba, item.lba + item.blocks)]
        assert blocks == list(range(run.lba, run.lba + run.blocks))
        assert run.items == 1 or run.blocks <= max_blocks
    assert sum(run.items for run in plan) == len(batch)


@given(st.lists(st.binary(max_size=20), max_size=8), st.integers(1, 25))
def test_cut_pieces_are_the_same_bytes_in_whole_parts(pieces: list[bytes], size_bytes: int) -> None:
    parts = [b"".join(part) for part in cut(pieces, size_bytes)]
    assert b"".join(parts) == b"".join(pieces)
    assert all(len(part) == size_bytes for part in parts[:-1])
    assert all(0 < len(part) <= size_bytes for part in parts[-1:])
    assert all(len(piece) for part in cut(pieces, size_bytes) for piece in part)


def test_slices_share_the_memory() -> None:
    data = bytearray(b"abcdef")
    slices = list(sliced(data, [2, 0, 4]))
    data[:] = b"ABCDEF"
    assert [bytes(piece) for piece in slices] == [b"AB", b"", b"CDEF"]
