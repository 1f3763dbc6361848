"""The search meets every state once, finds shortest schedules, and goes the same way again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwvirt.rig.explore.actions import Act, Action
from hwvirt.rig.explore.process import Side
from hwvirt.rig.explore.scenario import SCENARIOS, Ask, Fault, Scenario
from hwvirt.rig.explore.search import Bounds, Outcome, explore
from hwvirt.rig.explore.world import World
from hwvirt.rig.judge.history import Kind
from tests.meta.planting import planted
from tests.rig.explore import defects

ONE_WRITE = Scenario(name="one write", story="a write", asks=(Ask(Kind.WRITE, 0),), faults=Fault(0), states=100)


def test_world_without_faults_is_a_line_that_comes_to_its_end() -> None:
    outcome = explore(ONE_WRITE, Bounds(40, 2, 100))
    assert (outcome.states, outcome.transitions, outcome.depth, outcome.complete) == (4, 3, 4, True)
    assert outcome.violation is None
    assert outcome.judged == 1


def test_search_stops_at_its_depth() -> None:
    outcome = explore(ONE_WRITE, Bounds(2, 2, 100))
    assert (outcome.states, outcome.depth, outcome.complete) == (3, 2, False)


def test_search_stops_at_its_number_of_states() -> None:
    outcome = explore(SCENARIOS["write-path"], Bounds(40, 2, 150))
    assert (outcome.states, outcome.complete) == (150, False)


def test_no_schedule_has_more_faults_than_allowed() -> None:
    assert explore(replace(ONE_WRITE, faults=Fault.ALL), Bounds(40, 0, 1000)).states == 4
    one, two = (explore(replace(ONE_WRITE, faults=Fault.CUT), Bounds(40, faults, 1000)) for faults in (1, 2))
    assert one.complete
    assert two.complete
    assert 4 < one.states < two.states


def test_same_search_finds_the_same() -> None:
    def numbers(seed: int | None) -> tuple[int, ...]:
        outcome = explore(SCENARIOS["slow"], Bounds(20, 2, 150), seed)
        return outcome.states, outcome.transitions, outcome.depth, outcome.settled, outcome.judged, *outcome.machines

    assert numbers(None) == numbers(None)
    assert numbers(7) == numbers(7)
    assert numbers(7) != numbers(8)


def test_schedule_that_breadth_first_finds_is_a_shortest_one() -> None:
    scenario = SCENARIOS["late-replies"]
    with planted(defects.reply_of_an_old_epoch):
        violation = explore(scenario, Bounds(40, 2, 4000)).violation
        assert violation is not None
        shorter = explore(scenario, Bounds(len(violation.schedule) - 1, 2, 4000))
    assert (shorter.violation, shorter.depth) == (None, len(violation.schedule) - 1)


def test_schedule_that_chance_finds_has_nothing_that_it_does_not_need() -> None:
    with planted(defects.not_sent_again):
        outcome = explore(SCENARIOS["epoch-change"], Bounds(12, 2, 4000), seed=1)
    assert outcome.violation is not None
    assert [action.act for action in outcome.violation.schedule] == [Act.CRASH]


def test_interrupted_search_has_told_how_far_it_is() -> None:
    told: list[Outcome] = []

    def tell(outcome: Outcome) -> None:
        told.append(outcome)
        if outcome.states >= 500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explore(SCENARIOS["write-path"], Bounds(40, 2, 4000), tell=tell)
    assert told[-1].states == 500
    assert told[-1].visits.total() > 0
    assert told[-1].elapsed_s > 0


@pytest.mark.parametrize("name", ["write-path", "epoch-change"])
def test_every_fault_is_in_reach(name: str) -> None:
    """On the write path and across an epoch change: deliver, drop, duplicate, delay past the deadline, reorder, restart."""
    world = World(SCENARIOS[name])
    edge, seen = [world.beginning()], set()
    for _ in range(5):
        following = set()
        for state in edge:
            actions = world.possible(state)
            seen |= {(action.act, action.side) for action in actions}
            following |= {world.after(state, action) for action in actions}
        edge = sorted(following, key=hash)
    world.close()
    of_a_side = {Act.ARRIVE, Act.DROP, Act.DOUBLE, Act.REORDER, Act.REPLAY, Act.HALF, Act.CRASH}
    assert {(act, side) for act in of_a_side for side in Side} <= seen
    assert {(act, None) for act in (Act.CUT, Act.SILENCE, Act.STALL, Act.ASK, Act.CONNECT)} <= seen


def test_equal_states_are_one() -> None:
    """Two frames on their way to two sides: whichever arrives first, the end is the same."""
    world = World(SCENARIOS["write-path"])
    state = world.beginning()
    for action in (Action(Act.ASK), Action(Act.ASK), Action(Act.ARRIVE, Side.B)):
        state = world.after(state, action)
    to_a, to_b = Action(Act.ARRIVE, Side.A), Action(Act.ARRIVE, Side.B)
    one = world.after(world.after(state, to_a), to_b)
    other = world.after(world.after(state, to_b), to_a)
    world.close()
    assert one == other
