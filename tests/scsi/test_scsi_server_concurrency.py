"""Batches that overlap in time: COMPARE AND WRITE is alone, everything else is together, and nothing stays locked."""

from __future__ import annotations

import asyncio

import pytest

from hwvirt.scsi import opcodes
from hwvirt.scsi.cdb import read_16, write_16
from hwvirt.scsi.command import Command
from hwvirt.scsi.server import run_now
from tests.scsi.scsikit import BLOCK, Bench, block, blocks

READ = Command(read_16(0, 1), (), BLOCK)


def swap(old: int, new: int) -> Command:
    """COMPARE AND WRITE of block 0."""
    return Command(opcodes.COMPARE_AND_WRITE.encode(lba=0, blocks=1), (blocks(old, new),))


def write(tag: int) -> Command:
    return Command(write_16(0, 1), (block(tag),))


async def settle() -> None:
    """Lets every task run until it waits for something that will not come by itself."""
    for _ in range(20):
        await asyncio.sleep(0)


def paused_bench() -> Bench:
    bench = Bench()
    bench.volume.content[:BLOCK] = block(0)
    bench.volume.pause = asyncio.Event()
    return bench


def test_batches_overlap() -> None:
    async def story() -> None:
        bench = paused_bench()
        tasks = [asyncio.create_task(bench.server.execute([READ])) for _ in range(3)]
        await settle()
        assert bench.volume.calls == [("read", 1)] * 3
        assert bench.volume.pause
        bench.volume.pause.set()
        assert all(answer.good for (answer,) in await asyncio.gather(*tasks))

    asyncio.run(story())


def test_of_many_compare_and_writes_one_wins() -> None:
    async def story() -> None:
        bench = paused_bench()
        tasks = [asyncio.create_task(bench.server.execute([swap(0, tag)])) for tag in range(1, 9)]
        await settle()
        assert bench.volume.calls == [("read", 1)], "the others wait"
        assert bench.volume.pause
        bench.volume.pause.set()
        ends = [answer.good for (answer,) in await asyncio.gather(*tasks)]
        assert ends == [True] + [False] * 7
        assert bench.volume.bytes_of(0) == block(1)

    asyncio.run(story())


def test_write_waits_for_a_compare_and_write_under_way() -> None:
    async def story() -> None:
        bench = paused_bench()
        swapping = asyncio.create_task(bench.server.execute([swap(0, 1)]))
        await settle()
        writing = asyncio.create_task(bench.server.execute([write(2)]))
        await settle()
        assert bench.volume.calls == [("read", 1)]
        assert bench.volume.pause
        bench.volume.pause.set()
        assert (await swapping)[0].good
        assert (await writing)[0].good
        assert bench.volume.bytes_of(0) == block(2)

    asyncio.run(story())


def test_compare_and_write_waits_for_what_is_under_way_and_later_ones_for_it() -> None:
    async def story() -> None:
        bench = paused_bench()
        writing = asyncio.create_task(bench.server.execute([write(1)]))
        await settle()
        swapping = asyncio.create_task(bench.server.execute([swap(1, 2)]))
        await settle()
        reading = asyncio.create_task(bench.server.execute([READ]))
        await settle()
        assert bench.volume.calls == [("write", 1)]
        assert bench.volume.pause
        bench.volume.pause.set()
        assert (await writing)[0].good
        assert (await swapping)[0].good
        assert b"".join((await reading)[0].data) == block(2)

    asyncio.run(story())


@pytest.mark.parametrize("victim", ["inside", "alone", "behind"])
def test_cancelled_batch_leaves_the_unit_usable(victim: str) -> None:
    async def story() -> None:
        bench = paused_bench()
        tasks = {}
        for name, command in (("inside", write(1)), ("alone", swap(1, 2)), ("behind", READ)):
            tasks[name] = asyncio.create_task(bench.server.execute([command]))
            await settle()
        tasks[victim].cancel()
        await settle()
        assert bench.volume.pause
        bench.volume.pause.set()
        await asyncio.wait(tasks.values())
        assert {name for name, task in tasks.items() if task.cancelled()} == {victim}
        assert (await bench.server.execute([write(3), swap(3, 4), READ]))[2].data == (block(4),)

    asyncio.run(story())


def test_without_contention_no_event_loop_is_needed() -> None:
    bench = Bench()
    answers = bench.batch(write(1), swap(1, 2), READ)
    assert [answer.good for answer in answers] == [True, True, True]


def test_volume_that_suspends_cannot_be_run_now() -> None:
    bench = Bench()
    bench.volume.pause = asyncio.Event()

    async def wait() -> None:
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match=r"suspended, but there is no event loop to wait in$"):
        run_now(wait())
    bench.volume.pause = None
    assert bench.batch(READ)[0].good


def test_run_now_passes_on_results_and_errors() -> None:
    async def answer() -> int:
        return 42

    async def fail() -> int:
        raise KeyError("x")

    assert run_now(answer()) == 42
    with pytest.raises(KeyError):
        run_now(fail())
