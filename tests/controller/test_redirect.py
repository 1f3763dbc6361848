from __future__ import annotations

import asyncio
import random
from array import array
from collections.abc import Sequence
from pathlib import Path

import pytest

from hwvirt.buffers import Pieces, joined
from hwvirt.controller.states import State
from hwvirt.controller.store import LocalStore
from hwvirt.errors import ControllerError, StateError
from hwvirt.link.messages import Placement, Slice
from hwvirt.scsi.sense import (
    COMMUNICATION_TIMEOUT,
    SPACE_ALLOCATION_FAILED_WRITE_PROTECT,
    UNRECOVERED_READ_ERROR,
    WRITE_ERROR,
    CheckCondition,
)
from hwvirt.scsi.volume import Durability, Extent, Residency, Write

from .desk import BLOCK, Desk, on_desk


def test_a_write_while_redirecting_never_touches_the_first_volume(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        before = desk.first_disk()
        await desk.write(10, 1, 2, 3)
        await desk.unmap(20, 5)
        await desk.flush()
        assert desk.first.changes == 0
        assert desk.first_disk() == before
        assert await desk.read(9, 5) == [9, 1, 2, 3, 13]
        assert await desk.read(19, 7) == [19, 0, 0, 0, 0, 0, 25]

    on_desk(tmp_path, story)


def test_residency_tells_where_each_block_lies(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        await desk.write(2, 1, 1)
        await desk.unmap(4, 1)
        assert desk.volume.residency(Extent(0, 6)) == [
            (2, Residency.FIRST),
            (2, Residency.REDIRECTED),
            (1, Residency.ZERO),
            (1, Residency.FIRST),
        ]

    on_desk(tmp_path, story)


def test_overlapping_writes_of_one_batch_take_effect_in_order(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        batch = [Write(5, [bytes([fill]) * BLOCK * 3]) for fill in (1, 2)] + [Write(6, [bytes([3]) * BLOCK])]
        assert await desk.volume.write(batch) == [None, None, None]
        assert await desk.read(5, 3) == [2, 3, 2]
        await desk.flush()
        desk.check_one_to_one()

    on_desk(tmp_path, story)


def test_a_flush_is_store_then_map_and_a_failed_one_of_the_store_fails_it(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        await desk.write(1, 7)
        await desk.flush()
        size = desk.map_journal.size_bytes
        await desk.write(2, 8)
        desk.second.flush_failure = CheckCondition(WRITE_ERROR)
        with pytest.raises(CheckCondition) as caught:
            await desk.flush()
        assert caught.value.sense == WRITE_ERROR
        assert desk.map_journal.size_bytes == size, "the map became durable before the data"
        assert [one.slices[0].lba for one in desk.volume.unflushed] == [2]
        failed = await desk.volume.write([Write(3, [bytes(BLOCK)])], Durability.DURABLE)
        assert failed[0] is not None
        desk.second.flush_failure = None
        await desk.flush_again()
        assert desk.map_journal.size_bytes > size
        assert desk.volume.unflushed.size_bytes == 0

    on_desk(tmp_path, story)


def test_what_was_flushed_survives_a_restart_of_both(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        await desk.write(10, 1, 2, 3)
        await desk.unmap(11, 1)
        await desk.flush()
        desk.ledger_journal.close()
        desk.start_b()
        await desk.crash_a()
        assert await desk.read(9, 5) == [9, 1, 0, 3, 13]
        desk.check_one_to_one()

    on_desk(tmp_path, story)


def test_a_restart_of_the_first_controller_adopts_what_the_store_has(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        await desk.write(10, 1)
        await desk.flush()
        await desk.write(10, 2)
        await desk.write(11, 3)
        await desk.unmap(12, 1)
        await desk.crash_a()
        assert await desk.read(9, 5) == [9, 2, 3, 0, 13]
        await desk.flush()
        desk.check_one_to_one()

    on_desk(tmp_path, story)


def test_a_lost_map_is_rebuilt_from_the_ledger_with_its_zeroes(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        await desk.write(10, 1, 2, 3)
        await desk.write(10, 9)
        await desk.unmap(12, 2)
        await desk.flush()
        for name in ("map-0.journal", "map-0.checkpoint"):
            (tmp_path / name).unlink(missing_ok=True)
        await desk.crash_a(State.OWN)
        assert desk.volume.state is State.REDIRECTING
        assert await desk.read(9, 6) == [9, 9, 2, 0, 0, 14]
        desk.check_one_to_one()

    on_desk(tmp_path, story)


def test_a_map_whose_ledger_is_lost_is_not_served(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        await desk.write(10, 1, 2)
        await desk.flush()
        desk.ledger_journal.close()
        for name in ("ledger.journal", "ledger.checkpoint"):
            (tmp_path / name).unlink(missing_ok=True)
        desk.start_b()
        with pytest.raises(StateError) as caught:
            await desk.crash_a()
        assert str(caught.value) == (
            "volume 0: the ledger of the second controller lacks 2 positions that the map names, first at LBA 10. "
            "Restore the second controller's state directory; or give up what was redirected: discard it, or, where this "
            "controller does not start, remove its own state directory."
        )

    on_desk(tmp_path, story)


def test_commit_merges_while_hosts_go_on_and_ends_with_an_empty_map(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        random_ = random.Random(3)
        model = desk.original(0, desk.blocks)
        for _ in range(40):
            model[lba := random_.randrange(desk.blocks)] = fill = random_.randrange(1, 250)
            await desk.write(lba, fill)
        await desk.unmap(30, 4)
        model[30:34] = [0] * 4
        await desk.lifecycle.commit()
        for _ in range(60):
            lba, fill = random_.randrange(desk.blocks - 1), random_.randrange(1, 250)
            model[lba : lba + 2] = [fill, fill]
            await desk.write(lba, fill, fill)
            assert await desk.read(0, desk.blocks) == model
            await asyncio.sleep(0)
        await desk.lifecycle.settled()
        assert desk.volume.state is State.OWN
        assert desk.first_disk() == model
        assert desk.volume.map.is_empty(Extent(0, desk.blocks))
        assert desk.store.allocator.live == 0
        assert len(desk.store.records.rows()) == 0

    on_desk(tmp_path, story)


def test_a_flush_that_waits_for_the_end_of_a_commit_flushes_the_first_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwvirt.controller.lifecycle.COMMIT_CHUNK_BYTES", BLOCK)
    monkeypatch.setattr("hwvirt.controller.lifecycle._CHUNKS_MOST", 1)

    async def story(desk: Desk) -> None:
        await desk.write(0, 1)
        await desk.write(40, 1)
        drop, flush, happened = desk.store.drop, desk.first.flush, list[str]()
        flushing: list[asyncio.Task[None]] = []

        async def dropped(volume: int, extent: Extent) -> None:
            await drop(volume, extent)
            if extent.lba == 40:
                await desk.write(0, 9)
                happened.append("written")
            if extent.blocks == desk.blocks:
                flushing.append(asyncio.create_task(desk.flush()))
                await asyncio.sleep(0)
                await asyncio.sleep(0)

        async def flushed() -> CheckCondition | None:
            happened.append("flushed")
            return await flush()

        monkeypatch.setattr(desk.store, "drop", dropped)
        monkeypatch.setattr(desk.first, "flush", flushed)
        await desk.lifecycle.commit()
        await desk.lifecycle.settled()
        await asyncio.gather(*flushing)
        assert len(flushing) == 1
        assert happened[-2:] == ["written", "flushed"]

    on_desk(tmp_path, story)


@pytest.mark.parametrize("other", ["commit", "discard", "redirect"])
def test_of_two_commands_at_once_the_later_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    monkeypatch.setattr("hwvirt.controller.lifecycle.COMMIT_CHUNK_BYTES", BLOCK)

    async def story(desk: Desk) -> None:
        for lba in range(desk.blocks):
            await desk.write(lba, 1 + lba)
        commands = [desk.lifecycle.commit(), getattr(desk.lifecycle, other)()]
        done = await asyncio.gather(*commands, return_exceptions=True)
        assert done[0] is None
        assert isinstance(done[1], ControllerError)
        assert str(done[1]).startswith(f"cannot {other} while ")
        await desk.lifecycle.settled()
        assert desk.first_disk() == [1 + lba for lba in range(desk.blocks)]

    on_desk(tmp_path, story)


def test_a_commit_takes_what_is_scattered_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwvirt.controller.lifecycle.COMMIT_CHUNK_BYTES", 8 * BLOCK)

    async def story(desk: Desk) -> None:
        for lba in (*range(8), 9, 17, 31, 40, *range(48, 60), 63):
            await desk.write(lba, 200)
        drops: list[Extent] = []
        drop = desk.store.drop

        async def dropped(volume: int, extent: Extent) -> None:
            drops.append(extent)
            await drop(volume, extent)

        monkeypatch.setattr(desk.store, "drop", dropped)
        await desk.lifecycle.commit()
        await desk.lifecycle.settled()
        # Eight blocks at a time, as many empty ones between them as there are; and then everything.
        assert drops == [Extent(0, 8), Extent(8, 40), Extent(48, 8), Extent(56, 8), Extent(0, 64)]
        assert desk.store.allocator.live == 0

    on_desk(tmp_path, story)


def test_a_commit_writes_back_what_hosts_write_while_it_waits_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwvirt.controller.lifecycle.COMMIT_CHUNK_BYTES", 8 * BLOCK)

    async def story(desk: Desk) -> None:
        await desk.write(0, 200)
        gate, enter, write = desk.volume.gate, desk.volume.gate.enter, desk.first.write
        written: list[int] = []

        async def filled_before(extent: Extent) -> None:
            monkeypatch.setattr(gate, "enter", enter)
            await desk.write(16, *[201] * 48)
            await enter(extent)

        async def wrote(writes: Sequence[Write]) -> object:
            written.append(sum(len(piece) for one in writes for piece in one.data) // BLOCK)
            return await write(writes)  # type: ignore[no-untyped-call]  # as FileVolume

        monkeypatch.setattr(gate, "enter", filled_before)
        monkeypatch.setattr(desk.first, "write", wrote)
        await desk.lifecycle.commit()
        await desk.lifecycle.settled()
        assert desk.first_disk() == [200, *desk.original(1, 15), *[201] * 48]
        assert written == [1, *[8] * 6]

    on_desk(tmp_path, story)


def test_discard_gives_the_original_back(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        await desk.write(0, *range(100, 140))
        await desk.flush()
        await desk.lifecycle.discard()
        assert await desk.read(0, desk.blocks) == desk.original(0, desk.blocks)
        assert (desk.volume.state, desk.store.allocator.live) == (State.OWN, 0)
        await desk.write(1, 77)
        assert desk.first_disk()[1] == 77
        await desk.lifecycle.redirect()
        await desk.write(1, 78)
        assert desk.first_disk()[1] == 77

    on_desk(tmp_path, story)


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_commit_survives_a_crash_at_any_point(tmp_path: Path, cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwvirt.controller.lifecycle.COMMIT_CHUNK_BYTES", 16 * BLOCK)

    class PowerCut(Exception):
        pass

    async def story(desk: Desk) -> None:
        model = desk.original(0, desk.blocks)
        for lba in range(0, desk.blocks, 3):
            model[lba] = 200 + lba % 40
            await desk.write(lba, model[lba])
        await desk.flush()
        steps = iter(range(1, 1000))

        def cut_here(name: str, inner):  # type: ignore[no-untyped-def]  # any async function
            async def counted(*arguments: object) -> object:
                if next(steps) == cut:
                    raise PowerCut(name)
                return await inner(*arguments)

            return counted

        for owner, name in ((desk.first, "write"), (desk.first, "flush"), (desk.store, "flush"), (desk.store, "drop")):
            monkeypatch.setattr(owner, name, cut_here(name, getattr(owner, name)))
        await desk.lifecycle.commit()
        with pytest.raises(PowerCut):
            await desk.lifecycle.settled()
        monkeypatch.undo()
        monkeypatch.setattr("hwvirt.controller.lifecycle.COMMIT_CHUNK_BYTES", 16 * BLOCK)
        await desk.crash_a()
        model[1], model[60] = 1, 2
        await desk.write(1, 1)
        await desk.write(60, 2)
        assert await desk.read(0, desk.blocks) == model
        await desk.lifecycle.settled()
        assert desk.first_disk() == model
        assert (desk.volume.state, desk.store.allocator.live) == (State.OWN, 0)

    on_desk(tmp_path, story)


def test_a_step_that_the_table_does_not_have_is_refused_with_what_is_possible(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        with pytest.raises(ControllerError) as caught:
            await desk.lifecycle.redirect()
        assert str(caught.value) == "cannot redirect while redirecting. Possible now: commit, discard."
        await desk.lifecycle.discard()
        with pytest.raises(ControllerError) as caught:
            await desk.lifecycle.commit()
        assert str(caught.value) == "cannot commit while own. Possible now: redirect."

    on_desk(tmp_path, story)


def test_a_full_store_fails_the_write_and_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        await desk.write(0, *[9] * 16)
        for fill in (1, 2, 3):
            await desk.write(0, *[fill] * 16)  # room is made by giving up what was replaced
        with pytest.raises(CheckCondition) as caught:
            await desk.write(40, *[5] * 20)
        assert caught.value.sense == SPACE_ALLOCATION_FAILED_WRITE_PROTECT.at(40)
        assert await desk.read(0, 16) == [3] * 16
        assert await desk.read(40, 20) == desk.original(40, 20)
        await desk.write(40, *[6] * 4)
        await desk.flush()
        desk.check_one_to_one()

    on_desk(tmp_path, story, store_blocks=32)


def test_a_medium_error_of_the_store_comes_out_with_the_hosts_lba(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        await desk.write(10, 1, 2, 3)
        (run,) = desk.volume.map.lookup(Extent(10, 3))
        assert run.placement is not None
        with (tmp_path / "second").open("r+b") as file:
            file.seek((run.placement.lba + 2) * BLOCK)
            file.write(b"rot")
        (result,) = await desk.volume.read([Extent(8, 6)])
        assert isinstance(result, CheckCondition)
        assert result.sense == UNRECOVERED_READ_ERROR.at(12)

    on_desk(tmp_path, story)


def test_a_store_that_cannot_be_reached_fails_the_reads_that_need_it_and_no_other_of_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def out_of_reach(self: LocalStore, volume: int, placements: Sequence[Placement]) -> None:
        raise CheckCondition(COMMUNICATION_TIMEOUT)

    async def story(desk: Desk) -> None:
        await desk.write(10, 1)
        await desk.unmap(20, 1)
        monkeypatch.setattr(LocalStore, "read", out_of_reach)
        first, stored, both, zero = await desk.volume.read([Extent(9, 1), Extent(10, 1), Extent(9, 2), Extent(20, 1)])
        assert not isinstance(first, CheckCondition)
        assert not isinstance(zero, CheckCondition)
        assert (bytes(joined(first)), bytes(joined(zero))) == (bytes([9]) * BLOCK, bytes(BLOCK))
        for failed in (stored, both):
            assert isinstance(failed, CheckCondition)
            assert failed.sense == COMMUNICATION_TIMEOUT

    on_desk(tmp_path, story)


def test_a_read_of_a_position_that_was_given_up_is_an_error_never_other_data(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        (old,) = await desk.store.write(0, [Slice(1, 1, 1)], [b"x" * BLOCK], array("I", [0]))
        await desk.store.free(0, [old])
        await desk.store.flush(0)
        while desk.store.allocator.lap == old.generation:
            sequence = desk.store.allocator.cursor + 9
            (new,) = await desk.store.write(0, [Slice(2, 1, sequence)], [b"y" * BLOCK], array("I", [0]))
            await desk.store.free(0, [new])
            await desk.store.flush(0)
        (result,) = await desk.store.read(0, [old])
        assert isinstance(result, CheckCondition)
        assert str(result.sense).startswith("aborted command")

    on_desk(tmp_path, story)


def test_the_same_request_again_is_answered_alike_and_not_done_twice(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        request = (0, [Slice(1, 2, 5)], [b"x" * BLOCK * 2], array("I", [0, 0]))
        first = await desk.store.write(*request)
        assert await desk.store.write(*request) == first
        assert desk.store.allocator.live == 2
        desk.store.settled(0, 5)
        assert await desk.store.write(*request) != first

    on_desk(tmp_path, story)


def test_the_store_restarted_meanwhile_so_a_flush_is_repeated_in_its_new_epoch(tmp_path: Path) -> None:
    from hwvirt.controller.recovery import durable_ledger, reconcile, send_again

    async def story(desk: Desk) -> None:
        await desk.write(10, 1)
        await desk.flush()
        await desk.write(10, 2)
        await desk.write(11, 3)
        await desk.unmap(12, 1)
        desk.ledger_journal.close()
        desk.start_b()  # its memory is gone: the last three are known to A alone
        desk.volume.store = desk.store
        rows = await durable_ledger(desk.volume, desk.store)
        reconcile(desk.volume, await send_again(desk.volume, desk.store, rows))
        assert await desk.read(9, 5) == [9, 2, 3, 0, 13]
        await desk.flush()
        desk.check_one_to_one()
        desk.ledger_journal.close()
        desk.start_b()
        await desk.crash_a()
        assert await desk.read(9, 5) == [9, 2, 3, 0, 13]

    on_desk(tmp_path, story)


class SlowStore:
    """A store whose answers wait, so that requests overlap; otherwise the desk's."""

    def __init__(self, desk: Desk, random_: random.Random) -> None:
        self._inner, self._random = desk.store, random_

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def write(self, volume: int, slices: Sequence[Slice], data: Pieces, digests: array[int]) -> list[Placement]:
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)
        placements = await self._inner.write(volume, slices, data, digests)
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)
        return placements

    async def read(self, volume: int, placements: Sequence[Placement]) -> list[Pieces | CheckCondition]:
        for _ in range(self._random.randrange(6)):
            await asyncio.sleep(0)
        return await self._inner.read(volume, placements)


@pytest.mark.parametrize("seed", range(5))
def test_requests_in_any_overlap_leave_whole_blocks_and_a_one_to_one_map(tmp_path: Path, seed: int) -> None:
    async def story(desk: Desk) -> None:
        random_ = random.Random(seed)
        desk.volume.store = SlowStore(desk, random_)  # type: ignore[assignment]  # passes everything else on
        written: list[set[int]] = [{fill} for fill in desk.original(0, desk.blocks)]

        async def host() -> None:
            for _ in range(60):
                lba, blocks, action = random_.randrange(desk.blocks - 8), random_.randint(1, 8), random_.random()
                if action < 0.5:
                    fill = random_.randrange(1, 250)
                    for at in range(lba, lba + blocks):
                        written[at].add(fill)
                    await desk.write(lba, *[fill] * blocks)
                elif action < 0.6:
                    for at in range(lba, lba + blocks):
                        written[at].add(0)
                    await desk.unmap(lba, blocks)
                elif action < 0.9:
                    found = await desk.read(lba, blocks)
                    assert all(fill in written[lba + index] for index, fill in enumerate(found))
                else:
                    await desk.flush()

        await asyncio.gather(*(host() for _ in range(8)))
        await desk.flush()
        desk.check_one_to_one()
        final = await desk.read(0, desk.blocks)
        await desk.crash_a()
        assert await desk.read(0, desk.blocks) == final

    on_desk(tmp_path, story, store_blocks=200)


def test_a_store_with_little_spare_room_never_fails_a_write_that_fits(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        random_ = random.Random(8)

        async def host() -> None:
            for _ in range(150):
                lba = random_.randrange(desk.blocks - 4)
                await desk.write(lba, *[random_.randrange(1, 250)] * 4)

        await asyncio.gather(*(host() for _ in range(6)))
        await desk.flush()
        desk.check_one_to_one()

    on_desk(tmp_path, story, blocks=64, store_blocks=64 + 6 * 4)


def test_a_second_commit_writes_back_what_was_redirected_since_the_first(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        for fill in (1, 2):
            await desk.write(5, fill)
            await desk.lifecycle.commit()
            await desk.lifecycle.settled()
            assert desk.first_disk()[5] == fill
            await desk.lifecycle.redirect()

    on_desk(tmp_path, story)
