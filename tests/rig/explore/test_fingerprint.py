"""A fingerprint is a state: equal ways lead to equal ones, whatever differs in what comes next differs in it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from hwvirt.link.config import Role
from hwvirt.rig.explore.fingerprint import fingerprint
from hwvirt.rig.explore.frames import FrameTable
from hwvirt.rig.explore.memory import BLOCK_BYTES, Image
from hwvirt.rig.explore.process import First, Input, Process, Second, What
from hwvirt.rig.explore.scenario import SCENARIOS

SCENARIO = SCENARIOS["write-path"]
DISK = Image.of([bytes(BLOCK_BYTES)] * 6)


class Pair:
    """Both sides over a cable that delivers everything at once."""

    def __init__(self) -> None:
        frames = FrameTable()
        self.a = First("a", Role.CONNECT, SCENARIO, Image.of([bytes(BLOCK_BYTES)] * 2), 1, frames)
        self.b = Second("b", Role.LISTEN, SCENARIO, DISK, 1, frames)
        self.give(self.b, Input(What.JOIN, 0))
        self.give(self.a, Input(What.JOIN, 0))

    def give(self, process: Process, given: Input) -> None:
        other = self.b if process is self.a else self.a
        for _, frame in process.apply(given).sent:
            self.give(other, Input(What.ARRIVE, 0, frame))

    def ask(self, at: int, number: int) -> None:
        self.give(self.a, Input(What.ASK, at, number))

    def prints(self) -> tuple[int, int]:
        return fingerprint(self.a), fingerprint(self.b)

    def end(self) -> None:
        self.a.end()
        self.b.end()


@pytest.fixture
def pairs() -> Iterator[tuple[Pair, Pair]]:
    both = Pair(), Pair()
    yield both
    for pair in both:
        pair.end()
    gc.collect()


def test_equal_ways_lead_to_equal_states(pairs: tuple[Pair, Pair]) -> None:
    one, other = pairs
    assert one.a.serving
    assert one.prints() == other.prints()
    for at in range(4):
        one.ask(at, at + 1)
        other.ask(at, at + 1)
        assert one.prints() == other.prints()


def test_every_step_is_another_state(pairs: tuple[Pair, Pair]) -> None:
    one, _ = pairs
    met = {one.prints()}
    for at in range(4):
        one.ask(at, at + 1)
        met.add(one.prints())
    assert len(met) == 5


def test_data_alone_makes_a_difference(pairs: tuple[Pair, Pair]) -> None:
    one, other = pairs
    one.ask(0, 1)
    other.ask(0, 2)
    assert one.prints()[0] != other.prints()[0]
    assert one.prints()[1] != other.prints()[1]


def test_where_a_coroutine_waits_makes_a_difference(pairs: tuple[Pair, Pair]) -> None:
    one, other = pairs
    one.a.apply(Input(What.ASK, 0, 1))
    assert one.prints()[0] != other.prints()[0]


def test_time_makes_a_difference_and_statistics_make_none(pairs: tuple[Pair, Pair]) -> None:
    one, other = pairs
    one.a.endpoint.statistics.corrupt += 1
    assert one.prints() == other.prints()
    one.a.apply(Input(What.SLEEP, 100))
    assert one.prints()[0] != other.prints()[0]
