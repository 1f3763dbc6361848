"""LoopDisk: a file that executes CDBs, claimed by one writer."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwvirt.buffers import joined
from hwvirt.disk.facts import describe_disk
from hwvirt.disk.loop import LoopDisk, create_image
from hwvirt.disk.loopdev import LoopDevice
from hwvirt.errors import DiskError
from hwvirt.scsi.cdb import read_16, synchronize_cache_16, unmap, write_16, write_same_16
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.sense import decode_sense
from hwvirt.scsi.status import SenseKey, Status
from hwvirt.scsi.volume import Access, Extent
from hwvirt.scsi.vpd import Identity
from hwvirt.units import FOREVER, Deadline

BLOCK = 512
BLOCKS = 64
IN_USE = (
    "{0} is in use: it is mounted, or another program writes to it. "
    "Find that program with fuser -v {0} and stop it, or name another disk."
)

extents = st.integers(0, BLOCKS - 1).flatmap(
    lambda lba: st.builds(Extent, st.just(lba), st.integers(1, min(9, BLOCKS - lba)))
)


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "disk.img"
    create_image(path, BLOCK * BLOCKS)
    return str(path)


@pytest.fixture
def disk(image: str) -> Iterator[LoopDisk]:
    disk = LoopDisk(image, BLOCK)
    yield disk
    disk.close()


def execute(disk: LoopDisk, command: Command) -> Completion:
    completion = disk.execute(command, FOREVER)
    assert completion.good, decode_sense(completion.sense)
    return completion


def write(lba: int, data: bytes) -> Command:
    return Command(write_16(lba, len(data) // BLOCK), (data,))


def read(disk: LoopDisk, lba: int, blocks: int) -> bytes:
    return bytes(joined(execute(disk, Command(read_16(lba, blocks), data_in_length=blocks * BLOCK)).data))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["write", "same", "unmap", "flush", "read"]), extents), max_size=25))
def test_any_commands_agree_with_a_bytearray(
    tmp_path_factory: pytest.TempPathFactory, story: list[tuple[str, Extent]]
) -> None:
    path = tmp_path_factory.mktemp("model") / "disk.img"
    create_image(path, BLOCK * BLOCKS)
    model = bytearray(BLOCK * BLOCKS)
    disk = LoopDisk(str(path), BLOCK)
    try:
        for version, (what, (lba, blocks)) in enumerate(story):
            span = slice(lba * BLOCK, (lba + blocks) * BLOCK)
            if what == "write":
                model[span] = bytes([version + 1]) * (blocks * BLOCK)
                execute(disk, write(lba, bytes(model[span])))
            elif what == "same":
                model[span] = (b"%03d " % version * (BLOCK // 4)) * blocks
                execute(disk, Command(write_same_16(lba, blocks), (bytes(model[span])[:BLOCK],)))
            elif what == "unmap":
                model[span] = bytes(blocks * BLOCK)
                execute(disk, unmap([Extent(lba, blocks)]))
            elif what == "flush":
                execute(disk, Command(synchronize_cache_16()))
            assert read(disk, lba, blocks) == model[span]
        assert path.read_bytes() == model
    finally:
        disk.close()


def test_disk_says_who_it_is_and_the_same_each_time(image: str) -> None:
    facts = []
    for _ in range(2):
        disk = LoopDisk(image, BLOCK)
        facts.append(describe_disk(disk, FOREVER))
        disk.close()
    assert facts[0] == facts[1]
    assert (facts[0].vendor, facts[0].product) == ("HWVIRT", "LOOP DISK")
    assert (facts[0].blocks, facts[0].block_bytes, facts[0].size_bytes) == (BLOCKS, BLOCK, BLOCKS * BLOCK)
    assert (facts[0].volatile_cache, facts[0].fua, facts[0].write_protected) == (True, True, False)
    assert facts[0].naa is not None
    assert facts[0].naa >> 60 == 3


def test_disks_of_two_files_are_told_apart(tmp_path: Path) -> None:
    naas = set()
    for name in ("a.img", "b.img"):
        create_image(tmp_path / name, BLOCK)
        disk = LoopDisk(str(tmp_path / name), BLOCK)
        naas.add(describe_disk(disk, FOREVER).naa)
        disk.close()
    assert len(naas) == 2


def test_given_identity_is_shown(image: str) -> None:
    identity = Identity("ACME", "GOLDEN", "82.0", "ZL2001", 0x5000C500AABBCCDD)
    disk = LoopDisk(image, BLOCK, access=Access.READ_ONLY, identity=identity)
    facts = describe_disk(disk, FOREVER)
    disk.close()
    assert (facts.vendor, facts.serial, facts.naa) == ("ACME", "ZL2001", 0x5000C500AABBCCDD)
    assert facts.write_protected


def test_second_writer_is_refused_until_the_first_closes(image: str) -> None:
    first = LoopDisk(image, BLOCK)
    with pytest.raises(DiskError) as caught:
        LoopDisk(image, BLOCK)
    assert str(caught.value) == IN_USE.format(image)
    first.close()
    LoopDisk(image, BLOCK).close()


def test_reader_takes_no_claim_and_sees_every_write_at_once(image: str, disk: LoopDisk) -> None:
    judge = LoopDisk(image, BLOCK, access=Access.READ_ONLY)
    execute(disk, write(7, b"x" * BLOCK))
    assert read(judge, 7, 1) == b"x" * BLOCK
    refused = judge.execute(write(7, b"y" * BLOCK), FOREVER)
    judge.close()
    assert refused.status == Status.CHECK_CONDITION
    assert decode_sense(refused.sense).key is SenseKey.DATA_PROTECT
    assert read(disk, 7, 1) == b"x" * BLOCK


def test_missing_file_and_existing_image_are_named(tmp_path: Path, image: str) -> None:
    with pytest.raises(DiskError) as missing:
        LoopDisk(str(tmp_path / "none.img"), BLOCK)
    assert str(missing.value) == f"cannot open {tmp_path / 'none.img'}: No such file or directory."
    with pytest.raises(DiskError) as existing:
        create_image(image, BLOCK)
    assert str(existing.value) == f"cannot make the image {image}: File exists."


@pytest.mark.parametrize("size_bytes", [0, BLOCK - 1])
def test_file_without_a_block_is_no_disk(size_bytes: int, tmp_path: Path) -> None:
    path = tmp_path / "small.img"
    path.write_bytes(bytes(size_bytes))
    with pytest.raises(DiskError) as caught:
        LoopDisk(str(path), BLOCK)
    assert str(caught.value) == f"{path} is too small for one block of {BLOCK} bytes."


def test_image_is_sparse(tmp_path: Path) -> None:
    create_image(tmp_path / "large.img", 1 << 30)
    status = (tmp_path / "large.img").stat()
    assert (status.st_size, status.st_blocks) == (1 << 30, 0)


def test_closed_disk_executes_nothing(image: str) -> None:
    disk = LoopDisk(image, BLOCK)
    disk.close()
    disk.close()
    with pytest.raises(DiskError, match=r"disk\.img is closed"):
        disk.execute(Command(read_16(0, 1), data_in_length=BLOCK), FOREVER)


def test_failed_opening_leaves_nothing_open(tmp_path: Path, image: str) -> None:
    holder = LoopDisk(image, BLOCK)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(DiskError):
        LoopDisk(image, BLOCK)
    assert len(os.listdir("/proc/self/fd")) == before
    holder.close()


def test_reads_and_writes_go_on_during_a_flush(disk: LoopDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    flushing, enough = threading.Event(), threading.Event()

    def slow_sync(fd: int) -> None:
        flushing.set()
        assert enough.wait(10.0)

    monkeypatch.setattr(os, "fdatasync", slow_sync)
    thread = threading.Thread(target=lambda: execute(disk, Command(synchronize_cache_16())))
    thread.start()
    try:
        assert flushing.wait(10.0)
        execute(disk, write(3, b"z" * BLOCK))
        assert read(disk, 3, 1) == b"z" * BLOCK
    finally:
        enough.set()
        thread.join()


def test_many_threads_may_execute_at_once(disk: LoopDisk) -> None:
    wrong: list[int] = []

    def own_blocks(lba: int) -> None:
        for version in range(60):
            data = bytes([lba, version]) * (BLOCK // 2)
            execute(disk, write(lba, data))
            if read(disk, lba, 1) != data:
                wrong.append(lba)

    threads = [threading.Thread(target=own_blocks, args=(lba,)) for lba in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.root
@pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="loop devices need root and /dev/loop-control"
)
class TestOverALoopDevice:
    @pytest.mark.parametrize("block_bytes", [512, 4096])
    def test_device_works_like_the_file(self, tmp_path: Path, block_bytes: int) -> None:
        create_image(tmp_path / "disk.img", 1 << 20)
        with LoopDevice(str(tmp_path / "disk.img"), block_bytes) as device:
            disk = LoopDisk(device.path, block_bytes)
            judge = LoopDisk(device.path, block_bytes, access=Access.READ_ONLY)
            try:
                data = os.urandom(2 * block_bytes)
                execute(disk, Command(write_16(5, 2), (data,)))
                seen = execute(judge, Command(read_16(5, 2), data_in_length=len(data)))
                assert bytes(joined(seen.data)) == data
                execute(disk, unmap([Extent(5, 1)]))
                execute(disk, Command(synchronize_cache_16()))
                assert describe_disk(judge, Deadline.after(5)).size_bytes == 1 << 20
            finally:
                judge.close()
                disk.close()
        content = (tmp_path / "disk.img").read_bytes()
        assert content[5 * block_bytes : 7 * block_bytes] == bytes(block_bytes) + data[block_bytes:]

    def test_device_is_claimed(self, tmp_path: Path) -> None:
        create_image(tmp_path / "disk.img", 1 << 20)
        with LoopDevice(str(tmp_path / "disk.img"), 512) as device:
            disk = LoopDisk(device.path, 512)
            try:
                with pytest.raises(DiskError) as caught:
                    LoopDisk(device.path, 512)
                assert str(caught.value) == IN_USE.format(device.path)
            finally:
                disk.close()

    def test_device_that_is_mounted_or_claimed_otherwise_is_refused(self, tmp_path: Path) -> None:
        create_image(tmp_path / "disk.img", 1 << 20)
        with LoopDevice(str(tmp_path / "disk.img"), 512) as device:
            claim = os.open(device.path, os.O_RDONLY | os.O_EXCL)  # as a mount does
            try:
                with pytest.raises(DiskError) as caught:
                    LoopDisk(device.path, 512)
                LoopDisk(device.path, 512, access=Access.READ_ONLY).close()
            finally:
                os.close(claim)
            assert str(caught.value) == IN_USE.format(device.path)

    def test_blocks_smaller_than_the_device_s_are_refused(self, tmp_path: Path) -> None:
        create_image(tmp_path / "disk.img", 1 << 20)
        with LoopDevice(str(tmp_path / "disk.img"), 4096) as device, pytest.raises(DiskError) as caught:
            LoopDisk(device.path, 512)
        assert str(caught.value) == f"{device.path} is a device with blocks of 4096 bytes; it cannot have blocks of 512."
