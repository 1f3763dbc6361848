"""Defects planted from outside, between the last write and the judge: the controllers and the runner are the right ones.

And runs of wrong controllers that end before, or without, a verdict about their blocks.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from hwvirt.controller.recovery import RESTORE_IT
from hwvirt.errors import ExitCode
from hwvirt.rig import bench
from hwvirt.rig.disks import BenchDisk
from hwvirt.rig.judge.block import BlockId, identify, make_extent
from hwvirt.rig.steps import Performance
from hwvirt.trace import Event
from tests.meta.planting import LBA
from tests.meta.test_mutants import mutant_program
from tests.rig.run.kit import FILL, FLUSH, JUDGE, REDIRECT, Do, PowerCut, Ran, Spectator, rig_of, run, workload

BLOCK_BYTES = 4096
SOON_S = 60.0
WORK = workload(400, depth=8, blocks="1..1", mix="70/30/0/0")
GARBAGE = bytes(range(256)) * (BLOCK_BYTES // 256)


class Second:
    """The second disk's image, and where A's map says that blocks lie there."""

    def __init__(self, run: Performance) -> None:
        self._run = run
        self._image = image_of(run, "second")

    async def read(self, lba: int) -> bytes:
        """The block of the first volume."""
        at = await self._offset(lba)
        return self._image.read_bytes()[at : at + BLOCK_BYTES]

    async def write(self, lba: int, block: bytes) -> None:
        """Writes it where it lies."""
        overwrite(self._image, await self._offset(lba), block)

    async def _offset(self, lba: int) -> int:
        rows = await self._run.stage.bench.machines["a"].control.pages("map", lun=0)
        (position,) = (place + lba - first for first, blocks, place, *_ in rows if first <= lba < first + blocks)
        return int(self._run.stage.store_window("b").lba + position) * BLOCK_BYTES


def image_of(run: Performance, disk: str) -> Path:
    """The file that is a disk of this run."""
    made = run.stage.bench.disks[disk]
    assert isinstance(made, BenchDisk)
    return Path(made.path)


def overwrite(image: Path, at: int, block: bytes) -> None:
    """Writes into a disk's image behind everybody's back."""
    with image.open("r+b") as file:
        file.seek(at)
        file.write(block)


async def spoil_first_disk(run: Performance) -> None:
    """Writes garbage to LBA of the first volume."""
    overwrite(image_of(run, "first"), LBA * BLOCK_BYTES, GARBAGE)


def small(*steps: str) -> str:
    return rig_of(*steps, first="256KiB", second="1MiB")


def planted(plant: Callable[[Performance], Awaitable[None]], tmp_path: Path) -> Ran:
    """A story with two workloads, everything flushed, and then the defect."""
    text = small(FILL, REDIRECT, WORK, FLUSH, WORK, FLUSH, JUDGE)
    return run(text, tmp_path, insert=[(6, Do(plant))])


def assert_convicted(ran: Ran, *cards: tuple[str, str, set[int]]) -> None:
    """The run ends with 1, has these cards and no other, and each says which block was expected."""
    assert (ran.code, ran.report["verdict"]) == (ExitCode.BROKEN, "broken")
    assert {(card["property"], card["kind"]) for card in ran.report["cards"]} == {card[:2] for card in cards}
    for name, kind, lbas in cards:
        assert ran.lbas(name, kind) == lbas
        assert f"{name} is broken" in ran.report["reasons"]
    for card in ran.report["cards"]:
        assert all(owner["lba"] == card["lba"] for owner in card["expected"])
        assert card["replay"].endswith("rig.yaml --seed 5")
    assert f" at lba {LBA}: " in (ran.folder / "cards.txt").read_text()


def test_nothing_planted_is_a_pass(tmp_path: Path) -> None:
    async def plant(run: Performance) -> None:
        second = Second(run)
        await second.write(LBA, await second.read(LBA))

    ran = planted(plant, tmp_path)
    assert (ran.code, ran.report["reasons"]) == (ExitCode.PASSED, [])


def test_wrong_block_on_the_second_disk(tmp_path: Path) -> None:
    async def plant(run: Performance) -> None:
        await Second(run).write(LBA, GARBAGE)

    assert_convicted(planted(plant, tmp_path), ("content", "foreign", {LBA}), ("exact", "torn", {LBA}))


def test_one_wrong_bit_on_the_second_disk(tmp_path: Path) -> None:
    async def plant(run: Performance) -> None:
        *most, last = await Second(run).read(LBA)
        await Second(run).write(LBA, bytes([*most, last ^ 1]))

    assert_convicted(planted(plant, tmp_path), ("content", "torn", {LBA}), ("exact", "torn", {LBA}))


def test_two_blocks_of_the_second_disk_that_changed_places(tmp_path: Path) -> None:
    async def plant(run: Performance) -> None:
        second = Second(run)
        one, other = await second.read(LBA), await second.read(LBA + 1)
        await second.write(LBA, other)
        await second.write(LBA + 1, one)

    both = {LBA, LBA + 1}
    assert_convicted(planted(plant, tmp_path), ("content", "misdirected", both), ("exact", "torn", both))


def test_acknowledged_write_that_the_second_disk_lost(tmp_path: Path) -> None:
    older: list[bytes] = []

    async def remember(run: Performance) -> None:
        older.append(await Second(run).read(LBA))

    async def plant(run: Performance) -> None:
        assert await Second(run).read(LBA) != older[0]
        await Second(run).write(LBA, older[0])

    text = small(FILL, REDIRECT, WORK, FLUSH, WORK, FLUSH, JUDGE)
    ran = run(text, tmp_path, insert=[(4, Do(remember)), (7, Do(plant))])
    assert_convicted(ran, ("content", "stale", {LBA}), ("exact", "torn", {LBA}))


def test_block_that_an_earlier_run_with_the_same_seed_has_left_on_the_second_disk(tmp_path: Path) -> None:
    async def plant(run: Performance) -> None:
        who = identify(await Second(run).read(LBA))
        assert isinstance(who, BlockId)
        earlier = who._replace(writer=who.writer ^ 1)
        block = make_extent(earlier.volume, LBA, 1, earlier.version, earlier.writer, earlier.seed, BLOCK_BYTES)
        await Second(run).write(LBA, block)

    assert_convicted(planted(plant, tmp_path), ("content", "foreign", {LBA}), ("exact", "torn", {LBA}))


def test_write_to_the_first_disk(tmp_path: Path) -> None:
    assert_convicted(planted(spoil_first_disk, tmp_path), ("untouched", "changed", {LBA}), ("frozen", "changed", {LBA}))


def test_first_block_that_is_lost_after_a_commit(tmp_path: Path) -> None:
    async def plant(run: Performance) -> None:
        overwrite(image_of(run, "first"), LBA * BLOCK_BYTES, bytes(BLOCK_BYTES))

    text = small(FILL, REDIRECT, WORK, "commit: {lun: 0}", JUDGE)
    ran = run(text, tmp_path, insert=[(4, Do(plant))])
    assert_convicted(ran, ("settled", "zeroes", {LBA}), ("consistent", "order", {LBA}))


# Wrong controllers about which there is no verdict.


def test_teardown_that_hangs_is_ended_by_force_and_each_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "STOP_S", 1.0)
    ran = run(small(FILL, REDIRECT, WORK, JUDGE), tmp_path, program=mutant_program("deaf"))
    assert (ran.code, ran.report["verdict"]) == (ExitCode.INFRASTRUCTURE, "infrastructure")
    assert ran.report["reasons"] == [
        f"controller {name} did not stop within 1 s and was killed. Its log: {ran.folder}/{name}.log." for name in "ab"
    ]
    assert set(ran.verdicts.values()) == {"held"}  # which is no pass


def test_teardown_that_hangs_does_not_hide_a_broken_property(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "STOP_S", 1.0)
    text = small(FILL, REDIRECT, WORK, JUDGE)
    ran = run(text, tmp_path, program=mutant_program("deaf"), insert=[(3, Do(spoil_first_disk))])
    assert (ran.code, ran.report["reasons"]) == (ExitCode.BROKEN, ["untouched is broken", "frozen is broken"])
    told = [event.fields["reason"] for event in ran.events if event.name == "rig.failed"]
    assert [reason.split(" and ")[0] for reason in told] == [f"controller {name} did not stop within 1 s" for name in "ab"]


def test_controllers_with_different_secrets_do_not_come_up(tmp_path: Path) -> None:
    ran = run(small(FILL, JUDGE), tmp_path, program=mutant_program("wrong_secret"))
    assert (ran.code, ran.report["verdict"]) == (ExitCode.INFRASTRUCTURE, "infrastructure")
    assert ran.reason.startswith("controller a did not start: ")
    assert "does not accept the secret of this controller. Give both controllers the same secret." in ran.reason
    assert [step["blocked"] for step in ran.report["steps"]] == [True, True]


def test_acknowledged_block_that_cannot_be_read_is_no_pass(tmp_path: Path) -> None:
    text = small(FILL, REDIRECT, WORK, JUDGE)
    ran = run(text, tmp_path, program=mutant_program("unreadable_block"))
    assert (ran.code, ran.report["verdict"]) == (ExitCode.INFRASTRUCTURE, "infrastructure")
    assert ran.reason == "while nothing disturbed it, a/0 LBA 0 to 63 could not be read."
    assert ran.report["counts"]["failed"] > 1  # the workload met it, too


def test_ledger_that_was_not_durable_is_the_reason_that_is_told(tmp_path: Path) -> None:
    work = workload(60, "at: 80%, crash: b", depth=8, blocks="1..1", mix="70/20/10/0")
    text = rig_of(FILL, REDIRECT, work, JUDGE, first="256KiB", second="1MiB", link="stall: 300ms")
    refused = asyncio.Event()

    async def connected_again(run: Performance) -> None:
        async with asyncio.timeout(SOON_S):
            await refused.wait()

    def heard(event: Event, _: Spectator) -> None:
        if event.name == "link.mend-failed":
            refused.set()

    insert = [(3, Do(connected_again))]
    ran = run(text, tmp_path, program=mutant_program("volatile_ledger"), on_event=heard, insert=insert)
    assert (ran.code, ran.report["verdict"]) == (ExitCode.INFRASTRUCTURE, "infrastructure")
    reason, why = ran.report["reasons"]
    assert reason == "controller a: flush: aborted command, logical unit communication time-out (b/08/01)."
    assert why.startswith("controller a: the link is up, and not mended: controller b refuses volume 0: the ledger ends at ")


def test_map_that_is_durable_before_the_store_ends_with_a_refusal_and_never_with_a_guess(tmp_path: Path) -> None:
    text = small(FILL, REDIRECT, WORK, FLUSH, JUDGE)
    ran = run(text, tmp_path, program=mutant_program("flush_not_sent"), insert=[(4, PowerCut())])
    assert (ran.code, ran.report["verdict"]) == (ExitCode.INFRASTRUCTURE, "infrastructure")
    ends = r"controller b refuses volume 0: the ledger ends at sequence (\d+), the map of volume 0 at (\d+): "
    ends += rf"the ledger is lost or another one\. {re.escape(RESTORE_IT)} "
    # Where the newest change happens to be in the ledger (it is made durable at each lap of the store) older ones are not.
    lacks = r"volume 0: the ledger of the second controller lacks \d+ positions that the map names, first at LBA \d+\. "
    lacks += f"{re.escape(RESTORE_IT)} "
    told = " ".join(ran.report["reasons"])
    found = re.search(ends, told)
    assert int(found[1]) < int(found[2]) if found else re.search(lacks, told)
    assert ran.report["steps"][-1]["blocked"]
