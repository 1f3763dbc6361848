"""Walks through everything that can happen in a scenario, breadth first, or at random where that is too much."""

from __future__ import annotations

import gc
import random
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

from hwvirt.rig.explore.actions import Action, Schedule
from hwvirt.rig.explore.coverage import Visits
from hwvirt.rig.explore.scenario import Scenario
from hwvirt.rig.explore.state import State
from hwvirt.rig.explore.trial import Trial
from hwvirt.rig.explore.words import told
from hwvirt.rig.explore.world import World

__all__ = ["Bounds", "Outcome", "Violation", "explore"]

_YOUNG, _OLD = 200_000, 50
"""Nearly everything that is made here stays: the collector need not look for garbage as often as it does by default."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far to go: actions of a schedule, faults in it, and distinct states in all."""

    depth: int
    faults: int
    states: int


@dataclass(frozen=True, slots=True)
class Violation:
    """What must hold and does not, and a shortest schedule that leads there, in words.

    `healing`: what happens behind the schedule by itself, where it only shows while the world heals.
    """

    problems: tuple[str, ...]
    schedule: Schedule
    words: tuple[str, ...]
    healing: tuple[str, ...]


@dataclass(slots=True)
class Outcome:
    """What came out of one scenario. `depth`: every schedule of that many actions was walked through.

    `complete`: there is no state that was not met. `settled` are the states through which worlds healed; `judged` the
    different ends that the judge saw.
    """

    scenario: str
    bounds: Bounds
    seed: int | None = None
    states: int = 0
    transitions: int = 0
    depth: int = 0
    complete: bool = False
    settled: int = 0
    judged: int = 0
    machines: tuple[int, int] = (0, 0)
    elapsed_s: float = 0.0
    violation: Violation | None = None
    visits: Visits = field(default_factory=Visits)


def explore(
    scenario: Scenario, bounds: Bounds, seed: int | None = None, tell: Callable[[Outcome], None] = lambda outcome: None
) -> Outcome:
    """Explores until a violation is found or the bounds are reached.

    `tell` hears at the beginning and from time to time how far it is; what it got stays true after an interruption. Without
    a seed breadth first: the first violation has a shortest schedule. With one by walks of `bounds.depth` actions that are
    chosen at random, until so many states were met.
    """
    outcome = Outcome(scenario.name, bounds, seed)
    with _in_peace(), closing(World(scenario, bounds.faults)) as world:
        search = _Search(world, outcome, tell)
        try:
            if seed is None:
                search.breadth_first()
            else:
                search.at_random(random.Random(seed))
        finally:
            search.count()
    del search, world
    gc.collect()  # hardly any of it was collected before
    return outcome


class _Search:
    def __init__(self, world: World, outcome: Outcome, tell: Callable[[Outcome], None]) -> None:
        self._began = time.monotonic()
        self._trial = Trial(world)
        self._world = world
        self._outcome = outcome
        self._tell = tell
        self._bounds = outcome.bounds
        self._start = world.beginning()
        self._from: dict[State, tuple[State, Action] | None] = {self._start: None}
        outcome.states = 1

    def count(self) -> None:
        """The outcome says how far it is."""
        outcome, world = self._outcome, self._world
        outcome.settled, outcome.judged = self._trial.settled, self._trial.judged
        outcome.machines = len(world.first), len(world.second)
        outcome.visits = world.first.visits + world.second.visits
        outcome.elapsed_s = time.monotonic() - self._began

    def breadth_first(self) -> None:
        """One depth after the other."""
        self._tell(self._outcome)
        if self._is_wrong(self._start):
            return
        edge = [self._start]
        while edge and self._outcome.depth < self._bounds.depth:
            edge = self._beyond(edge)
            if self._outcome.violation or self._is_full():
                return
            self._outcome.depth += 1
        self._outcome.complete = not edge

    def _beyond(self, edge: list[State]) -> list[State]:
        """The new states one action behind those of the edge."""
        found: list[State] = []
        for state in edge:
            for action in self._world.possible(state):
                following = self._after(state, action)
                if following is None:
                    continue
                found.append(following)
                if self._is_wrong(following) or self._is_full():
                    return found
        return found

    def at_random(self, chance: random.Random) -> None:
        """One walk after the other."""
        self._tell(self._outcome)
        stale = 0
        while not self._is_full() and stale < _STALE_MOST:
            state, before = self._start, self._outcome.states
            for _ in range(self._bounds.depth):
                actions = self._world.possible(state)
                if not actions:
                    break
                action = chance.choice(actions)
                known = self._after(state, action) is None
                state = self._world.after(state, action)
                if (not known and self._is_wrong(state)) or self._is_full():
                    return
            stale = 0 if self._outcome.states > before else stale + 1

    def _after(self, state: State, action: Action) -> State | None:
        """The state behind the action, if it is new."""
        self._outcome.transitions += 1
        following = self._world.after(state, action)
        if following in self._from:
            return None
        self._from[following] = state, action
        self._outcome.states += 1
        if self._outcome.states % _TOLD_EVERY == 0:
            self.count()
            self._tell(self._outcome)
        return following

    def _is_full(self) -> bool:
        return self._outcome.states >= self._bounds.states

    def _is_wrong(self, state: State) -> bool:
        problems = self._problems(state)
        if problems:
            self._outcome.violation = self._violation(state)
        return bool(problems)

    def _problems(self, state: State) -> tuple[str, ...]:
        return self._trial.now(state) or self._trial.in_the_end(state)

    def _violation(self, state: State) -> Violation:
        schedule = self._shorter(self._schedule_to(state))
        state = self._behind(schedule) or state
        healing = self._trial.healing(state)
        words = told(self._world, self._start, (*schedule, *healing))
        return Violation(self._problems(state), schedule, tuple(words[: len(schedule)]), tuple(words[len(schedule) :]))

    def _schedule_to(self, state: State) -> Schedule:
        actions: list[Action] = []
        while (way := self._from[state]) is not None:
            state, action = way
            actions.append(action)
        return tuple(reversed(actions))

    def _shorter(self, schedule: Schedule) -> Schedule:
        """The schedule without the actions that it does not need. A walk breadth first has none of these."""
        index = 0
        while index < len(schedule):
            without = schedule[:index] + schedule[index + 1 :]
            if self._goes_wrong(without):
                schedule, index = without, 0
            else:
                index += 1
        return schedule

    def _goes_wrong(self, schedule: Schedule) -> bool:
        state = self._behind(schedule)
        return state is not None and bool(self._problems(state))

    def _behind(self, schedule: Schedule) -> State | None:
        """Where the schedule leads from the start; None: it cannot happen."""
        state = self._start
        for action in schedule:
            if action not in self._world.possible(state):
                return None
            state = self._world.after(state, action)
        return state


_TOLD_EVERY = 500
_STALE_MOST = 1000
"""Walks in a row that meet nothing new: there is hardly anything left."""


@contextmanager
def _in_peace() -> Iterator[None]:
    """Garbage is collected rarely, and a crash may come before a coroutine has begun."""
    thresholds = gc.get_threshold()
    gc.set_threshold(_YOUNG, _OLD, _OLD)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
            yield
    finally:
        gc.set_threshold(*thresholds)
