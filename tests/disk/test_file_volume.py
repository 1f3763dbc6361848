"""FileVolume: a file behaves as a run of blocks; neighbours share a system call; errors carry the LBA."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwvirt.buffers import Buffer
from hwvirt.disk.file import FileVolume
from hwvirt.scsi.status import SenseKey
from hwvirt.scsi.volume import Access, Durability, Extent, Residency, Write
from tests.disk.diskkit import Model, condition, contents, neighbourly, run_without_suspending, steps

BLOCK = 512
BLOCKS = 64

Calls = list[tuple[int, int]]


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "disk.img", os.O_RDWR | os.O_CREAT)
    os.truncate(fd, BLOCK * BLOCKS)
    yield fd
    os.close(fd)


def block(value: int, blocks: int = 1) -> bytes:
    return bytes([value]) * (BLOCK * blocks)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(steps, neighbourly(BLOCKS)), max_size=12))
def test_any_batches_agree_with_a_bytearray(story: list[tuple[str, list[Extent]]]) -> None:
    with tempfile.TemporaryFile() as image:
        image.truncate(BLOCK * BLOCKS)
        model = Model(FileVolume(image.fileno(), BLOCK))
        for what, batch in story:
            model.step(what, batch)
        model.compare_all()


def test_capacity_is_the_whole_blocks_of_the_file(fd: int) -> None:
    os.truncate(fd, 4096 * 3 + 100)
    volume = FileVolume(fd, 4096)
    assert (volume.blocks, volume.block_bytes, volume.access) == (3, 4096, Access.READ_WRITE)
    assert volume.residency(Extent(1, 2)) == [(2, Residency.FIRST)]


def test_neighbours_of_a_batch_share_one_system_call(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reads, writes = record_calls(monkeypatch)
    volume = FileVolume(fd, BLOCK)
    run_without_suspending(volume.write([Write(lba, (block(lba),)) for lba in (3, 4, 5, 9)]))
    got = contents(run_without_suspending(volume.read([Extent(3, 1), Extent(4, 2), Extent(9, 1)])))
    assert got == [block(3), block(4) + block(5), block(9)]
    assert writes == [(3 * BLOCK, 3 * BLOCK), (9 * BLOCK, BLOCK)]
    assert reads == [(3 * BLOCK, 3 * BLOCK), (9 * BLOCK, BLOCK)]


def test_later_write_of_a_batch_wins(fd: int) -> None:
    volume = FileVolume(fd, BLOCK)
    run_without_suspending(volume.write([Write(5, (block(1, 2),)), Write(6, (block(2),)), Write(5, (block(3),))]))
    assert contents(run_without_suspending(volume.read([Extent(5, 2)]))) == [block(3) + block(2)]


def test_more_pieces_than_iov_max_arrive(fd: int) -> None:
    data = bytes(range(256)) * (BLOCK * BLOCKS // 256)
    volume = FileVolume(fd, BLOCK)
    pieces = [data[i : i + 8] for i in range(0, len(data), 8)]
    assert len(pieces) > os.sysconf("SC_IOV_MAX")
    assert run_without_suspending(volume.write([Write(0, pieces)])) == [None]
    assert os.pread(fd, len(data), 0) == data


def test_short_transfers_are_continued(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    record_calls(monkeypatch, longest=700)
    model = Model(FileVolume(fd, BLOCK))
    model.step("write", [Extent(0, 8), Extent(8, 3), Extent(20, 1)])
    model.compare_all()


def test_flush_and_durable_write_reach_fdatasync_once(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    volume = FileVolume(fd, BLOCK)
    run_without_suspending(volume.write([Write(0, (block(1),))]))
    assert synced == []
    run_without_suspending(volume.write([Write(0, (block(1),)), Write(7, (block(1),))], Durability.DURABLE))
    assert synced == [fd]
    run_without_suspending(volume.flush())
    assert synced == [fd, fd]


def test_unmap_gives_room_back_and_reads_zeroes(fd: int) -> None:
    volume = FileVolume(fd, BLOCK)
    run_without_suspending(volume.write([Write(0, (block(7, BLOCKS),))]))
    os.fsync(fd)
    before = os.fstat(fd).st_blocks
    assert run_without_suspending(volume.unmap([Extent(0, 32), Extent(40, 0)])) == [None, None]
    assert os.fstat(fd).st_blocks < before
    assert os.fstat(fd).st_size == BLOCK * BLOCKS
    assert contents(run_without_suspending(volume.read([Extent(31, 2)]))) == [block(0) + block(7)]


def test_unmap_writes_zeroes_where_no_hole_can_be_made(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwvirt.disk.file.punch_hole", raising(errno.EOPNOTSUPP))
    monkeypatch.setattr("hwvirt.disk.file._ZEROES", bytes(4 * BLOCK))
    volume = FileVolume(fd, BLOCK)
    run_without_suspending(volume.write([Write(0, (block(7, BLOCKS),))]))
    assert run_without_suspending(volume.unmap([Extent(1, 9)])) == [None]
    assert os.pread(fd, 11 * BLOCK, 0) == block(7) + block(0, 9) + block(7)


def test_unreadable_block_fails_only_the_item_it_belongs_to(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    record_calls(monkeypatch, bad_offset=5 * BLOCK)
    volume = FileVolume(fd, BLOCK)
    good, bad, later = run_without_suspending(volume.read([Extent(1, 2), Extent(3, 4), Extent(7, 1)]))
    assert contents([good, later]) == [block(0, 2), block(0)]
    assert condition(bad) == (SenseKey.MEDIUM_ERROR, 0x11, 0x00, 5)


def test_unwritable_block_fails_only_the_item_it_belongs_to(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    record_calls(monkeypatch, bad_offset=5 * BLOCK)
    volume = FileVolume(fd, BLOCK)
    good, bad, later = run_without_suspending(volume.write([Write(lba, (block(9, 2),)) for lba in (2, 4, 6)]))
    assert (good, later) == (None, None)
    assert condition(bad) == (SenseKey.MEDIUM_ERROR, 0x0C, 0x00, 5)
    assert os.pread(fd, 2 * BLOCK, 6 * BLOCK) == block(9, 2)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errno.ENOSPC, (SenseKey.DATA_PROTECT, 0x27, 0x07, 3)),
        (errno.EROFS, (SenseKey.DATA_PROTECT, 0x27, 0x00, 3)),
        (errno.ENXIO, (SenseKey.HARDWARE_ERROR, 0x08, 0x00, 3)),
        (errno.EIO, (SenseKey.MEDIUM_ERROR, 0x0C, 0x00, 3)),
        (errno.EFBIG, (SenseKey.MEDIUM_ERROR, 0x0C, 0x00, 3)),
    ],
)
def test_errno_becomes_sense(
    fd: int, monkeypatch: pytest.MonkeyPatch, error: int, expected: tuple[SenseKey, int, int, int]
) -> None:
    monkeypatch.setattr(os, "pwritev", raising(error))
    monkeypatch.setattr("hwvirt.disk.file.punch_hole", raising(error))
    volume = FileVolume(fd, BLOCK)
    assert condition(run_without_suspending(volume.write([Write(3, (block(1),))]))[0]) == expected
    assert condition(run_without_suspending(volume.unmap([Extent(3, 1)]))[0]) == expected


def test_failed_sync_fails_flush_and_every_durable_write(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fdatasync", raising(errno.EIO))
    volume = FileVolume(fd, BLOCK)
    writes = [Write(0, (block(1),)), Write(9, (block(1),))]
    assert condition(run_without_suspending(volume.flush())) == (SenseKey.HARDWARE_ERROR, 0x0C, 0x00, None)
    for result in run_without_suspending(volume.write(writes, Durability.DURABLE)):
        assert condition(result) == (SenseKey.HARDWARE_ERROR, 0x0C, 0x00, None)
    assert run_without_suspending(volume.write(writes)) == [None, None]


def test_file_that_shrank_is_an_unreadable_block(fd: int) -> None:
    volume = FileVolume(fd, BLOCK)
    os.truncate(fd, 10 * BLOCK)
    assert condition(run_without_suspending(volume.read([Extent(8, 4)]))[0]) == (SenseKey.MEDIUM_ERROR, 0x11, 0x00, 10)


def test_write_through_a_read_only_node_is_write_protected(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(8 * BLOCK))
    fd = os.open(image, os.O_RDONLY)
    try:
        volume = FileVolume(fd, BLOCK, access=Access.READ_ONLY)
        result = run_without_suspending(volume.write([Write(2, (block(1),))]))[0]
    finally:
        os.close(fd)
    assert condition(result) == (SenseKey.DATA_PROTECT, 0x27, 0x00, 2)


class raising:  # noqa: N801 - reads as a verb where it is used
    """A system call that always fails with this errno."""

    def __init__(self, error: int) -> None:
        self.error = error

    def __call__(self, *_: object) -> int:
        raise OSError(self.error, os.strerror(self.error))


def record_calls(
    monkeypatch: pytest.MonkeyPatch, *, longest: int = 1 << 30, bad_offset: int | None = None
) -> tuple[Calls, Calls]:
    """(offset, bytes) of reads and writes from now on; transfers stop after `longest` bytes and before `bad_offset`."""
    reads: Calls = []
    writes: Calls = []
    pread, pwritev = os.pread, os.pwritev

    def allowed(size: int, offset: int) -> int:
        if bad_offset == offset:
            raise OSError(errno.EIO, "bad block")
        if bad_offset is not None and offset < bad_offset < offset + size:
            size = bad_offset - offset
        return min(size, longest)

    def limited_pread(fd: int, size: int, offset: int) -> bytes:
        reads.append((offset, size))
        return pread(fd, allowed(size, offset), offset)

    def limited_pwritev(fd: int, buffers: list[Buffer], offset: int) -> int:
        data = b"".join(buffers)
        writes.append((offset, len(data)))
        return pwritev(fd, [data[: allowed(len(data), offset)]], offset)

    monkeypatch.setattr(os, "pread", limited_pread)
    monkeypatch.setattr(os, "pwritev", limited_pwritev)
    return reads, writes
