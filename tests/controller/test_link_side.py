from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from hwvirt.controller.forward import ForwardUnit
from hwvirt.controller.states import State
from hwvirt.errors import HwvirtError, PeerError
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.sense import COMMUNICATION_TIMEOUT, CheckCondition, decode_sense
from hwvirt.scsi.status import Status

from .two_sides import TwoSides


def on_two_sides(folder: Path, story: Callable[[TwoSides], Awaitable[None]], stall_s: float = 5.0) -> None:
    async def run() -> None:
        desk = TwoSides(folder, stall_s=stall_s)
        await desk.start()
        try:
            await story(desk)
        finally:
            await desk.stop()
            desk.close()

    uvloop.run(run())


def test_what_is_written_is_read_through_the_link_and_the_map_is_one_to_one(tmp_path: Path) -> None:
    async def story(desk: TwoSides) -> None:
        await desk.write(10, 1, 2, 3)
        await desk.write(11, 9)
        await desk.unmap(12, 1)
        assert await desk.read(9, 5) == [9, 1, 9, 0, 13]
        await desk.flush()
        desk.check_one_to_one()
        assert desk.first.changes == 0

    on_two_sides(tmp_path, story)


def test_a_link_over_ethernet_has_no_line_to_tell_of(tmp_path: Path) -> None:
    async def story(desk: TwoSides) -> None:
        assert (desk.side_a.status()["kind"], desk.side_a.status()["line"]) == ("ethernet", None)

    on_two_sides(tmp_path, story)


def test_what_the_store_forgot_in_a_restart_is_sent_again(tmp_path: Path) -> None:
    async def story(desk: TwoSides) -> None:
        await desk.write(10, 1)
        await desk.flush()
        await desk.write(10, 2)
        await desk.write(11, 3)
        await desk.unmap(12, 1)
        await desk.stop_b()
        await desk.start_b_side()
        assert await desk.read(9, 5) == [9, 2, 3, 0, 13]
        await desk.flush()
        desk.check_one_to_one()
        assert len(desk.said("redirect.sent-again")) == 1

    on_two_sides(tmp_path, story)


def test_requests_wait_for_the_link_to_come_back(tmp_path: Path) -> None:
    async def story(desk: TwoSides) -> None:
        await desk.write(1, 7)
        await desk.stop_b()
        waiting = asyncio.gather(desk.write(2, 8), desk.read(1), desk.flush())
        await asyncio.sleep(0)
        assert not waiting.done()
        await desk.start_b_side()
        await waiting
        assert await desk.read(1, 2) == [7, 8]
        desk.check_one_to_one()

    on_two_sides(tmp_path, story)


def test_without_a_link_requests_fail_after_the_stall_and_unredirected_blocks_stay_readable(tmp_path: Path) -> None:
    async def story(desk: TwoSides) -> None:
        await desk.write(1, 7)
        await desk.flush()
        await desk.stop_b()
        assert await desk.read(5) == [5]
        results = await asyncio.gather(desk.write(2, 8), desk.read(1), desk.flush(), return_exceptions=True)
        for result in results:
            assert isinstance(result, CheckCondition)
            assert (result.sense.key, result.sense.asc, result.sense.ascq) == (0xB, 0x08, 0x01)
        assert await desk.read(2) == [2]
        await desk.start_b_side()
        await desk.side_a.wait_up()
        assert await desk.read(1) == [7]
        await desk.flush()
        desk.check_one_to_one()
        assert await desk.read(2) == [2], "a write that was reported failed happened later"

    on_two_sides(tmp_path, story, stall_s=0.2)


def test_another_secret_is_refused_and_nothing_is_told(tmp_path: Path) -> None:
    async def run() -> None:
        desk = TwoSides(tmp_path)
        desk.secret_a.write_text("another one")
        await desk.start_b_side()
        try:
            with pytest.raises(PeerError, match="secret"):
                await desk.start_a_side()
        finally:
            await desk.stop()
            desk.close()

    uvloop.run(run())


