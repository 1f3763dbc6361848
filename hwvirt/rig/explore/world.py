"""One small world: two machines, the cable between them and the host's story, and everything that can happen next.

A state is a value; `World` knows what the numbers in it stand for, and which state follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from hwvirt.controller.states import State as VolumeState
from hwvirt.link.config import Role
from hwvirt.rig.explore import story as tale
from hwvirt.rig.explore.actions import Act, Action
from hwvirt.rig.explore.draft import Draft, Parts
from hwvirt.rig.explore.frames import CLOSED, FrameTable
from hwvirt.rig.explore.machine import FirstFacts, Machine, SecondFacts
from hwvirt.rig.explore.memory import BLOCK_BYTES, Image
from hwvirt.rig.explore.process import First, Second, Side
from hwvirt.rig.explore.scenario import Fault, Scenario, Verb
from hwvirt.rig.explore.state import State, stray
from hwvirt.rig.judge.history import MarkKind

__all__ = ["World"]


class World:
    """The worlds of one scenario, with so many faults at most; without a number, as many as the scenario says."""

    def __init__(self, scenario: Scenario, faults: int | None = None) -> None:
        self.scenario = scenario
        self._budget = scenario.budget if faults is None else faults
        self.frames = FrameTable()
        self.asks = scenario.all_asks
        self._told = len(scenario.before) + len(scenario.asks)
        self.baseline = Image.of([bytes([0x40 + lba]) * BLOCK_BYTES for lba in range(scenario.blocks)])
        start_a = partial(First, "a", Role.CONNECT, scenario, frames=self.frames)
        start_b = partial(Second, "b", Role.LISTEN, scenario, frames=self.frames)
        self.first: Machine[FirstFacts] = Machine(lambda image, boot: start_a(image=image, boot=boot), FirstFacts.of)
        self.second: Machine[SecondFacts] = Machine(lambda image, boot: start_b(image=image, boot=boot), SecondFacts.of)
        remembers = Fault.REPLAY in scenario.faults
        self._parts = Parts(scenario, self.asks, self.frames, self.first, self.second, remembers, {})

    def close(self) -> None:
        """No process of it lives on."""
        self.first.close()
        self.second.close()

    def beginning(self) -> State:
        """A serves hosts, and what stands before the story has been asked and answered."""
        store = Image.of([bytes([0x80 + lba]) * BLOCK_BYTES for lba in range(self.scenario.store_blocks)])
        marks = (MarkKind.REDIRECT,) if self.scenario.initial is VolumeState.REDIRECTING else ()
        state = State(self.first.boot(self.baseline, 1), self.second.boot(store, 1), 1, 1, (), None, marks, 0, None, 0)
        state = self._at_rest(self.after(state, Action(Act.CONNECT)))
        for _ in self.scenario.before:
            state = self._at_rest(self.after(state, Action(Act.ASK)))
        return state

    def _at_rest(self, state: State) -> State:
        """What it comes to when frames arrive and jobs end until there are none."""
        while action := next((action for action in self._usual(state) if action.act in (Act.ARRIVE, Act.FINISH)), None):
            state = self.after(state, action)
        return state

    # What can happen.

    def possible(self, state: State) -> list[Action]:
        """Everything that can happen next, what is usual first."""
        actions = list(self._usual(state))
        if state.faults < self._budget:
            actions += self._faults(state)
        return actions

    def _usual(self, state: State) -> Iterator[Action]:
        first, second = self.first.facts[state.a], self.second.facts[state.b]
        for at, line in enumerate(state.lines):
            if line.to_a:
                yield Action(Act.ARRIVE, Side.A, at)
            if line.to_b:
                yield Action(Act.ARRIVE, Side.B, at)
        for side, jobs in ((Side.A, first.jobs), (Side.B, second.jobs)):
            for at in range(len(jobs)):
                yield Action(Act.FINISH, side, at)
        if first.failed:
            yield Action(Act.START, Side.A)
            return
        if all(line.at_a < 0 for line in state.lines):
            yield Action(Act.CONNECT)
        if first.serving and self._may_ask(state, self._told):
            yield Action(Act.ASK)

    def _may_ask(self, state: State, end: int) -> bool:
        if state.asked >= end:
            return False
        alone = isinstance(self.asks[state.asked].what, Verb) or state.asked >= self._told
        operating = state.operating
        if operating is not None and (alone or operating.verb is not Verb.COMMIT):
            return False
        return len(tale.in_flight(state.story)) < (1 if alone else self.scenario.window)

    def _faults(self, state: State) -> Iterator[Action]:
        allowed = self.scenario.faults
        for at, line in enumerate(state.lines):
            for side, frames in ((Side.A, line.to_a), (Side.B, line.to_b)):
                if not frames or frames[0] == CLOSED:
                    continue
                if Fault.DROP in allowed:
                    yield Action(Act.DROP, side, at)
                if Fault.DOUBLE in allowed:
                    yield Action(Act.DOUBLE, side, at)
                if Fault.REORDER in allowed and len(frames) > 1 and frames[1] != CLOSED:
                    yield Action(Act.REORDER, side, at)
        if state.lines:
            at, line = len(state.lines) - 1, state.lines[-1]
            for side in Side:
                if Fault.REPLAY in allowed and stray(state, side, self.frames) is not None:
                    yield Action(Act.REPLAY, side, at)
                if Fault.HALF in allowed and line.at_a >= 0 and line.at_b >= 0:
                    yield Action(Act.HALF, side, at)
            if Fault.CUT in allowed:
                yield Action(Act.CUT)
            if Fault.SILENCE in allowed:
                yield Action(Act.SILENCE)
        first, second = self.first.facts[state.a], self.second.facts[state.b]
        if Fault.STALL in allowed and first.stalling:
            yield Action(Act.STALL)
        if Fault.FLUSH in allowed and not second.spoilt:
            yield Action(Act.FLUSH)
        if Fault.CRASH_A in allowed:
            for loss in first.image.losses():
                yield Action(Act.CRASH, Side.A, loss=loss)
        if Fault.CRASH_B in allowed:
            for loss in second.image.losses():
                yield Action(Act.CRASH, Side.B, loss=loss)

    def settling(self, state: State) -> Action | None:
        """The next action of a world that heals and tells its story to the end; None when it is at its end, or stuck."""
        if self.second.facts[state.b].spoilt:
            return Action(Act.RECOVER)
        for action in self._usual(state):
            if action.act is not Act.ASK:
                return action
        first = self.first.facts[state.a]
        if first.serving and first.ready and self._may_ask(state, len(self.asks)):
            return Action(Act.ASK)
        idle = not tale.in_flight(state.story) and state.operating is None
        # Else somebody waits for a frame that was lost, or on a connection that the other side has forgotten.
        return None if first.serving and first.ready and idle else Action(Act.SILENCE)

    # What happens.

    def after(self, state: State, action: Action) -> State:
        """The state that follows."""
        draft = Draft(self._parts, state)
        draft.happen(action)
        return draft.state(state.faults + action.is_fault)
