"""What the host has asked and was answered, as a value that every state carries."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from hwvirt.rig.explore.memory import BLOCK_BYTES
from hwvirt.rig.explore.process import SEED, Answer
from hwvirt.rig.explore.scenario import Ask, Verb
from hwvirt.rig.judge.history import Fate, History, Kind, MarkKind

__all__ = ["Request", "Story", "answered", "asked", "history_of", "in_flight", "lost_path", "marked", "requests"]


class Request(NamedTuple):
    """One request of the host. `slot`: how many entries the story had when it was answered; -1 while it is not."""

    what: Kind
    lba: int
    blocks: int
    fate: Fate = Fate.IN_DOUBT
    slot: int = -1
    seen: tuple[int, ...] = ()


Story: TypeAlias = tuple[Request | MarkKind, ...]
"""Requests in the order of their beginning, and what happened to the whole volume in between.

A request's number, which is the version of the blocks that it writes, is its place among the requests, counted from 1.
"""


def asked(story: Story, ask: Ask) -> Story:
    """The host asks."""
    assert not isinstance(ask.what, Verb)
    return (*story, Request(ask.what, ask.lba, ask.blocks))


def requests(story: Story) -> int:
    """How many requests there are: the number of the newest."""
    return sum(isinstance(entry, Request) for entry in story)


def marked(story: Story, kind: MarkKind) -> Story:
    """Something happens to the whole volume."""
    return (*story, kind)


def answered(story: Story, answer: Answer) -> Story:
    """The host has its answer."""
    number = 0
    for at, entry in enumerate(story):
        if isinstance(entry, Request):
            number += 1
            if number == answer.number:
                ended = entry._replace(fate=answer.fate, slot=len(story), seen=answer.seen)
                return (*story[:at], ended, *story[at + 1 :])
    raise AssertionError(f"no request {answer.number}")


def in_flight(story: Story) -> list[int]:
    """The numbers of the requests that have no answer."""
    requests = [entry for entry in story if isinstance(entry, Request)]
    return [number for number, request in enumerate(requests, 1) if request.slot < 0]


def lost_path(story: Story) -> Story:
    """A has crashed: what was not flushed may be gone, and what was not answered is in doubt."""
    open_ones = in_flight(story)
    story = marked(story, MarkKind.POWER_CUT)
    for number in open_ones:
        story = answered(story, Answer(number, Fate.IN_DOUBT))
    return story


def history_of(story: Story) -> History:
    """The same as the judge's history: everything in an order that the story allows."""
    history = History(0, SEED, BLOCK_BYTES)
    ends: dict[int, list[tuple[int, Request]]] = {}
    number = 0
    for entry in story:
        if isinstance(entry, Request):
            number += 1
            if entry.slot >= 0:
                ends.setdefault(entry.slot, []).append((number, entry))
    for slot, entry in enumerate(story):
        _end(history, ends.get(slot, ()))
        if isinstance(entry, Request):
            history.begin(entry.what, entry.lba, entry.blocks)
        else:
            history.mark(entry)
    _end(history, ends.get(len(story), ()))
    return history


def _end(history: History, ends: Iterable[tuple[int, Request]]) -> None:
    for number, request in ends:
        history.end(number, request.fate, request.seen)
