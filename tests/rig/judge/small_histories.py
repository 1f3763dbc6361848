"""Small histories of one block: simulated from an atomic register, corrupted, and judged by trying every order."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hwvirt.rig.judge.block import FOREIGN, ZEROED
from hwvirt.rig.judge.history import WRITES, Fate, History, Kind, Operation

LBA = 5
BLOCK_BYTES = 512
ORIGINALS = (FOREIGN, ZEROED)


@dataclass
class Mixture:
    """How often (in percent) a change is an unmap, and a change goes without success."""

    unmap: int = 0
    doubt: int = 0


def simulate(rng: random.Random, operations: int, depth: int, mixture: Mixture) -> list[Operation]:
    """A history that an atomic register really had: each operation takes effect at a random moment between its ends.

    A change without success takes effect before the next change that begins after its failure and succeeds, or never.
    """
    value = rng.choice(ORIGINALS)
    running: list[Operation] = []
    effects: dict[int, int] = {}  # running and applied operation → what a read saw
    doubted: list[Operation] = []  # failed, not yet applied
    done: list[Operation] = []
    moment = 0

    def version(op: Operation) -> int:
        return op.number if op.kind in WRITES else ZEROED

    while len(done) < operations:
        choices = []
        started = len(running) + len(done)
        if len(running) < depth and started < operations:
            choices.append("begin")
        waiting = [op for op in running if op.number not in effects]
        if waiting:
            choices.append("apply")
        if len(waiting) < len(running):
            choices.append("end")
        if any(op.kind != Kind.READ for op in waiting) and rng.randrange(100) < mixture.doubt:
            choices.append("fail")
        if doubted:
            choices.append("haunt")
        match rng.choice(choices):
            case "begin":
                moment += 1
                kind = Kind.READ if rng.randrange(2) else Kind.UNMAP if rng.randrange(100) < mixture.unmap else Kind.WRITE
                running.append(Operation(started + 1, kind, LBA, 1, moment, 0, Fate.IN_DOUBT))
            case "apply":
                op = rng.choice(waiting)
                if op.kind != Kind.READ:
                    value = version(op)
                    doubted = [ghost for ghost in doubted if not op.began > ghost.ended]
                effects[op.number] = value
            case "end":
                op = rng.choice([op for op in running if op.number in effects])
                running.remove(op)
                moment += 1
                seen = (effects[op.number],) if op.kind == Kind.READ else ()
                done.append(op._replace(ended=moment, fate=Fate.ACKNOWLEDGED, seen=seen))
            case "fail":
                op = rng.choice([op for op in waiting if op.kind != Kind.READ])
                running.remove(op)
                moment += 1
                done.append(op._replace(ended=moment, fate=rng.choice((Fate.FAILED, Fate.IN_DOUBT))))
                doubted.append(done[-1])
            case "haunt":
                ghost = doubted.pop(rng.randrange(len(doubted)))
                value = version(ghost)
    return sorted(done)


def corrupted(rng: random.Random, history: Sequence[Operation]) -> list[Operation] | None:
    """One read returns another version than it did."""
    reads = [at for at, op in enumerate(history) if op.kind == Kind.READ]
    versions = {op.number if op.kind in WRITES else ZEROED for op in history if op.kind != Kind.READ} | set(ORIGINALS)
    if not reads:
        return None
    at = rng.choice(reads)
    others = sorted(versions - set(history[at].seen))
    changed = list(history)
    changed[at] = history[at]._replace(seen=(rng.choice(others),))
    return changed


def recorded(history: Sequence[Operation]) -> History:
    """The same operations as a History."""
    record = History(volume=1, seed=1, block_bytes=BLOCK_BYTES)
    for op in history:
        record.replay(op)
    return record


@dataclass(frozen=True)
class _State:
    value: int
    left: frozenset[int]


def explainable(history: Sequence[Operation], *, final: int | None = None) -> bool:
    """Whether some order explains every read, and that the block holds `final` at the end.

    Each operation takes effect within its ends; a change without success at any later moment or never, but before each
    successful change that began after its failure.
    """
    return any(_orders(history, original, final) for original in ORIGINALS)


def _orders(history: Sequence[Operation], original: int, final: int | None) -> bool:
    ops = {op.number: op for op in history}
    end = {op.number: op.ended if op.fate <= Fate.DURABLE else 1 << 40 for op in history}
    seen_states: set[_State] = set()

    def next_ones(left: frozenset[int]) -> Iterator[int]:
        first_end = min((end[number] for number in left), default=0)
        for number in left:
            op = ops[number]
            fenced = any(
                ghost.fate > Fate.DURABLE and 0 < ghost.ended < op.began
                for ghost in (ops[other] for other in left if other != number)
                if op.kind != Kind.READ and op.fate <= Fate.DURABLE
            )
            if op.began < first_end and not fenced:
                yield number

    def walk(state: _State) -> bool:
        if state in seen_states:
            return False
        seen_states.add(state)
        doubtful = {number for number in state.left if ops[number].fate > Fate.DURABLE}
        if doubtful == state.left and final in (None, state.value):
            return True
        if any(walk(replace(state, left=state.left - {number})) for number in doubtful):  # it never happened
            return True
        for number in next_ones(state.left):
            op, left = ops[number], state.left - {number}
            if op.kind == Kind.READ:
                if op.seen == (state.value,) and walk(replace(state, left=left)):
                    return True
            elif walk(_State(op.number if op.kind in WRITES else ZEROED, left)):
                return True
        return False

    return walk(_State(original, frozenset(ops)))
