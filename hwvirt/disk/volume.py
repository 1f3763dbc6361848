"""A window of a disk as a volume: batches become as few CDBs as their LBAs allow.

Rule 1: nothing outside the window is ever asked of the disk, neither read nor written.
Rule 2: on a quick disk reads and writes run at once, in the caller; everything else runs in a few threads.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice

from hwvirt.buffers import Buffer, Pieces, joined, length
from hwvirt.disk.disk import BatchDisk, Disk, Ends, execute_each
from hwvirt.disk.facts import describe_disk
from hwvirt.disk.runs import Run, cut, runs, sliced
from hwvirt.disk.touched import touched
from hwvirt.errors import DiskError, SafetyRefusal
from hwvirt.scsi.cdb import read_16, synchronize_cache_16, timeout_s, write_16, write_same_16
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.sense import (
    COMMUNICATION_FAILURE,
    DATA_PHASE_ERROR,
    WRITE_PROTECTED,
    CheckCondition,
    Sense,
    decode_sense,
)
from hwvirt.scsi.status import SenseKey, Status
from hwvirt.scsi.volume import Access, Durability, Extent, Residency, Write
from hwvirt.units import FOREVER, Deadline

__all__ = ["DiskVolume"]

_DESCRIBE_S = 60.0
# To look up a member of an enum is a call; the data path does without.
_READ_ONLY, _DURABLE = Access.READ_ONLY, Durability.DURABLE
_GOOD, _CHECK_CONDITION = Status.GOOD, Status.CHECK_CONDITION
_LONGEST_COMMAND_BYTES = 1 << 22


class DiskVolume:
    """The blocks `window` of `disk`, which stays the caller's. `block_bytes` must be the disk's own.

    On a quick disk `read` and volatile `write` never suspend. On others up to `depth` commands are in flight, and
    overlapping writes that are under way together land in any order. A command may take what its row in scsi.opcodes says.
    Raises DiskError when the disk is not as told; its methods raise SafetyRefusal for an extent outside the window.
    """

    def __init__(
        self,
        disk: Disk,
        window: Extent,
        block_bytes: int,
        *,
        access: Access = Access.READ_WRITE,
        depth: int = 8,
    ) -> None:
        self.facts = describe_disk(disk, Deadline.after(_DESCRIBE_S))
        if self.facts.block_bytes != block_bytes:
            raise DiskError(f"{disk.name} has blocks of {self.facts.block_bytes} bytes, not {block_bytes}.")
        if window.lba < 0 or window.blocks < 0 or window.lba + window.blocks > self.facts.blocks:
            raise DiskError(f"{disk.name} has {self.facts.blocks} blocks: a window of {_words(window)} does not fit.")
        self.block_bytes = block_bytes
        self.blocks = window.blocks
        self.access = access
        self._disk = disk
        self._batches = disk if isinstance(disk, BatchDisk) else None
        self._first = window.lba
        self._max_blocks = min(self.facts.max_transfer_blocks, _LONGEST_COMMAND_BYTES // block_bytes)
        self._threads = ThreadPoolExecutor(depth, f"{disk.name} ", initializer=_leave_signals_to_others)

    def close(self) -> None:
        """Waits for commands that are under way. Idempotent."""
        self._threads.shutdown()

    async def read(self, extents: Sequence[Extent]) -> list[Pieces | CheckCondition]:
        """Neighbours in the batch are one READ(16)."""
        self._refuse_outside(extents)
        plan = runs(extents, self._max_blocks)
        outcomes = await self._transfer([self._reads(run) for run in plan], self._disk.quick)
        results: list[Pieces | CheckCondition] = []
        for run, outcome in zip(plan, outcomes, strict=True):
            if run.items == 1:
                results.append(outcome)
                continue
            items = extents[run.first : run.first + run.items]
            if not isinstance(outcome, CheckCondition):
                sizes_bytes = [item.blocks * self.block_bytes for item in items]
                results += [(piece,) for piece in sliced(joined(outcome), sizes_bytes)]
            elif _belongs_to_one(outcome, items):
                for item in items:
                    results += await self.read([item])
            else:
                results += [outcome] * run.items
        return results

    async def write(
        self, writes: Sequence[Write], durability: Durability = Durability.VOLATILE
    ) -> list[CheckCondition | None]:
        """Neighbours in the batch are one WRITE(16). Durable: with FUA, or with a flush behind where that is better."""
        size = self.block_bytes
        extents = [(lba, length(data) // size) for lba, data in writes]
        self._refuse_outside(extents)
        if self.access is _READ_ONLY:
            return [CheckCondition(WRITE_PROTECTED.at(lba)) for lba, _ in extents]
        fua = durability is _DURABLE
        if fua and (self._disk.quick or not self.facts.fua):  # a quick disk is kept busy by its flush only, not by FUA
            results = await self.write(writes)
            unsafe = await self.flush()
            return [result or unsafe for result in results]
        plan = runs(extents, self._max_blocks)
        outcomes = await self._transfer([self._writes(run, writes, fua) for run in plan], self._disk.quick)
        results = []
        for run, outcome in zip(plan, outcomes, strict=True):
            if not isinstance(outcome, CheckCondition):
                results += [None] * run.items
            elif _belongs_to_one(outcome, items := writes[run.first : run.first + run.items]):
                for item in items:
                    results += await self.write([item], durability)
            else:
                results += [outcome] * run.items
        return results

    async def unmap(self, extents: Sequence[Extent]) -> list[CheckCondition | None]:
        """WRITE SAME(16) with UNMAP where that is sure to read back zeroes, else zeroes are written."""
        self._refuse_outside(extents)
        if self.access is Access.READ_ONLY:
            return [CheckCondition(WRITE_PROTECTED.at(lba)) for lba, _ in extents]
        outcomes = await self._transfer([self._zeroes(extent) for extent in extents], at_once=False)
        return [outcome if isinstance(outcome, CheckCondition) else None for outcome in outcomes]

    async def flush(self) -> CheckCondition | None:
        """SYNCHRONIZE CACHE of the whole disk."""
        outcome = (await self._transfer([[Command(synchronize_cache_16())]], at_once=False))[0]
        return outcome if isinstance(outcome, CheckCondition) else None

    def residency(self, extent: Extent) -> list[tuple[int, Residency]]:
        """Everything lies here."""
        return [(extent.blocks, Residency.FIRST)]

    def _refuse_outside(self, extents: Sequence[tuple[int, int]]) -> None:
        most = self.blocks
        for lba, blocks in extents:
            if lba < 0 or blocks < 0 or lba + blocks > most:
                words = _words(Extent(lba, blocks))
                raise SafetyRefusal(
                    f"refusing to touch {words} of {self._disk.name}: the window has {self.blocks} blocks.",
                    next_step="This is a defect of the program: nothing was read or written.",
                )

    def _parts(self, lba: int, blocks: int, max_blocks: int) -> Iterator[Extent]:
        """The extent in the disk's own LBAs, in commands of at most `max_blocks`."""
        for start in range(lba, lba + blocks, max_blocks):
            yield Extent(self._first + start, min(max_blocks, lba + blocks - start))

    def _reads(self, run: Run) -> list[Command]:
        size = self.block_bytes
        if 0 < run.blocks <= self._max_blocks:
            return [Command(read_16(self._first + run.lba, run.blocks), (), run.blocks * size)]
        parts = self._parts(run.lba, run.blocks, self._max_blocks)
        return [Command(read_16(part.lba, part.blocks), (), part.blocks * size) for part in parts]

    def _writes(self, run: Run, writes: Sequence[Write], fua: bool) -> list[Command]:
        items = writes[run.first : run.first + run.items]
        pieces = items[0].data if run.items == 1 else [piece for item in items for piece in item.data]
        if 0 < run.blocks <= self._max_blocks:
            return [Command(write_16(self._first + run.lba, run.blocks, fua), pieces)]
        return [
            Command(write_16(part.lba, part.blocks, fua), data)
            for part, data in zip(
                self._parts(run.lba, run.blocks, self._max_blocks),
                cut(pieces, self._max_blocks * self.block_bytes),
                strict=True,
            )
        ]

    def _zeroes(self, extent: Extent) -> list[Command]:
        if self.facts.zeroing_blocks:
            block = (bytes(self.block_bytes),)
            parts = self._parts(*extent, self.facts.zeroing_blocks)
            return [Command(write_same_16(*part, unmap=True), block) for part in parts]
        zeroes = memoryview(bytes(min(extent.blocks, self._max_blocks) * self.block_bytes))
        return [
            Command(write_16(part.lba, part.blocks), (zeroes[: part.blocks * self.block_bytes],))
            for part in self._parts(*extent, self._max_blocks)
        ]

    async def _transfer(self, groups: Sequence[Sequence[Command]], at_once: bool) -> list[Pieces | CheckCondition]:
        """For each group of commands the data that they sent, or the first error among them."""
        commands = [command for group in groups for command in group]
        if at_once:
            ends = self._execute_at_once(commands)
        else:
            loop = asyncio.get_running_loop()
            waits = [loop.run_in_executor(self._threads, self._execute, command) for command in commands]
            ends = await asyncio.gather(*waits)
        outcomes = list(map(self._judged, commands, ends))
        if len(outcomes) == len(groups) and all(groups):  # a command each, as nearly always
            return outcomes
        merged: list[Pieces | CheckCondition] = []
        following = iter(outcomes)
        for group in groups:
            pieces: list[Buffer] = []
            error: CheckCondition | None = None
            for outcome in islice(following, len(group)):
                if isinstance(outcome, CheckCondition):
                    error = error or outcome
                else:
                    pieces += outcome
            merged.append(error or pieces)
        return merged

    def _execute(self, command: Command) -> Completion | DiskError:
        return execute_each(self._disk, (command,), Deadline.after(timeout_s(command.cdb)))[0]

    def _execute_at_once(self, commands: Sequence[Command]) -> Ends:
        """A disk that is quick makes nobody wait, so there is no deadline to keep."""
        if self._batches is None:
            return execute_each(self._disk, commands, FOREVER)
        return self._batches.execute_batch(commands, FOREVER)

    def _judged(self, command: Command, end: Completion | DiskError) -> Pieces | CheckCondition:
        """What became of one command, whole or not at all, with INFORMATION in the volume's own LBAs."""
        if isinstance(end, DiskError):
            failure = CheckCondition(COMMUNICATION_FAILURE)
            failure.__cause__ = end
            return failure
        status, data, raw_sense, residual = end
        if status == _CHECK_CONDITION:
            sense = decode_sense(raw_sense)
            if sense.key is not SenseKey.RECOVERED_ERROR:
                return CheckCondition(self._shifted(sense, command))
        elif status != _GOOD:
            return CheckCondition(COMMUNICATION_FAILURE)
        if residual or length(data) != command.data_in_length:
            return CheckCondition(DATA_PHASE_ERROR)
        return data

    def _shifted(self, sense: Sense, command: Command) -> Sense:
        """INFORMATION as the volume's LBA; none where the disk names a block that is not the command's."""
        for lba, blocks in touched(command):
            if sense.information is not None and lba <= sense.information < lba + blocks:
                return sense.at(sense.information - self._first)
            if blocks == 1 and sense.key is SenseKey.MEDIUM_ERROR:
                return sense.at(lba - self._first)
        return replace(sense, information=None)


def _belongs_to_one(error: CheckCondition, items: Sequence[object]) -> bool:
    """Whether the other items of a merged command may still succeed alone."""
    return len(items) > 1 and error.sense.key is SenseKey.MEDIUM_ERROR


def _words(extent: Extent) -> str:
    return f"{extent.blocks} blocks from LBA {extent.lba}"


def _leave_signals_to_others() -> None:
    """A signal would interrupt SG_IO, and nobody could say what became of the command."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
