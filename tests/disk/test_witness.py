"""The witness: every command that may change the medium is written down before the disk is asked."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwvirt.disk.disk import Ends
from hwvirt.disk.faulty import FOR_EVER, FaultyDisk, Rule
from hwvirt.disk.loop import LoopDisk, create_image
from hwvirt.disk.volume import DiskVolume
from hwvirt.disk.witness import Record, WitnessedDisk, read_witness
from hwvirt.errors import DiskError
from hwvirt.scsi.cdb import inquiry, read_16, synchronize_cache_16, unmap, verify_16, write_16, write_same_16
from hwvirt.scsi.command import Command
from hwvirt.scsi.volume import Extent, Write
from hwvirt.units import FOREVER
from tests.disk.diskkit import run_without_suspending

BLOCK = 512
DATA = (bytes(BLOCK),)

CHANGING = [
    (Command(write_16(7, 1), DATA), [(7, 1, 0x8A)]),
    (Command(bytes.fromhex("2a000000000900000100"), DATA), [(9, 1, 0x2A)]),
    (Command(bytes.fromhex("0a1ffff80000"), DATA), [(0x1FFFF8, 256, 0x0A)]),
    (Command(write_same_16(3, 5, unmap=True), DATA), [(3, 5, 0x93)]),
    (unmap([Extent(1, 2), Extent(10, 20)]), [(1, 2, 0x42), (10, 20, 0x42)]),
    (Command(bytes.fromhex("890000000000000000050000000100" "00"), (bytes(2 * BLOCK),)), [(5, 1, 0x89)]),
    (Command(bytes.fromhex("040000000000")), [(0, 0xFFFFFFFF, 0x04)]),  # FORMAT UNIT: no command of ours, may change all
]
HARMLESS = [
    Command(read_16(7, 1), (), BLOCK),
    Command(verify_16(7, 1)),
    Command(synchronize_cache_16()),
    Command(inquiry(None, 96), (), 96),
    Command(bytes(6)),
]


@pytest.fixture
def log(tmp_path: Path) -> str:
    return str(tmp_path / "first.witness")


@pytest.fixture
def inner(tmp_path: Path) -> Iterator[FaultyDisk]:
    create_image(tmp_path / "disk.img", 64 * BLOCK)
    loop_disk = LoopDisk(str(tmp_path / "disk.img"), BLOCK)
    yield FaultyDisk(loop_disk)
    loop_disk.close()


@pytest.fixture
def disk(inner: FaultyDisk, log: str) -> Iterator[WitnessedDisk]:
    disk = WitnessedDisk(inner, log)
    yield disk
    disk.close()


def noted(log: str) -> list[tuple[int, int, int]]:
    return [(record.lba, record.blocks, record.opcode) for record in read_witness(log)]


@pytest.mark.parametrize(("command", "expected"), CHANGING)
def test_every_medium_changing_command_leaves_its_extents(
    disk: WitnessedDisk, log: str, command: Command, expected: list[tuple[int, int, int]]
) -> None:
    before = time.time_ns()
    disk.execute(command, FOREVER)
    assert noted(log) == expected
    assert all(before <= record.unix_ns <= time.time_ns() for record in read_witness(log))
    assert all(0 < record.monotonic_ns <= time.monotonic_ns() for record in read_witness(log))


def test_commands_that_change_nothing_leave_nothing(disk: WitnessedDisk, log: str) -> None:
    for command in HARMLESS:
        disk.execute(command, FOREVER)
    disk.execute_batch(HARMLESS, FOREVER)
    assert noted(log) == []


def test_record_is_there_before_the_disk_is_asked_and_when_it_fails(
    disk: WitnessedDisk, inner: FaultyDisk, log: str
) -> None:
    inner.set_rules([Rule("the cable is out", times=FOR_EVER)])
    with pytest.raises(DiskError):
        disk.execute(Command(write_16(7, 1), DATA), FOREVER)
    assert noted(log) == [(7, 1, 0x8A)]


def test_batch_is_one_append_before_its_first_command(
    disk: WitnessedDisk, inner: FaultyDisk, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen_at_the_disk: list[int] = []

    def look(*_: object) -> Ends:
        seen_at_the_disk.append(len(read_witness(log)))
        return []

    monkeypatch.setattr(inner, "execute_batch", look)
    disk.execute_batch([command for command, _ in CHANGING], FOREVER)
    assert seen_at_the_disk == [len(noted(log))] == [sum(len(extents) for _, extents in CHANGING)]


def test_volume_over_a_witnessed_disk_leaves_one_record_a_command(disk: WitnessedDisk, log: str) -> None:
    volume = DiskVolume(disk, Extent(8, 32), BLOCK)
    run_without_suspending(volume.write([Write(lba, DATA) for lba in (0, 1, 2, 9)]))
    run_without_suspending(volume.read([Extent(0, 4)]))
    volume.close()
    assert noted(log) == [(8, 3, 0x8A), (17, 1, 0x8A)]


def test_what_cannot_be_recorded_is_not_executed(
    disk: WitnessedDisk, inner: FaultyDisk, log: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(DiskError) as caught:
        disk.execute(Command(write_16(7, 1), DATA), FOREVER)
    assert str(caught.value) == f"cannot write {log}, the witness of {inner.name}: No space left on device."
    ends = disk.execute_batch([Command(read_16(7, 1), (), BLOCK), Command(write_16(7, 1), DATA)], FOREVER)
    assert all(isinstance(end, DiskError) for end in ends)
    assert inner.commands == 0


def test_witness_goes_on_where_it_ended(inner: FaultyDisk, log: str) -> None:
    for _ in range(2):
        disk = WitnessedDisk(inner, log)
        disk.execute(Command(write_16(7, 1), DATA), FOREVER)
        os.close(disk._log_fd)
    assert noted(log) == [(7, 1, 0x8A)] * 2


def test_torn_witness_is_an_error_not_an_opinion(disk: WitnessedDisk, log: str) -> None:
    disk.execute(Command(write_16(7, 1), DATA), FOREVER)
    assert Path(log).stat().st_size == 32
    with open(log, "ab") as file:
        file.write(b"half")
    with pytest.raises(DiskError) as caught:
        read_witness(log)
    assert str(caught.value) == f"the witness {log} is torn: 36 bytes, 1 whole records of 32 bytes."
    with pytest.raises(DiskError, match="cannot read the witness"):
        read_witness(log + ".none")


def test_record_is_little_endian_as_documented(log: str) -> None:
    Path(log).write_bytes(
        b"\1" + bytes(7) + b"\2" + bytes(7) + b"\3" + bytes(7) + b"\4" + bytes(3) + b"\x8a" + bytes(3)
    )
    assert read_witness(log) == [Record(unix_ns=1, monotonic_ns=2, lba=3, blocks=4, opcode=0x8A)]


def test_name_and_quickness_are_the_inner_disk_s(disk: WitnessedDisk, inner: FaultyDisk) -> None:
    assert (disk.name, disk.quick) == (inner.name, True)
    inner.set_rules([Rule(None, delay_s=1.0)])
    assert not disk.quick
