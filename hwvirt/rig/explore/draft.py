"""What an action makes of a world: a draft of the state that follows."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar, cast

from hwvirt.controller.states import State as VolumeState
from hwvirt.rig.explore import story as tale
from hwvirt.rig.explore.actions import Act, Action
from hwvirt.rig.explore.frames import CLOSED, FrameTable
from hwvirt.rig.explore.machine import FirstFacts, Machine, SecondFacts
from hwvirt.rig.explore.memory import Loss
from hwvirt.rig.explore.process import SILENCE_S, STALL_S, Answer, Input, Side, What
from hwvirt.rig.explore.scenario import Ask, Scenario, Verb
from hwvirt.rig.explore.state import Line, Operating, State, stray
from hwvirt.rig.judge.history import Fate, MarkKind

__all__ = ["Draft", "Parts"]

_Value = TypeVar("_Value")


class Parts(NamedTuple):
    """What the worlds of one scenario have in common. `remembers`: old frames may come back, so they are kept."""

    scenario: Scenario
    asks: tuple[Ask, ...]
    frames: FrameTable
    first: Machine[FirstFacts]
    second: Machine[SecondFacts]
    remembers: bool
    shared: dict[object, object]

    def same(self, value: _Value) -> _Value:
        """The value, as one object for all that are equal: there are many states, and little differs between them."""
        return cast("_Value", self.shared.setdefault(value, value))


class Draft:
    """A state in the making."""

    def __init__(self, parts: Parts, state: State) -> None:
        self._parts = parts
        self._before = state
        self._nodes = {Side.A: state.a, Side.B: state.b}
        self._starts = {Side.A: state.starts_a, Side.B: state.starts_b}
        self._lines = list(state.lines)
        self._former = state.former
        self._story = state.story
        self._asked = state.asked
        self._operating = state.operating

    def state(self, faults: int) -> State:
        """What it has come to."""
        for line in self._lines:
            if line.at_a < 0 and line.at_b < 0 and self._parts.remembers:
                self._former = line
        lines = tuple(line for line in self._lines if line.at_a >= 0 or line.at_b >= 0)
        self._resolve()
        nodes, starts = self._nodes, self._starts
        return State(
            nodes[Side.A],
            nodes[Side.B],
            starts[Side.A],
            starts[Side.B],
            self._parts.same(lines),
            self._former,
            self._parts.same(self._story),
            self._asked,
            self._operating,
            faults,
        )

    def _resolve(self) -> None:
        """A command that nobody knows the end of: when A serves again, the state of its volume tells."""
        first = self._parts.first.facts[self._nodes[Side.A]]
        if self._operating is None or not self._operating.doubtful or not first.serving:
            return
        verb, state = self._operating.verb, first.state
        if state in (VolumeState.OWN, VolumeState.REDIRECTING):
            if (verb is Verb.REDIRECT) == (state is VolumeState.REDIRECTING):
                self._story = tale.marked(self._story, _MARKS[verb])
            self._operating = None

    def happen(self, action: Action) -> None:
        """The action happens."""
        _HAPPEN[action.act](self, action)

    # Actions.

    def _arrive(self, action: Action) -> None:
        line, side = self._lines[action.at], _side(action)
        frame, *rest = line.frames(side)
        self._lines[action.at] = line.with_frames(side, tuple(rest))
        self._receive(action.at, side, frame)

    def _drop(self, action: Action) -> None:
        line, side = self._lines[action.at], _side(action)
        self._lines[action.at] = line.with_frames(side, line.frames(side)[1:])

    def _double(self, action: Action) -> None:
        line, side = self._lines[action.at], _side(action)
        self._receive(action.at, side, line.frames(side)[0])

    def _reorder(self, action: Action) -> None:
        line, side = self._lines[action.at], _side(action)
        one, other, *rest = line.frames(side)
        self._lines[action.at] = line.with_frames(side, (one, *rest))
        self._receive(action.at, side, other)

    def _replay(self, action: Action) -> None:
        side = _side(action)
        frame = stray(self._before, side, self._parts.frames)
        assert frame is not None
        self._receive(action.at, side, frame)

    def _cut(self, action: Action) -> None:
        for at in range(len(self._lines)):
            for side in Side:
                self._break(at, side)
            self._lines[at] = self._lines[at]._replace(to_a=(), to_b=())

    def _half(self, action: Action) -> None:
        self._break(action.at, _side(action))

    def _silence(self, action: Action) -> None:
        self._sleep(SILENCE_S + 0.01)

    def _stall(self, action: Action) -> None:
        self._sleep(STALL_S + 0.1)

    def _crash(self, action: Action) -> None:
        side, loss = _side(action), action.loss or Loss.NOTHING
        for at in range(len(self._lines)):
            self._drop_end(at, side)
        machine = self._parts.first if side is Side.A else self._parts.second
        image = machine.facts[self._nodes[side]].image.after(loss)
        self._starts[side] += 1
        self._nodes[side] = machine.boot(image, self._starts[side])
        if side is Side.A:
            self._story = tale.lost_path(self._story)
            if self._operating is not None:
                self._operating = self._operating._replace(doubtful=True)

    def _connect(self, action: Action) -> None:
        parts, at = self._parts, len(self._lines)
        number_a = parts.first.facts[self._nodes[Side.A]].joined
        number_b = parts.second.facts[self._nodes[Side.B]].joined
        self._lines.append(Line(number_a, number_b))
        self._give(Side.B, Input(What.JOIN, number_b))
        self._give(Side.A, Input(What.JOIN, number_a))
        while not parts.scenario.handshake and (side := self._greeted(at)):
            self._arrive(Action(Act.ARRIVE, side, at))

    def _greeted(self, at: int) -> Side | None:
        """Whose next frame on this connection is the session's own."""
        for side in Side:
            frames = self._lines[at].frames(side)
            if frames and frames[0] != CLOSED and self._parts.frames[frames[0]].of_session:
                return side
        return None

    def _ask(self, action: Action) -> None:
        at, ask = self._asked, self._parts.asks[self._asked]
        self._asked += 1
        number = 0
        if isinstance(ask.what, Verb):
            self._operating = Operating(ask.what)
        else:
            self._story = tale.asked(self._story, ask)
            number = tale.requests(self._story)
        self._give(Side.A, Input(What.ASK, at, number))

    def _finish(self, action: Action) -> None:
        self._give(_side(action), Input(What.FINISH, action.at))

    def _fail_flush(self, action: Action) -> None:
        self._give(Side.B, Input(What.SPOIL, 1))

    def _recover(self, action: Action) -> None:
        self._give(Side.B, Input(What.SPOIL, 0))

    # What actions are made of.

    def _give(self, side: Side, given: Input) -> None:
        """It reaches the process, and what the process does about it reaches the cable and the host."""
        machine = self._parts.first if side is Side.A else self._parts.second
        self._nodes[side], output = machine.step(self._nodes[side], given)
        for plug, frame in output.sent:
            self._send(self._at(side, plug), side.other, frame)
        for plug in output.closed:
            self._drop_end(self._at(side, plug), side)
        for answer in output.answers:
            self._answered(answer)

    def _answered(self, answer: Answer) -> None:
        if answer.number:
            self._story = tale.answered(self._story, answer)
            return
        assert self._operating is not None
        if answer.fate is Fate.FAILED:
            self._operating = self._operating._replace(doubtful=True)
        else:
            self._story = tale.marked(self._story, _MARKS[self._operating.verb])
            self._operating = None

    def _at(self, side: Side, plug: int) -> int:
        return next(at for at, line in enumerate(self._lines) if line.plug(side) == plug)

    def _send(self, at: int, side: Side, frame: int) -> None:
        line = self._lines[at]
        if line.plug(side) >= 0:
            self._lines[at] = line.sent(side, frame, remembered=self._parts.remembers)

    def _receive(self, at: int, side: Side, frame: int) -> None:
        self._give(side, Input(What.ARRIVE, self._lines[at].plug(side), frame))

    def _break(self, at: int, side: Side) -> None:
        if (plug := self._lines[at].plug(side)) >= 0:
            self._drop_end(at, side)
            self._give(side, Input(What.BREAK, plug))

    def _drop_end(self, at: int, side: Side) -> None:
        if self._lines[at].plug(side) >= 0:
            self._lines[at] = self._lines[at].without(side)

    def _sleep(self, seconds: float) -> None:
        for side in Side:
            self._give(side, Input(What.SLEEP, round(seconds * 1000)))


def _side(action: Action) -> Side:
    assert action.side is not None
    return action.side


_MARKS = {Verb.REDIRECT: MarkKind.REDIRECT, Verb.COMMIT: MarkKind.COMMIT, Verb.DISCARD: MarkKind.DISCARD}
_HAPPEN: dict[Act, Callable[[Draft, Action], None]] = {
    Act.ARRIVE: Draft._arrive,
    Act.FINISH: Draft._finish,
    Act.START: Draft._crash,
    Act.CONNECT: Draft._connect,
    Act.ASK: Draft._ask,
    Act.RECOVER: Draft._recover,
    Act.DROP: Draft._drop,
    Act.DOUBLE: Draft._double,
    Act.REORDER: Draft._reorder,
    Act.REPLAY: Draft._replay,
    Act.CUT: Draft._cut,
    Act.HALF: Draft._half,
    Act.SILENCE: Draft._silence,
    Act.STALL: Draft._stall,
    Act.CRASH: Draft._crash,
    Act.FLUSH: Draft._fail_flush,
}