def test_a_second_controller_that_lost_its_ledger_refuses(tmp_path: Path) -> None:
    async def run() -> None:
        desk = TwoSides(tmp_path)
        await desk.start()
        await desk.write(3, 1)
        await desk.flush()
        await desk.stop()
        for name in ("ledger.journal", "ledger.checkpoint"):
            (tmp_path / name).unlink(missing_ok=True)
        await desk.start_b_side()
        try:
            with pytest.raises(HwvirtError) as caught:
                await desk.start_a_side()
            assert str(caught.value) == (
                "controller b refuses volume 0: the ledger ends at sequence 0, the map of volume 0 at 1: the ledger is lost "
                "or another one. Restore the second controller's state directory; or give up what was redirected: discard "
                "it, or, where this controller does not start, remove its own state directory."
            )
        finally:
            await desk.stop()
            desk.close()

    uvloop.run(run())


class Echo:
    """A logical unit that answers each command with its own CDB."""

    async def execute(self, batch: list[Command]) -> list[Completion]:
        return [Completion(Status.GOOD, (command.cdb,)) for command in batch]


def test_whole_commands_are_passed_on_and_their_completions_come_back(tmp_path: Path) -> None:
    async def story(desk: TwoSides) -> None:
        desk.units[4] = Echo()  # type: ignore[assignment]  # a list is a sequence
        unit = ForwardUnit(desk.side_a.patient, 4)
        cdbs = [bytes([opcode, *range(15)]) for opcode in (0x12, 0x88, 0xF7)]
        completions = await unit.execute([Command(cdb, (), 16) for cdb in cdbs])
        assert [b"".join(completion.data) for completion in completions] == cdbs
        (missing,) = await ForwardUnit(desk.side_a.patient, 5).execute([Command(cdbs[0], (), 16)])
        assert str(decode_sense(missing.sense)).startswith("illegal request, logical unit not supported")

    on_two_sides(tmp_path, story)


def test_a_forwarded_command_without_a_link_fails_after_the_stall_and_is_not_executed_later(tmp_path: Path) -> None:
    executed: list[bytes] = []

    class Recorder:
        async def execute(self, batch: list[Command]) -> list[Completion]:
            executed.extend(command.cdb for command in batch)
            return [Completion(Status.GOOD)] * len(batch)

    async def story(desk: TwoSides) -> None:
        desk.units[0] = Recorder()  # type: ignore[assignment]  # a list is a sequence
        await desk.stop_b()
        (completion,) = await ForwardUnit(desk.side_a.patient, 0).execute([Command(bytes(16))])
        assert decode_sense(completion.sense) == COMMUNICATION_TIMEOUT
        await desk.start_b_side()
        await desk.side_a.wait_up()
        await desk.write(1, 1)
        assert executed == []

    on_two_sides(tmp_path, story, stall_s=0.2)


def test_a_volume_starts_in_the_state_that_is_asked_for(tmp_path: Path) -> None:
    async def run() -> None:
        desk = TwoSides(tmp_path)
        await desk.start(State.OWN)
        try:
            await desk.write(3, 9)
            assert desk.first_disk()[3] == 9
            await desk.lifecycle.redirect()
            await desk.write(3, 10)
            assert desk.first_disk()[3] == 9
        finally:
            await desk.stop()
            desk.close()

    uvloop.run(run())


@pytest.mark.parametrize("end", ["discard", "commit"])
def test_nothing_of_an_ended_redirection_comes_back_in_the_next_one(tmp_path: Path, end: str) -> None:
    """It was never flushed; a restart of the store must not have it sent again."""

    async def story(desk: TwoSides) -> None:
        await desk.write(10, 1)
        await desk.write(10, 2)
        await (desk.lifecycle.discard() if end == "discard" else desk.lifecycle.commit())
        await desk.lifecycle.settled()
        before = await desk.read(10, 2)
        assert (desk.volume.superseded, [*desk.volume.unflushed]) == ([], [])
        await desk.lifecycle.redirect()
        await desk.stop_b()
        await desk.start_b_side()
        await desk.write(11, 3)
        assert await desk.read(10, 2) == [before[0], 3]
        await desk.flush()
        desk.check_one_to_one()

    on_two_sides(tmp_path, story)
