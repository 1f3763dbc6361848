"""DiskVolume: batches become few CDBs, the window is never left, errors belong to the item that caused them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwvirt.buffers import Buffer, joined
from hwvirt.disk.disk import Disk, Ends, execute_each
from hwvirt.disk.facts import describe_disk
from hwvirt.disk.faulty import FOR_EVER, FaultyDisk, Rule
from hwvirt.disk.loop import LoopDisk, create_image
from hwvirt.disk.reader import read_blocks
from hwvirt.disk.volume import DiskVolume
from hwvirt.errors import DiskError, SafetyRefusal
from hwvirt.scsi.cdb import describe
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.sense import (
    COMMUNICATION_FAILURE,
    INVALID_FIELD_IN_CDB,
    RESET_OCCURRED,
    UNRECOVERED_READ_ERROR,
    WRITE_ERROR,
    Sense,
    encode_sense,
)
from hwvirt.scsi.status import SenseKey, Status
from hwvirt.scsi.volume import Access, Durability, Extent, Residency, Write
from hwvirt.units import FOREVER, Deadline
from tests.disk.diskkit import Model, condition, contents, neighbourly, run_without_suspending, steps

BLOCK = 512
BLOCKS = 64
WINDOW = Extent(100, BLOCKS)
DISK_BLOCKS = 256
READ_16, WRITE_16, SYNCHRONIZE_CACHE_16, WRITE_SAME_16 = 0x88, 0x8A, 0x91, 0x93
MEDIUM_BAD = (SenseKey.MEDIUM_ERROR, 0x11, 0x00)


class Watched:
    """A disk that keeps every command; `quick` and the longest transfer as told; a hook runs before each command."""

    def __init__(self, inner: LoopDisk, *, quick: bool = True) -> None:
        self.inner = inner
        self.name = inner.name
        self.quick = quick
        self.commands: list[Command] = []
        self.threads: set[str] = set()
        self.before: threading.Barrier | None = None

    def execute(self, command: Command, deadline: Deadline) -> Completion:
        self.commands.append(command)
        self.threads.add(threading.current_thread().name)
        if self.before is not None:
            self.before.wait()
        return self.inner.execute(command, deadline)

    def execute_batch(self, batch: Sequence[Command], deadline: Deadline) -> Ends:
        return execute_each(self, batch, deadline)

    def close(self) -> None:
        self.inner.close()

    def seen(self) -> list[str]:
        words = [describe(command.cdb) for command in self.commands]
        self.commands.clear()
        self.threads.clear()
        return words


@pytest.fixture
def loop_disk(tmp_path: Path) -> Iterator[LoopDisk]:
    create_image(tmp_path / "disk.img", DISK_BLOCKS * BLOCK)
    disk = LoopDisk(str(tmp_path / "disk.img"), BLOCK)
    yield disk
    disk.close()


@pytest.fixture
def disk(loop_disk: LoopDisk) -> Watched:
    return Watched(loop_disk)


@pytest.fixture
def volume(disk: Watched) -> Iterator[DiskVolume]:
    volume = DiskVolume(disk, WINDOW, BLOCK)
    disk.seen()
    yield volume
    volume.close()


def block(value: int, blocks: int = 1) -> bytes:
    return bytes([value]) * (BLOCK * blocks)


def limited(volume: DiskVolume, **facts: int | bool) -> DiskVolume:
    """The volume, as if its disk had said this about itself."""
    volume.facts = replace(volume.facts, **facts)  # type: ignore[arg-type]  # the test names fields of DiskFacts
    volume._max_blocks = volume.facts.max_transfer_blocks
    return volume


class AsyncModel(Model):
    """The model for volumes that do suspend."""

    def __init__(self, volume: DiskVolume) -> None:
        super().__init__(volume)
        self.run = asyncio.run


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("max_blocks", [3, 1000])
@settings(max_examples=25, deadline=None)
@given(story=st.lists(st.tuples(steps, neighbourly(BLOCKS)), max_size=10))
def test_any_batches_agree_with_a_bytearray_and_stay_in_the_window(
    tmp_path_factory: pytest.TempPathFactory, quick: bool, max_blocks: int, story: list[tuple[str, list[Extent]]]
) -> None:
    path = tmp_path_factory.mktemp("model") / "disk.img"
    create_image(path, DISK_BLOCKS * BLOCK)
    loop_disk = LoopDisk(str(path), BLOCK)
    depth = 8 if quick else 1  # several in flight may pass each other where they overlap
    volume = DiskVolume(Watched(loop_disk, quick=quick), WINDOW, BLOCK, depth=depth)
    try:
        model = AsyncModel(limited(volume, max_transfer_blocks=max_blocks))
        for what, batch in story:
            model.step(what, batch)
        model.compare_all()
        image = path.read_bytes()
        assert not any(image[: WINDOW.lba * BLOCK])
        assert not any(image[(WINDOW.lba + BLOCKS) * BLOCK :])
        assert image[WINDOW.lba * BLOCK : (WINDOW.lba + BLOCKS) * BLOCK] == model.data
    finally:
        volume.close()
        loop_disk.close()


def test_neighbours_of_a_batch_are_one_command(volume: DiskVolume, disk: Watched) -> None:
    run_without_suspending(volume.write([Write(lba, (block(lba),)) for lba in (3, 4, 5, 9)]))
    assert disk.seen() == ["WRITE(16) lba=0x67 blocks=3", "WRITE(16) lba=0x6d blocks=1"]
    got = contents(run_without_suspending(volume.read([Extent(3, 1), Extent(4, 2), Extent(9, 1)])))
    assert got == [block(3), block(4) + block(5), block(9)]
    assert disk.seen() == ["READ(16) lba=0x67 blocks=3", "READ(16) lba=0x6d blocks=1"]


def test_commands_are_no_longer_than_the_disk_takes(volume: DiskVolume, disk: Watched) -> None:
    limited(volume, max_transfer_blocks=4)
    data = b"".join(block(value) for value in range(10))
    assert run_without_suspending(volume.write([Write(0, (data[:700], data[700:])), Write(10, (block(10),))])) == [None] * 2
    assert disk.seen() == [
        "WRITE(16) lba=0x64 blocks=4",
        "WRITE(16) lba=0x68 blocks=4",
        "WRITE(16) lba=0x6c blocks=2",
        "WRITE(16) lba=0x6e blocks=1",
    ]
    assert contents(run_without_suspending(volume.read([Extent(0, 10), Extent(10, 1)]))) == [data, block(10)]
    assert [word.split("blocks=")[1] for word in disk.seen()] == ["4", "4", "2", "1"]


def test_data_is_passed_on_and_not_copied(volume: DiskVolume, disk: Watched) -> None:
    pieces: list[Buffer] = [block(1), memoryview(block(2)), bytearray(block(3))]
    run_without_suspending(volume.write([Write(7 + number, (piece,)) for number, piece in enumerate(pieces)]))
    (command,) = disk.commands
    assert all(sent is piece for sent, piece in zip(command.data_out, pieces, strict=True))


def test_empty_extents_ask_the_disk_for_nothing(volume: DiskVolume, disk: Watched) -> None:
    assert contents(run_without_suspending(volume.read([Extent(5, 0), Extent(64, 0)]))) == [b"", b""]
    assert run_without_suspending(volume.write([Write(5, ())])) == [None]
    assert asyncio.run(volume.unmap([Extent(5, 0)])) == [None]
    assert disk.seen() == []


@pytest.mark.parametrize("outside", [Extent(-1, 1), Extent(63, 2), Extent(64, 1), Extent(0, 65), Extent(1 << 40, 1)])
def test_window_is_never_left(volume: DiskVolume, disk: Watched, outside: Extent) -> None:
    data = block(1, max(0, outside.blocks))
    for coroutine in (
        volume.read([Extent(0, 1), outside]),
        volume.write([Write(0, (block(1),)), Write(outside.lba, (data,))]),
        volume.unmap([Extent(0, 1), outside]),
    ):
        with pytest.raises(SafetyRefusal):
            run_without_suspending(coroutine)
    assert disk.seen() == []


def test_refusal_names_disk_and_blocks(volume: DiskVolume, disk: Watched) -> None:
    with pytest.raises(SafetyRefusal) as caught:
        run_without_suspending(volume.read([Extent(60, 8)]))
    assert str(caught.value) == (
        f"refusing to touch 8 blocks from LBA 60 of {disk.name}: the window has 64 blocks. "
        "This is a defect of the program: nothing was read or written."
    )


def test_window_must_lie_on_the_disk_and_the_block_size_must_be_the_disk_s(disk: Watched) -> None:
    with pytest.raises(DiskError) as caught:
        DiskVolume(disk, Extent(200, 57), BLOCK)
    assert str(caught.value) == f"{disk.name} has 256 blocks: a window of 57 blocks from LBA 200 does not fit."
    with pytest.raises(DiskError) as caught:
        DiskVolume(disk, WINDOW, 4096)
    assert str(caught.value) == f"{disk.name} has blocks of 512 bytes, not 4096."


def test_read_only_volume_refuses_writes_without_asking_the_disk(disk: Watched) -> None:
    volume = DiskVolume(disk, WINDOW, BLOCK, access=Access.READ_ONLY)
    disk.seen()
    protected = (SenseKey.DATA_PROTECT, 0x27, 0x00, 5)
    assert condition(run_without_suspending(volume.write([Write(5, (block(1),))]))[0]) == protected
    assert condition(asyncio.run(volume.unmap([Extent(5, 1)]))[0]) == protected
    assert disk.seen() == []
    volume.close()


def test_flush_and_unmap_of_a_quick_disk_leave_the_event_loop_alone(volume: DiskVolume, disk: Watched) -> None:
    main = threading.current_thread().name
    run_without_suspending(volume.write([Write(5, (block(1),))]))
    assert disk.threads == {main}
    for what in (volume.flush(), volume.unmap([Extent(1, 3)])):
        disk.seen()
        asyncio.run(what)
        assert disk.threads
        assert main not in disk.threads


def test_durable_write_is_on_the_disk_before_it_ends(volume: DiskVolume, disk: Watched) -> None:
    asyncio.run(volume.write([Write(5, (block(1),))], Durability.DURABLE))
    assert disk.seen() == ["WRITE(16) lba=0x69 blocks=1", "SYNCHRONIZE CACHE(16) lba=0x0 blocks=0"]
    disk.quick = False
    asyncio.run(volume.write([Write(5, (block(1),))], Durability.DURABLE))
    assert disk.seen() == ["WRITE(16) fua lba=0x69 blocks=1"]
    limited(volume, fua=False)
    asyncio.run(volume.write([Write(5, (block(1),))], Durability.DURABLE))
    assert disk.seen() == ["WRITE(16) lba=0x69 blocks=1", "SYNCHRONIZE CACHE(16) lba=0x0 blocks=0"]


def test_unmap_asks_only_for_what_is_sure_to_read_back_zeroes(volume: DiskVolume, disk: Watched) -> None:
    run_without_suspending(volume.write([Write(0, (block(7, BLOCKS),))]))
    disk.seen()
    assert asyncio.run(volume.unmap([Extent(2, 5)])) == [None]
    assert disk.seen() == ["WRITE SAME(16) unmap lba=0x66 blocks=5"]
    limited(volume, zeroing_blocks=0, max_transfer_blocks=4)
    assert asyncio.run(volume.unmap([Extent(10, 6)])) == [None]
    assert sorted(disk.seen()) == ["WRITE(16) lba=0x6e blocks=4", "WRITE(16) lba=0x72 blocks=2"]
    expected = [block(7, 2) + block(0, 5) + block(7, 3) + block(0, 6) + block(7, BLOCKS - 16)]
    limited(volume, max_transfer_blocks=1000)
    assert contents(run_without_suspending(volume.read([Extent(0, BLOCKS)]))) == expected


def test_commands_of_a_batch_are_in_flight_together_up_to_the_depth(loop_disk: LoopDisk) -> None:
    disk = Watched(loop_disk, quick=False)
    volume = DiskVolume(disk, WINDOW, BLOCK, depth=4)
    disk.before = threading.Barrier(4, timeout=10.0)  # each waits until four are there
    try:
        assert contents(asyncio.run(volume.read([Extent(lba, 1) for lba in range(0, 16, 2)]))) == [block(0)] * 8
        assert disk.before.parties == 4
        assert not disk.before.broken
    finally:
        volume.close()


def test_everything_lies_on_the_first_volume(volume: DiskVolume) -> None:
    assert volume.residency(Extent(3, 9)) == [(9, Residency.FIRST)]


class TestFaults:
    @pytest.fixture
    def faulty(self, loop_disk: LoopDisk) -> FaultyDisk:
        return FaultyDisk(loop_disk)

    @pytest.fixture
    def volume(self, faulty: FaultyDisk) -> Iterator[DiskVolume]:
        volume = DiskVolume(faulty, WINDOW, BLOCK)
        yield volume
        volume.close()

    def test_medium_error_fails_its_own_item_with_the_volume_s_lba(self, volume: DiskVolume, faulty: FaultyDisk) -> None:
        faulty.set_rules([Rule(UNRECOVERED_READ_ERROR, extent=Extent(105, 1), times=FOR_EVER)])
        good, bad, later = run_without_suspending(volume.read([Extent(2, 2), Extent(4, 3), Extent(7, 1)]))
        assert contents([good, later]) == [block(0, 2), block(0)]
        assert condition(bad) == (*MEDIUM_BAD, 5)

    def test_write_error_fails_its_own_item(self, volume: DiskVolume, faulty: FaultyDisk) -> None:
        faulty.set_rules([Rule(WRITE_ERROR, frozenset({WRITE_16}), Extent(105, 1), times=FOR_EVER)])
        good, bad, later = run_without_suspending(volume.write([Write(lba, (block(9),)) for lba in (4, 5, 6)]))
        assert (good, later) == (None, None)
        assert condition(bad) == (SenseKey.MEDIUM_ERROR, 0x0C, 0x00, 5)
        assert contents(run_without_suspending(volume.read([Extent(4, 3)]))) == [block(9) + block(0) + block(9)]

    @pytest.mark.parametrize(
        ("answer", "expected"),
        [
            ("the cable is out", (SenseKey.HARDWARE_ERROR, 0x08, 0x00, None)),
            (Status.BUSY, (SenseKey.HARDWARE_ERROR, 0x08, 0x00, None)),
            (Status.RESERVATION_CONFLICT, (SenseKey.HARDWARE_ERROR, 0x08, 0x00, None)),
            (RESET_OCCURRED, (SenseKey.UNIT_ATTENTION, 0x29, 0x00, None)),
            (Sense(SenseKey.MEDIUM_ERROR, 0x11, 0x00, information=0x1234), (*MEDIUM_BAD, None)),
        ],
    )
    def test_other_failures_fail_the_whole_command(
        self,
        volume: DiskVolume,
        faulty: FaultyDisk,
        answer: Sense | Status | str,
        expected: tuple[SenseKey, int, int, int | None],
    ) -> None:
        faulty.set_rules([Rule(answer, times=FOR_EVER)])
        for result in run_without_suspending(volume.read([Extent(4, 2), Extent(6, 2)])):
            assert condition(result) == expected

    def test_information_outside_the_command_is_not_believed(self, volume: DiskVolume, faulty: FaultyDisk) -> None:
        faulty.set_rules([Rule(Sense(SenseKey.MEDIUM_ERROR, 0x11, 0x00, information=0x1234), times=FOR_EVER)])
        assert condition(run_without_suspending(volume.read([Extent(4, 2)]))[0]) == (*MEDIUM_BAD, None)
        assert condition(run_without_suspending(volume.read([Extent(4, 1)]))[0]) == (*MEDIUM_BAD, 4)

    def test_disk_error_is_kept_as_the_cause(self, volume: DiskVolume, faulty: FaultyDisk) -> None:
        faulty.set_rules([Rule("the cable is out")])
        (result,) = run_without_suspending(volume.read([Extent(4, 2)]))
        assert condition(result)[0] is COMMUNICATION_FAILURE.key
        assert "the cable is out" in str(result.__cause__)  # type: ignore[union-attr]  # it is a CheckCondition

    def test_failed_flush_fails_durable_writes(self, volume: DiskVolume, faulty: FaultyDisk) -> None:
        faulty.set_rules([Rule(WRITE_ERROR, frozenset({SYNCHRONIZE_CACHE_16}), times=2)])
        assert condition(asyncio.run(volume.flush())) == (SenseKey.MEDIUM_ERROR, 0x0C, 0x00, None)
        (result,) = asyncio.run(volume.write([Write(4, (block(1),))], Durability.DURABLE))
        assert condition(result) == (SenseKey.MEDIUM_ERROR, 0x0C, 0x00, None)
        assert asyncio.run(volume.flush()) is None

    def test_failed_unmap_names_the_extent(self, volume: DiskVolume, faulty: FaultyDisk) -> None:
        faulty.set_rules([Rule(WRITE_ERROR, frozenset({WRITE_SAME_16}), Extent(120, 4))])
        good, bad = asyncio.run(volume.unmap([Extent(1, 2), Extent(18, 5)]))
        assert good is None
        assert condition(bad) == (SenseKey.MEDIUM_ERROR, 0x0C, 0x00, 20)

    def test_recovered_error_is_success(self, volume: DiskVolume, loop_disk: LoopDisk) -> None:
        disk = Reporting(loop_disk, Sense(SenseKey.RECOVERED_ERROR, 0x17, 0x01), residual=0)
        volume._disk, volume._batches = disk, None
        assert contents(run_without_suspending(volume.read([Extent(4, 1)]))) == [block(0)]

    def test_short_transfer_is_an_error(self, volume: DiskVolume, loop_disk: LoopDisk) -> None:
        volume._disk, volume._batches = Reporting(loop_disk, None, residual=100), None
        phase_error = (SenseKey.ABORTED_COMMAND, 0x4B, 0x00, None)
        assert condition(run_without_suspending(volume.read([Extent(4, 1)]))[0]) == phase_error
        assert condition(run_without_suspending(volume.write([Write(4, (block(1),))]))[0]) == phase_error

    @pytest.mark.parametrize("times", [1, FOR_EVER])
    @pytest.mark.parametrize("answer", [UNRECOVERED_READ_ERROR, "the cable is out", Status.TASK_ABORTED])
    def test_nth_command_fails_for_every_n(
        self, volume: DiskVolume, faulty: FaultyDisk, loop_disk: LoopDisk, times: int, answer: Sense | Status | str
    ) -> None:
        """What was reported good is there; what was reported failed is old or new; every read is right or an error."""
        nth = 1
        while True:
            faulty.set_rules([Rule(answer, nth=nth, times=times)])
            possible = [{block(0)} for _ in range(BLOCKS)]
            for version, what in enumerate(("write", "write", "durable", "unmap", "read", "flush", "write", "read")):
                batch = [Extent(lba, 2) for lba in (0, 2, 10, 12 + version, 30)]
                if what == "read":
                    for extent, result in zip(batch, run_without_suspending(volume.read(batch)), strict=True):
                        if isinstance(result, list | tuple):
                            data = bytes(joined(result))
                            assert data[:BLOCK] in possible[extent.lba]
                            assert data[BLOCK:] in possible[extent.lba + 1]
                elif what == "flush":
                    asyncio.run(volume.flush())
                else:
                    new = block(0 if what == "unmap" else nth + version)
                    durability = Durability.DURABLE if what == "durable" else Durability.VOLATILE
                    done = asyncio.run(
                        volume.unmap(batch)
                        if what == "unmap"
                        else volume.write([Write(extent.lba, (new, new)) for extent in batch], durability)
                    )
                    for extent, failure in zip(batch, done, strict=True):
                        for lba in range(extent.lba, extent.lba + extent.blocks):
                            possible[lba] = {new} if failure is None else possible[lba] | {new}
            fired = faulty.commands >= nth
            on_disk = read_blocks(loop_disk, WINDOW.lba, BLOCKS)
            for lba in range(BLOCKS):
                assert on_disk[lba * BLOCK : (lba + 1) * BLOCK] in possible[lba], (nth, lba)
            loop_disk.execute(Command(bytes.fromhex("93 08 00000000 00000064 00000040 0000"), (block(0),)), FOREVER)
            if not fired:
                break
            nth += 1
        assert nth > 12


class Reporting:
    """A disk that executes, and then reports this sense or residual."""

    def __init__(self, inner: Disk, sense: Sense | None, residual: int) -> None:
        self.inner, self.sense, self.residual = inner, sense, residual
        self.name, self.quick = inner.name, True

    def execute(self, command: Command, deadline: Deadline) -> Completion:
        completion = self.inner.execute(command, deadline)._replace(residual=self.residual)
        if self.sense is None:
            return completion
        return completion._replace(status=Status.CHECK_CONDITION, sense=encode_sense(self.sense))

    def close(self) -> None:
        self.inner.close()


def test_facts_of_a_disk_without_pages_are_cautious(loop_disk: LoopDisk) -> None:
    facts = describe_disk(Answering(loop_disk, {b"\x12\x01": None, b"\x5a": None}), FOREVER)
    assert (facts.serial, facts.naa, facts.max_transfer_blocks, facts.zeroing_blocks) == ("", None, 128, 0)
    assert (facts.fua, facts.volatile_cache, facts.write_protected) == (False, True, False)


@pytest.mark.parametrize(("page", "sure"), [("e4", True), ("a4", False), ("60", False)])  # LBPU LBPWS LBPWS10 LBPRZ
def test_only_write_same_that_reads_zeroes_is_trusted_to_zero(loop_disk: LoopDisk, page: str, sure: bool) -> None:
    disk = Answering(loop_disk, {b"\x12\x01\xb2": bytes.fromhex(f"00b20004 00{page}0200")})
    assert bool(describe_disk(disk, FOREVER).zeroing_blocks) is sure


def test_data_that_makes_no_sense_is_a_disk_error(loop_disk: LoopDisk) -> None:
    with pytest.raises(DiskError, match=r"sent data that makes no sense: standard INQUIRY data takes 36 bytes, not 5\."):
        describe_disk(Answering(loop_disk, {b"\x12\x00": bytes(5)}), FOREVER)
    with pytest.raises(DiskError, match=r"is no disk with blocks \(peripheral device type 0x05\)"):
        describe_disk(Answering(loop_disk, {b"\x12\x00": b"\5" + bytes(35)}), FOREVER)
    with pytest.raises(DiskError, match="its blocks have 0 bytes"):
        describe_disk(Answering(loop_disk, {b"\x9e": bytes(32)}), FOREVER)


def test_judge_s_reader_wants_every_byte(loop_disk: LoopDisk) -> None:
    with pytest.raises(DiskError, match=r"READ\(16\) lba=0x3 blocks=1 sent 500 of 512 bytes\."):
        read_blocks(Answering(loop_disk, {b"\x88": bytes(500)}), 3, 1)


def test_disk_that_cannot_be_described_says_why(loop_disk: LoopDisk) -> None:
    faulty = FaultyDisk(loop_disk, [Rule(UNRECOVERED_READ_ERROR, frozenset({0x9E}))])
    with pytest.raises(DiskError, match=r"READ CAPACITY\(16\).* ended with medium error, unrecovered read error"):
        describe_disk(faulty, FOREVER)
    faulty.set_rules([Rule(Status.BUSY, frozenset({0x12}))])
    with pytest.raises(DiskError, match=r"INQUIRY.* ended with BUSY"):
        describe_disk(faulty, FOREVER)
    faulty.set_rules([Rule(Sense(SenseKey.ILLEGAL_REQUEST, 0x20, 0x00), frozenset({0x9E}))])
    with pytest.raises(DiskError, match=r"does not know READ CAPACITY\(16\)"):
        describe_disk(faulty, FOREVER)


class Answering:
    """A disk that answers CDBs with these beginnings so; None: it does not know them."""

    def __init__(self, inner: Disk, answers: dict[bytes, bytes | None]) -> None:
        self.inner, self.answers = inner, answers
        self.name, self.quick = inner.name, True

    def execute(self, command: Command, deadline: Deadline) -> Completion:
        for beginning, answer in self.answers.items():
            if command.cdb.startswith(beginning):
                if answer is None:
                    return Completion(Status.CHECK_CONDITION, sense=encode_sense(INVALID_FIELD_IN_CDB))
                return Completion(Status.GOOD, (answer,))
        return self.inner.execute(command, deadline)

    def close(self) -> None:
        self.inner.close()
