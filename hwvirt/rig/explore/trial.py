"""What must hold: at every moment between the two machines, and of every world once it has healed, before the judge."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from hwvirt.controller.correlation import CorrelationMap
from hwvirt.controller.ledger import ROW, Kind
from hwvirt.controller.map_journal import MapJournal
from hwvirt.controller.position import MAPPED, ZERO, unpack
from hwvirt.controller.states import State as VolumeState
from hwvirt.controller.store import LocalStore
from hwvirt.digest import block_digests, crc32c
from hwvirt.rig.explore.actions import Act, Action, Schedule
from hwvirt.rig.explore.loop import HandLoop
from hwvirt.rig.explore.machine import FirstFacts, SecondFacts
from hwvirt.rig.explore.memory import BLOCK_BYTES, Image, Loss, MemoryDisk, MemoryJournal
from hwvirt.rig.explore.scenario import Verb
from hwvirt.rig.explore.state import State
from hwvirt.rig.explore.story import Request, Story, history_of
from hwvirt.rig.explore.world import World
from hwvirt.rig.judge.evidence import BlockReader, Evidence, LedgerRow, MapRow, StoreCount, TombRow
from hwvirt.rig.judge.evidence import State as JudgedState
from hwvirt.rig.judge.history import Fate
from hwvirt.rig.judge.judge import judge
from hwvirt.rig.judge.verdict import Outcome
from hwvirt.trace import Trace

__all__ = ["Trial"]

_SILENCES_MOST, _ATTEMPTS_MOST = 3, 8
"""Times that a healing world may wait for nothing, and that A may have to connect or to start."""
_STEPS_MOST = 400
"""More than any of the stories needs to its end."""


class _Entry(NamedTuple):
    """Where a block lies on the second disk."""

    position: int
    generation: int
    sequence: int


class _Row(NamedTuple):
    """Whose block lies at a position."""

    lba: int
    generation: int
    sequence: int
    crc: int


class Trial:
    """Finds what is wrong with states of one world. What it has once examined it knows."""

    def __init__(self, world: World) -> None:
        self.judged = 0
        self._world = world
        self._pairs: dict[tuple[int, int], tuple[str, ...]] = {}
        self._ends: dict[int, tuple[str, ...]] = {}  # by the hash of the state: there are very many
        self._cases: dict[tuple[object, ...], tuple[str, ...]] = {}

    @property
    def settled(self) -> int:
        """How many different states worlds went through to their ends."""
        return len(self._ends)

    def now(self, state: State) -> tuple[str, ...]:
        """What is wrong at this moment: what a controller holds for impossible, and what a power cut now would leave."""
        found = self._pairs.get((state.a, state.b))
        if found is None:
            first, second = self._world.first.facts[state.a], self._world.second.facts[state.b]
            found = self._pairs[state.a, state.b] = (*first.wrong, *second.wrong, *_between(first, second))
        return found

    def healing(self, state: State) -> Schedule:
        """What happens in a world that heals, until something is wrong or it is at its end."""
        actions: list[Action] = []
        acts: Counter[Act] = Counter()
        state = state._replace(faults=0)
        while not self.now(state) and (action := self._world.settling(state)) is not None:
            actions.append(action)
            acts[action.act] += 1
            if _hopeless(acts):
                break
            state = self._world.after(state, action)._replace(faults=0)
        return tuple(actions)

    def in_the_end(self, state: State) -> tuple[str, ...]:
        """What is wrong when everything has healed, all of the story was told, flushed and read back."""
        way: list[int] = []
        acts: Counter[Act] = Counter()
        state = state._replace(faults=0)
        while (found := self._ends.get(hash(state))) is None:
            way.append(hash(state))
            if found := self.now(state):
                break
            action = self._world.settling(state)
            if action is None:
                found = self._judge(state)
                break
            acts[action.act] += 1
            if hopeless := _hopeless(acts):
                found = (hopeless,)
                break
            state = self._world.after(state, action)._replace(faults=0)
        for passed in way:
            self._ends[passed] = found
        return found

    def _judge(self, state: State) -> tuple[str, ...]:
        world = self._world
        if state.asked < len(world.asks):
            return ("a request is never answered",)
        requests = [entry for entry in state.story if isinstance(entry, Request)]
        for request in requests[-len(world.scenario.after) :]:
            if request.fate is not Fate.ACKNOWLEDGED:
                return (f"with everything healed a {request.what.name} fails",)
        first, second = world.first.facts[state.a], world.second.facts[state.b]
        key = (first.map, first.state, first.image.blocks, second.ledger, second.counts, second.image.blocks, state.story)
        if (found := self._cases.get(key)) is None:
            self.judged += 1
            verdicts = judge(self._evidence(first, second, state.story))
            found = self._cases[key] = tuple(
                card.text() for verdict in verdicts if verdict.outcome is Outcome.BROKEN for card in verdict.violations
            )
        return found

    def _evidence(self, first: FirstFacts, second: SecondFacts, story: Story) -> Evidence:
        scenario, baseline = self._world.scenario, self._world.baseline
        operated = any(isinstance(ask.what, Verb) for ask in scenario.asks)
        return Evidence(
            history=history_of(story),
            blocks=scenario.blocks,
            volume=0,
            state=JudgedState(first.state.value),
            map=_map_rows(first.map),
            ledger=_ledger_rows(second.ledger),
            tombstones=_tombstones(second.ledger),
            volumes=frozenset({0}),
            stores=(StoreCount(*second.counts),),
            baseline=block_digests([b"".join(baseline.blocks)], BLOCK_BYTES),
            witnessed=None if operated else (),
            first=_reader(first.image),
            second=_reader(second.image),
        )


def _hopeless(acts: Counter[Act]) -> str:
    if acts[Act.SILENCE] > _SILENCES_MOST or acts[Act.CONNECT] + acts[Act.START] > _ATTEMPTS_MOST:
        return "the link does not come back"
    return "it never comes to rest" if acts.total() > _STEPS_MOST else ""


def _between(first: FirstFacts, second: SecondFacts) -> list[str]:
    found = []
    capacity, free, live, freed = second.counts
    if free + live + freed != capacity or min(second.counts) < 0:
        found.append(f"B does not conserve: free {free} + live {live} + freed {freed} is not {capacity}")
    state, entries = _durable_map(first.image, len(first.map[0]) // 8)
    if state.uses_map:
        rows, blocks = _durable_ledger(second.image), second.image.durable
        for lba, entry in entries:
            row = rows.get(entry.position)
            if row is None or (row.lba, row.generation, row.sequence) != (lba, entry.generation, entry.sequence):
                found.append(
                    f"A's durable map names position {entry.position} of generation {entry.generation} for block {lba}, "
                    "which B's durable ledger does not have"
                )
            elif crc32c(blocks[entry.position]) != row.crc:
                found.append(
                    f"A's durable map names position {entry.position} for block {lba}, where its data is not durable"
                )
    rows = _rows_of(second.ledger)
    for lba, entry in _entries_of(first.map):
        row = rows.get(entry.position)
        if row is not None and row.generation == entry.generation and row.lba != lba:
            found.append(
                f"A's map names position {entry.position} of generation {entry.generation} for block {lba}, "
                f"B gave the same to block {row.lba}"
            )
    return found


@lru_cache(maxsize=100_000)
def _durable_map(image: Image, blocks: int) -> tuple[VolumeState, tuple[tuple[int, _Entry], ...]]:
    """What A would find after a power cut."""
    correlation = CorrelationMap(blocks)
    journal = MapJournal(MemoryJournal(image.after(Loss.ALL)), correlation)
    journal.recover()
    columns = (correlation._positions.tobytes(), correlation._sequences.tobytes())
    return journal.state, tuple(_entries_of(columns))


@lru_cache(maxsize=100_000)
def _durable_ledger(image: Image) -> dict[int, _Row]:
    """What B would find after a power cut."""
    left = image.after(Loss.ALL)
    store = LocalStore(MemoryDisk(left, HandLoop(0), slow=False), MemoryJournal(left), Trace("b"))
    return _rows_of(store.records.rows().tobytes())


def _entries_of(columns: tuple[bytes, bytes]) -> list[tuple[int, _Entry]]:
    positions, sequences = (memoryview(column).cast("Q").tolist() for column in columns)
    entries = []
    for lba, (packed, sequence) in enumerate(zip(positions, sequences, strict=True)):
        if packed >= MAPPED:
            place = unpack(packed)
            entries.append((lba, _Entry(place.lba, place.generation, sequence)))
    return entries


@lru_cache(maxsize=100_000)
def _rows_of(ledger: bytes) -> dict[int, _Row]:
    rows = np.frombuffer(ledger, ROW)
    return {
        position: _Row(lba, generation, sequence, crc)
        for position, generation, crc, lba, sequence, _, kind in rows.tolist()
        if kind == Kind.LIVE
    }


def _map_rows(columns: tuple[bytes, bytes]) -> list[MapRow]:
    positions, sequences = (memoryview(column).cast("Q").tolist() for column in columns)
    placed = [MapRow(lba, 1, entry.position, entry.generation, entry.sequence) for lba, entry in _entries_of(columns)]
    zero = [MapRow(lba, 1, None, 0, sequences[lba]) for lba, packed in enumerate(positions) if packed == ZERO]
    return placed + zero


def _ledger_rows(ledger: bytes) -> list[LedgerRow]:
    rows = np.frombuffer(ledger, ROW).tolist()
    return [
        LedgerRow(position, lba, sequence, generation, crc, volume)
        for position, generation, crc, lba, sequence, volume, kind in rows
        if kind == Kind.LIVE
    ]


def _tombstones(ledger: bytes) -> list[TombRow]:
    rows = np.frombuffer(ledger, ROW).tolist()
    return [
        TombRow(lba, blocks, sequence, volume)
        for blocks, _, _, lba, sequence, volume, kind in rows
        if kind == Kind.TOMBSTONE
    ]


def _reader(image: Image) -> BlockReader:
    return lambda lba, blocks: b"".join(image.blocks[lba : lba + blocks])
