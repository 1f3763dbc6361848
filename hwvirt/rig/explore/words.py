"""Schedules in words: one line for each thing that happened."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from hwvirt.controller.ledger import ROW
from hwvirt.link.messages import (
    Attach,
    Attached,
    Flushed,
    Free,
    LedgerPage,
    Message,
    Placement,
    Read,
    ReadData,
    Refused,
    Slice,
    Unmap,
    Write,
    Written,
)
from hwvirt.rig.explore.actions import Act, Action
from hwvirt.rig.explore.frames import CLOSED
from hwvirt.rig.explore.process import Side
from hwvirt.rig.explore.state import State, stray
from hwvirt.rig.explore.world import World

__all__ = ["told"]


def told(world: World, state: State, schedule: Iterable[Action]) -> list[str]:
    """What each action of the schedule is, from `state` on."""
    lines = []
    for action in schedule:
        lines.append(_sentence(world, state, action))
        state = world.after(state, action)
    return lines


def _sentence(world: World, state: State, action: Action) -> str:
    side = action.side.value if action.side else ""
    match action.act:
        case Act.ARRIVE:
            return f"{side} receives {_next_frame(world, state, action)}"
        case Act.DROP:
            return f"{_next_frame(world, state, action)} to {side} is lost"
        case Act.DOUBLE:
            return f"{side} receives {_next_frame(world, state, action)}, which will arrive once more"
        case Act.REORDER:
            return f"{side} receives {_next_frame(world, state, action, 1)} before {_next_frame(world, state, action)}"
        case Act.REPLAY:
            frame = stray(state, action.side or Side.A, world.frames)
            return f"{side} receives {_frame(world, frame or CLOSED)} of the former connection"
        case Act.FINISH:
            process = world.first if action.side is Side.A else world.second
            node = state.a if action.side is Side.A else state.b
            return f"{process.facts[node].jobs[action.at]} ends at {side}"
        case Act.START:
            return "A, which could not start, is started again"
        case Act.CONNECT:
            return "A connects"
        case Act.ASK:
            return f"the host asks: {world.asks[state.asked].text()}"
        case Act.CUT:
            return "the connection breaks, both sides see it at once, and what was under way is lost"
        case Act.HALF:
            return f"{side} finds the connection broken, the other side does not"
        case Act.SILENCE:
            return "nothing arrives any more, until both sides give the connection up"
        case Act.STALL:
            return "the stall passes"
        case Act.RECOVER:
            return "B's disk flushes again"
        case Act.FLUSH:
            return "the next flush of B's disk will fail"
        case Act.CRASH:
            return f"{side} crashes and starts again, {action.loss.value if action.loss else ''}"


def _next_frame(world: World, state: State, action: Action, index: int = 0) -> str:
    line = state.lines[action.at]
    frames = line.to_a if action.side is Side.A else line.to_b
    older = " on an older connection" if action.at < len(state.lines) - 1 else ""
    return _frame(world, frames[index]) + older


def _frame(world: World, number: int) -> str:
    if number == CLOSED:
        return "the end of the connection"
    frame = world.frames[number]
    return f"{frame.text()}{_detail(frame.message())}"


def _detail(message: Message) -> str:
    match message:
        case Write(_, _, slices, _, _) | Unmap(_, slices):
            return f" of {_slices(slices)}"
        case Written(_, placements):
            return f" at {_places(placements)}"
        case Read(_, placements) | Free(_, placements):
            return f" of {_places(placements)}"
        case ReadData(_, digests, failures):
            return f" with {len(digests)} blocks" + (f" and {len(failures)} failures" if failures else "")
        case Refused(sense, _, reason):
            return f" ({reason or sense})"
        case Attach(_, _, _, sequence):
            return f" with durable sequence {sequence}"
        case Attached(epoch, _, sequence):
            return f" to epoch {epoch:x}, last sequence {sequence}"
        case Flushed(epoch):
            return f" in epoch {epoch:x}"
        case LedgerPage(rows, _):
            return f" with {len(np.frombuffer(b''.join(rows), ROW))} rows"
        case _:
            return ""


def _slices(slices: Iterable[Slice]) -> str:
    return ", ".join(f"block {lba}{_more(lba, blocks)} with sequence {sequence}" for lba, blocks, sequence in slices)


def _places(placements: Iterable[Placement]) -> str:
    return ", ".join(f"position {lba}{_more(lba, blocks)} of generation {of}" for lba, of, blocks in placements)


def _more(first: int, blocks: int) -> str:
    return f" to {first + blocks - 1}" if blocks > 1 else ""
