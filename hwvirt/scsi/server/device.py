"""The device server of one logical unit.

Rule 1: consecutive reads of a batch are one call of the volume, and so are consecutive writes of one durability.
Rule 2: what is answered without the volume (refusals, no blocks) does not part a run of reads or writes.
Rule 3: a command that must be alone has the unit to itself, across all batches under way.

Ref: T10 SAM-5 5 (commands, unit attentions), SPC-4 4.5 (sense data).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from hwvirt.buffers import Pieces, length
from hwvirt.scsi import opcodes
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.sense import INVALID_OPCODE, CheckCondition, Sense, SenseFormat, encode_sense
from hwvirt.scsi.server.condition import CONDITION
from hwvirt.scsi.server.gate import Gate
from hwvirt.scsi.server.information import INFORMATION
from hwvirt.scsi.server.medium import ALONE, MEDIUM
from hwvirt.scsi.server.transfers import FORMS, Kind, admit, front
from hwvirt.scsi.server.unit import Request, Unit, default_limits, refuse_if
from hwvirt.scsi.status import Status
from hwvirt.scsi.volume import Durability, Extent, Volume, Write
from hwvirt.scsi.vpd import BlockLimits, Identity

__all__ = ["DeviceServer", "run_now"]

T = TypeVar("T")
_ALWAYS: Final = {**CONDITION, **INFORMATION}
# To look up a member of an enum is a call; the data path does without.
_READ, _WRITE_DURABLE, _IS_GOOD = Kind.READ, Kind.WRITE_DURABLE, Status.GOOD
_VOLATILE, _DURABLE = Durability.VOLATILE, Durability.DURABLE
_GOOD: Final = Completion(_IS_GOOD)
_ALONE_OPCODES: Final = frozenset(bytes([row.opcode]) for row in ALONE)
_OPCODES: Final = frozenset(row.opcode for row in opcodes.COMMANDS)
_WITH_ATTENTION_PENDING: Final = frozenset({opcodes.INQUIRY, opcodes.REPORT_LUNS, opcodes.REQUEST_SENSE})


def run_now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never suspends, without an event loop. Raises RuntimeError when it does suspend."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coroutine.close()
    raise RuntimeError(f"{coroutine!r} suspended, but there is no event loop to wait in")


class _Run:
    """Consecutive transfers of one kind: their places in the batch, what the volume is asked for, and where they end."""

    __slots__ = ("end", "indexes", "kind", "reads", "writes")

    def __init__(self, start: int) -> None:
        self.kind = _READ
        self.indexes: list[int] = []
        self.reads: list[Extent] = []
        self.writes: list[Write] = []
        self.end = start


class DeviceServer:
    """Executes commands against a volume; a `LogicalUnit`. For one thread; batches may overlap in time.

    Nothing suspends that the volume does not suspend, unless a command must be alone and another is under way.
    `luns` are what REPORT LUNS tells; `limits` what one command may ask for. Raises ValueError for a volume without blocks.
    """

    def __init__(
        self,
        volume: Volume,
        identity: Identity,
        *,
        luns: Callable[[], Sequence[int]] = lambda: (0,),
        limits: BlockLimits | None = None,
        sense_format: SenseFormat = SenseFormat.FIXED,
    ) -> None:
        if not volume.blocks:
            raise ValueError("a logical unit has at least one block")
        self._unit = Unit(volume, identity, limits or default_limits(volume.block_bytes), luns, sense_format)
        self._gate = Gate()

    def raise_unit_attention(self, sense: Sense) -> None:
        """Ends the next command other than INQUIRY, REPORT LUNS and REQUEST SENSE; told once, after those raised before."""
        if sense not in self._unit.attentions:
            self._unit.attentions.append(sense)

    async def execute(self, batch: Sequence[Command]) -> list[Completion]:
        """One completion for each command, in the batch's order, as if they had been executed one after the other."""
        answers = [_GOOD] * len(batch)
        index = 0
        while index < len(batch):
            if batch[index].cdb[:1] in _ALONE_OPCODES:
                async with self._gate.alone():
                    answers[index] = await self._one(batch[index])
                index += 1
                continue
            if not self._gate.enter_now():
                await self._gate.enter()
            try:
                run = self._gather(batch, index, answers)
                if run.indexes:
                    await self._transfer(run, batch, answers)
                elif run.end == index:
                    answers[index] = await self._one(batch[index])
                    run.end += 1
                index = run.end
            finally:
                self._gate.leave()
        return answers

    def _gather(self, batch: Sequence[Command], start: int, answers: list[Completion]) -> _Run:
        """The transfers of one kind from `start` on. Those for which the volume is not needed are answered."""
        unit = self._unit
        block_bytes = unit.volume.block_bytes
        run = _Run(start)
        for index in range(start, len(batch)):
            command = batch[index]
            form = FORMS.get(command.cdb[:1])
            if form is None or unit.attentions or unit.stopped:
                break
            try:
                kind, lba, blocks = admit(unit, form, command.cdb)
                data = command.data_out
                if kind is not _READ and length(data) != blocks * block_bytes:
                    data = front(data, blocks * block_bytes)
            except CheckCondition as refusal:
                answers[index] = self._failed(command, refusal.sense)
            else:
                if not blocks:
                    answers[index] = _done(command, (), 0)
                elif run.indexes and kind is not run.kind:
                    break
                else:
                    run.kind = kind
                    run.indexes.append(index)
                    if kind is _READ:
                        run.reads.append(Extent(lba, blocks))
                    else:
                        run.writes.append(Write(lba, data))
            run.end = index + 1
        return run

    async def _transfer(self, run: _Run, batch: Sequence[Command], answers: list[Completion]) -> None:
        """Has the volume do what was gathered."""
        volume = self._unit.volume
        if run.kind is _READ:
            block_bytes = volume.block_bytes
            found = await volume.read(run.reads)
            for index, extent, data in zip(run.indexes, run.reads, found, strict=True):
                command = batch[index]
                if isinstance(data, CheckCondition):
                    answers[index] = self._failed(command, data.sense)
                elif command.data_in_length == extent.blocks * block_bytes:
                    answers[index] = Completion(_IS_GOOD, data)
                else:
                    answers[index] = _done(command, data, 0)
            return
        results = await volume.write(run.writes, _DURABLE if run.kind is _WRITE_DURABLE else _VOLATILE)
        for index, write, result in zip(run.indexes, run.writes, results, strict=True):
            command = batch[index]
            if result is not None:
                answers[index] = self._failed(command, result.sense)
            elif write.data is not command.data_out:
                answers[index] = _done(command, (), length(write.data))

    async def _one(self, command: Command) -> Completion:
        """Any command, by itself."""
        try:
            return await self._serve(command)
        except CheckCondition as end:
            return self._failed(command, end.sense)

    async def _serve(self, command: Command) -> Completion:
        unit = self._unit
        row = opcodes.find(command.cdb)
        if row is None:
            refuse_if(command.cdb and command.cdb[0] in _OPCODES)  # it is the service action or the length that is wrong
            raise CheckCondition(INVALID_OPCODE)
        if unit.attentions and row not in _WITH_ATTENTION_PENDING:
            raise CheckCondition(unit.attentions.popleft())
        handler = _ALWAYS.get(row)
        if handler is None:
            unit.refuse_if_stopped()
            handler = MEDIUM[row]
        fields = row.layout.decode(command.cdb)
        refuse_if(fields.control or row.layout.unnamed(command.cdb))
        request = Request(fields, command.data_out)
        data = await handler(unit, request)
        allowed = data[: fields.get("allocation", len(data))]
        return _done(command, (allowed,) if allowed else (), request.taken_bytes)

    def _failed(self, command: Command, sense: Sense) -> Completion:
        residual = command.data_in_length or length(command.data_out)
        return Completion(Status.CHECK_CONDITION, (), encode_sense(sense, self._unit.sense_format), residual)


def _done(command: Command, data: Pieces, taken_bytes: int) -> Completion:
    """GOOD, with as much of `data` as the initiator expects; `taken_bytes` of its own data were used."""
    if length(data) > command.data_in_length:
        data = front(data, command.data_in_length)
    left = command.data_in_length - length(data) + length(command.data_out) - taken_bytes
    return Completion(Status.GOOD, data, b"", left)
