"""A commit that is half done: what hosts, restarts and failing disks meet in its middle."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest

from hwvirt.controller.states import State
from hwvirt.link.messages import Slice
from hwvirt.scsi.sense import WRITE_ERROR, CheckCondition
from hwvirt.scsi.volume import Extent, Write

from .desk import BLOCK, Desk, on_desk
from .test_flush import durable_position, restart_store


@pytest.fixture(autouse=True)
def _one_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwvirt.controller.lifecycle.COMMIT_CHUNK_BYTES", BLOCK)
    monkeypatch.setattr("hwvirt.controller.lifecycle._CHUNKS_MOST", 1)


def test_write_over_the_edge_of_what_is_back_fails_when_its_first_part_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(desk: Desk) -> None:
        enter, write, met = desk.volume.gate.enter, desk.first.write, list[CheckCondition]()

        async def failing(_writes: list[Write]) -> list[CheckCondition | None]:
            return [CheckCondition(WRITE_ERROR)]

        async def writing_before(extent: Extent) -> None:
            if extent.lba == 20:
                monkeypatch.setattr(desk.first, "write", failing)
                with pytest.raises(CheckCondition) as caught:
                    await desk.write(19, 7, 8)
                met.append(caught.value)
                monkeypatch.setattr(desk.first, "write", write)
                assert await desk.read(19, 2) == [*desk.original(19), 1]
            await enter(extent)

        await desk.write(20, 1)
        monkeypatch.setattr(desk.volume.gate, "enter", writing_before)
        await desk.lifecycle.commit()
        await desk.lifecycle.settled()
        assert [failed.sense for failed in met] == [WRITE_ERROR]
        assert desk.first_disk()[19:21] == [*desk.original(19), 1]

    on_desk(tmp_path, story)


def test_block_that_is_back_stays_back_when_the_store_restarts_before_that_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no flush has covered is sent again, and is older than the commit of its block."""

    async def story(desk: Desk) -> None:
        looks = list[int]()

        async def restarting(_volume: int) -> int:
            await restart_store(desk)
            monkeypatch.setattr(desk.store, "drop", looking)
            return await desk.store.flush(0)

        async def looking(volume: int, extent: Extent) -> None:
            await type(desk.store).drop(desk.store, volume, extent)
            if extent.lba == 5:
                looks.extend(await desk.read(5))
                assert durable_position(desk, 5) is None

        await desk.write(5, 1)
        monkeypatch.setattr(desk.store, "flush", restarting)
        await desk.lifecycle.commit()
        await desk.lifecycle.settled()
        assert looks == [1]
        assert (desk.volume.state, desk.first_disk()[5], len(desk.store.records.rows())) == (State.OWN, 1, 0)

    on_desk(tmp_path, story)


def test_start_without_redirection_leaves_nothing_of_the_volume_in_the_store(tmp_path: Path) -> None:
    """A state directory of B that was restored from a backup, say, still has blocks that nobody will ever ask for."""

    async def story(desk: Desk) -> None:
        await desk.lifecycle.discard()
        await desk.store.write(0, [Slice(1, 2, 1)], [bytes(2 * BLOCK)], array("I", [0, 0]))
        await desk.store.unmap(0, [Slice(9, 1, 2)])
        await desk.store.flush(0)
        await desk.crash_a()
        assert (desk.volume.state, desk.store.allocator.live, len(desk.store.records.rows())) == (State.OWN, 0, 0)

    on_desk(tmp_path, story)
