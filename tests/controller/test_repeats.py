"""Lives of the two controllers: what one has answered is told again to the same life of the other, and to no other one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
import uvloop

from hwvirt.buffers import joined
from hwvirt.controller.forward import ForwardUnit
from hwvirt.controller.repeats import Repeats
from hwvirt.link.messages import Execute
from hwvirt.scsi.cdb import read_16, write_16
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.sense import COMMUNICATION_TIMEOUT, decode_sense
from hwvirt.scsi.status import Status

from .cut_sides import CutSides, first, on_cut_sides
from .desk import BLOCK

READ = Command(read_16(0, 1), (), BLOCK)


def write_of(fill: int) -> Command:
    return Command(write_16(0, 1), (bytes([fill]) * BLOCK,))


class OneBlock:
    """A logical unit of one block that counts what it executes, and waits before it does while `may_go` is not set."""

    def __init__(self) -> None:
        self.fill = 0
        self.writes = self.reads = 0
        self.may_go = asyncio.Event()
        self.may_go.set()
        self.error: Exception | None = None

    async def execute(self, batch: Sequence[Command]) -> list[Completion]:
        await self.may_go.wait()
        if self.error is not None:
            raise self.error
        return [self._done(command) for command in batch]

    def _done(self, command: Command) -> Completion:
        if command.data_in_length:
            self.reads += 1
            return Completion(Status.GOOD, (bytes([self.fill]) * BLOCK,))
        self.writes += 1
        self.fill = joined(command.data_out)[0]
        return Completion(Status.GOOD)


def _on_one_block(folder: Path, story: Callable[[CutSides, OneBlock], Awaitable[None]]) -> None:
    async def with_unit(sides: CutSides) -> None:
        sides.units[0] = unit = OneBlock()
        await story(sides, unit)

    on_cut_sides(folder, with_unit)


def _cut_at_first_execute(sides: CutSides) -> None:
    """The session ends at the first command that is forwarded from now on, with its answer on the way."""
    sides.answered_first, sides.cut_when = True, first(Execute)


def test_a_write_whose_answer_was_lost_does_not_undo_what_others_have_written_since(tmp_path: Path) -> None:
    async def story(sides: CutSides, unit: OneBlock) -> None:
        _cut_at_first_execute(sides)
        sides.stay_down = True
        forwarded = asyncio.ensure_future(ForwardUnit(sides.side_a.patient, 0).execute([write_of(0x11)]))
        await sides.was_cut.wait()
        await unit.execute([write_of(0x22)])  # through B's own door
        await sides.heal()
        (completion,) = await forwarded
        assert (completion.status, unit.fill, unit.writes) == (Status.GOOD, 0x22, 2)

    _on_one_block(tmp_path, story)


def test_of_a_batch_that_comes_again_only_the_reads_are_executed_again(tmp_path: Path) -> None:
    async def story(sides: CutSides, unit: OneBlock) -> None:
        _cut_at_first_execute(sides)
        read, written, again = await ForwardUnit(sides.side_a.patient, 0).execute([READ, write_of(7), READ])
        assert (sides.cuts, unit.writes, unit.reads) == (1, 1, 4)
        assert (read.data[0][0], written.data, again.data[0][0]) == (7, (), 7)

    _on_one_block(tmp_path, story)


@pytest.mark.parametrize("seen", [False, True], ids=["not sent", "sent"])
def test_another_life_of_the_peer_is_not_asked_to_write_again(tmp_path: Path, seen: bool) -> None:
    async def story(sides: CutSides, unit: OneBlock) -> None:
        forward = ForwardUnit(sides.side_a.patient, 0)
        if seen:
            _cut_at_first_execute(sides)
            sides.stay_down = True
        else:
            await sides.stop_b()
        reading, writing = (asyncio.ensure_future(forward.execute([one])) for one in (READ, write_of(0x11)))
        if seen:
            unit.may_go.clear()
            await sides.was_cut.wait()
            await sides.stop_b()
            unit.may_go.set()
        writes = unit.writes
        sides.cut_when, sides.stay_down = lambda request: False, False
        await sides.start_b_side()
        ((written,), (read,)) = await writing, await reading
        assert read.status == Status.GOOD
        if seen:
            assert (decode_sense(written.sense), unit.writes) == (COMMUNICATION_TIMEOUT, writes)
        else:
            assert (written.status, unit.writes) == (Status.GOOD, 1)

    _on_one_block(tmp_path, story)


def test_a_life_that_counts_from_the_beginning_gets_no_answers_of_a_former_one(tmp_path: Path) -> None:
    async def story(sides: CutSides, unit: OneBlock) -> None:
        for lba in range(5):
            await sides.write(lba, lba + 1)
        await ForwardUnit(sides.side_a.patient, 0).execute([write_of(1)])
        await sides.lifecycle.discard()
        await sides.stop_a()
        for file in sides.folder.glob("map-0*"):
            file.unlink()
        await sides.start_a_side()
        for lba in range(20, 27):
            await sides.write(lba, lba)
        await sides.flush()
        assert await sides.read(20, 7) == [*range(20, 27)]
        sides.check_one_to_one()
        await ForwardUnit(sides.side_a.patient, 0).execute([write_of(2)])
        assert (unit.fill, unit.writes) == (2, 2)

    _on_one_block(tmp_path, story)


def test_what_has_ended_at_the_peer_is_remembered_no_more(tmp_path: Path) -> None:
    async def story(sides: CutSides, unit: OneBlock) -> None:
        forward = ForwardUnit(sides.side_a.patient, 0)
        for fill in range(1, 50):
            await forward.execute([write_of(fill)])
        (repeats,) = sides.service._repeats.values()
        assert list(repeats._answers) == [49]
        unit.may_go.clear()
        waiting = [asyncio.ensure_future(forward.execute([write_of(fill)])) for fill in (50, 51)]
        await asyncio.sleep(0)
        unit.may_go.set()
        await asyncio.gather(*waiting)
        await forward.execute([write_of(52)])
        assert list(repeats._answers) == [52]
        await forward.execute([READ] * 3)
        assert list(repeats._answers) == [52]

    _on_one_block(tmp_path, story)


def test_a_repetition_waits_for_what_is_under_way_and_shares_its_failure() -> None:
    async def story() -> None:
        unit = OneBlock()
        repeats = Repeats(unit)
        unit.may_go.clear()
        both = [asyncio.ensure_future(repeats.execute(1, [write_of(3)])) for _ in range(2)]
        await asyncio.sleep(0)
        unit.may_go.set()
        assert [one.status for (one,) in await asyncio.gather(*both)] == [Status.GOOD] * 2
        assert unit.writes == 1
        unit.may_go.clear()
        unit.error = OSError("broken")
        both = [asyncio.ensure_future(repeats.execute(2, [write_of(4)])) for _ in range(2)]
        await asyncio.sleep(0)
        unit.may_go.set()
        assert [type(error) for error in await asyncio.gather(*both, return_exceptions=True)] == [OSError] * 2
        unit.error = None
        await repeats.execute(2, [write_of(4)])
        assert (unit.fill, unit.writes) == (4, 2)

    uvloop.run(story())
