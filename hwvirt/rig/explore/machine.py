"""A process as a machine: states by number, and each step from one to the next taken once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from hwvirt.controller.states import State
from hwvirt.errors import LinkError
from hwvirt.rig.explore.coverage import Visits
from hwvirt.rig.explore.fingerprint import fingerprint
from hwvirt.rig.explore.memory import Image
from hwvirt.rig.explore.process import First, Input, Output, Process, Second
from hwvirt.scsi.sense import COMMUNICATION_TIMEOUT, WRITE_ERROR, CheckCondition

__all__ = ["FirstFacts", "Machine", "SecondFacts"]

_KEPT_ALIVE = 200
"""Processes that wait to go on from where they are; others are made anew and brought there."""
_Facts = TypeVar("_Facts")


class FirstFacts(NamedTuple):
    """What the world sees of A.

    `joined`: connections it had. `failed`: it could not start; `stalling`: requests wait for the link; `map`: its columns.
    """

    image: Image
    joined: int
    jobs: tuple[str, ...]
    wrong: tuple[str, ...]
    serving: bool
    failed: bool
    ready: bool
    stalling: bool
    state: State
    map: tuple[bytes, bytes]
    changed: int

    @classmethod
    def of(cls, process: Process) -> FirstFacts:
        """The facts now."""
        assert isinstance(process, First)
        volume, patient, failure = process.volume, process.side.patient, process.failure
        wrong = [*process.wrong, *process.loop.errors]
        if failure is not None and not _excused(failure):
            wrong.append(f"A cannot start: {failure}")
        return cls(
            process.image(),
            len(process.plugs),
            tuple(job.name for job in process.loop.jobs),
            tuple(wrong),
            process.serving,
            failure is not None,
            patient.ready,
            not patient.ready and any(not waiting.answer.done() for waiting in patient._waiting.values()),
            volume.state,
            (volume.map._positions.tobytes(), volume.map._sequences.tobytes()),
            len(process.disk.changed),
        )


class SecondFacts(NamedTuple):
    """What the world sees of B.

    `ledger`: its rows; `counts`: capacity, free, live and freed blocks; `spoilt`: the next flush of its disk will fail.
    """

    image: Image
    joined: int
    jobs: tuple[str, ...]
    wrong: tuple[str, ...]
    ledger: bytes
    counts: tuple[int, int, int, int]
    spoilt: bool

    @classmethod
    def of(cls, process: Process) -> SecondFacts:
        """The facts now."""
        assert isinstance(process, Second)
        allocator = process.store.allocator
        return cls(
            process.image(),
            len(process.plugs),
            tuple(job.name for job in process.loop.jobs),
            (*process.wrong, *process.loop.errors),
            process.store.records.rows().tobytes(),
            (allocator.capacity, allocator.free, allocator.live, allocator.freed),
            process.disk.fails,
        )


class _Boot(NamedTuple):
    """A state is reached by starting from an image."""

    image: Image
    number: int


class _Step(NamedTuple):
    """A state is reached from one before by what was given there."""

    before: int
    given: Input


class Machine(Generic[_Facts]):
    """All states of one side that were met. `start` makes its process from an image and the number of the start."""

    def __init__(self, start: Callable[[Image, int], Process], facts_of: Callable[[Process], _Facts]) -> None:
        self.facts: list[_Facts] = []
        self.visits: Visits = Visits()
        self.steps_taken = 0
        self._start = start
        self._facts_of = facts_of
        self._numbers: dict[int, int] = {}
        self._ways: list[_Boot | _Step] = []
        self._boots: dict[tuple[Image, int], int] = {}
        self._steps: dict[tuple[int, Input], tuple[int, Output]] = {}
        self._alive: OrderedDict[int, Process] = OrderedDict()

    def __len__(self) -> int:
        return len(self.facts)

    def boot(self, image: Image, number: int) -> int:
        """The state after the start number `number` of a machine that has kept `image`."""
        state = self._boots.get((image, number))
        if state is None:
            state = self._boots[image, number] = self._arrived(self._start(image, number), _Boot(image, number))
        return state

    def step(self, state: int, given: Input) -> tuple[int, Output]:
        """The state that follows, and what the process does on its way there."""
        known = self._steps.get((state, given))
        if known is None:
            process = self._alive.pop(state, None) or self._again(state)
            process.visits = self.visits
            output = process.apply(given)
            self.steps_taken += 1
            known = self._steps[state, given] = (self._arrived(process, _Step(state, given)), output)
        return known

    def _arrived(self, process: Process, way: _Boot | _Step) -> int:
        state = self._numbers.setdefault(fingerprint(process), len(self._ways))
        if state == len(self._ways):
            self._ways.append(way)
            self.facts.append(self._facts_of(process))
        if state in self._alive:
            process.end()
            return state
        self._alive[state] = process
        if len(self._alive) > _KEPT_ALIVE:
            _, oldest = self._alive.popitem(last=False)
            oldest.end()
        return state

    def close(self) -> None:
        """No process of it lives on."""
        while self._alive:
            self._alive.popitem()[1].end()

    def _again(self, state: int) -> Process:
        """A process in this state, made anew by the way on which the state was first reached."""
        inputs: list[Input] = []
        way = self._ways[state]
        while isinstance(way, _Step):
            inputs.append(way.given)
            way = self._ways[way.before]
        process = self._start(way.image, way.number)
        for given in reversed(inputs):
            process.apply(given)
        return process


def _excused(failure: Exception) -> bool:
    """Whether a cable, or B's disk, may keep A from starting like this. What B refuses is told by an event of its own."""
    if isinstance(failure, CheckCondition):
        return failure.sense in (COMMUNICATION_TIMEOUT, WRITE_ERROR)
    return isinstance(failure, LinkError)
