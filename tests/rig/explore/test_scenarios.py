"""No schedule breaks the controllers, as far as is walked here; `hwvirt explore` walks on."""

from __future__ import annotations

import os

import pytest

from hwvirt.rig.explore.coverage import Happening, cells
from hwvirt.rig.explore.scenario import SCENARIOS
from hwvirt.rig.explore.search import Bounds, explore

STATES = 600


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_holds(name: str) -> None:
    scenario = SCENARIOS[name]
    # The whole walk takes minutes of a machine that does nothing else.
    states = scenario.states if "HWVIRT_MEASURE" in os.environ else STATES
    outcome = explore(scenario, Bounds(scenario.depth, scenario.budget, states))
    assert outcome.violation is None
    assert outcome.complete or outcome.states == states
    assert outcome.depth >= 3
    assert outcome.judged >= 2


@pytest.mark.parametrize("name", ["write-path", "epoch-change"])
def test_scenario_of_the_data_is_walked_far_by_default(name: str) -> None:
    assert SCENARIOS[name].states >= 100_000


def test_handshake_meets_whatever_can_happen_to_it() -> None:
    outcome = explore(SCENARIOS["handshake"], Bounds(40, 2, STATES))
    never = [(role, state) for role, state in cells() if not any(outcome.visits[role, state, what] for what in Happening)]
    assert never == []
