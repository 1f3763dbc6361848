"""The state of a process as a value: everything that is reachable from it, down to where each coroutine waits.

Two processes with one fingerprint go on alike. What is left out only counts or tells: statistics, traces, texts of errors.
Nothing is renamed: sequence numbers, tags, epochs and times are what they are.
"""

from __future__ import annotations

import asyncio
import types
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from hwvirt.buffers import ReceiveBuffer
from hwvirt.link.events import LinkStatistics
from hwvirt.rig.explore.frames import FrameTable
from hwvirt.rig.explore.loop import HandLoop
from hwvirt.rig.explore.process import Process
from hwvirt.trace import Trace

__all__ = ["fingerprint"]


def fingerprint(process: Process) -> int:
    """A number for the state that the process is in; the same for equal states, within one run of Python."""
    walk = _Walk()
    walk.out.append(process.loop.now)
    walk.visit(process.loop.tasks)
    walk.visit(process)
    walk.visit(process.loop.timers())
    walk.visit(process.loop.jobs)
    return hash(tuple(walk.out))


class _Walk:
    """Walks through objects, each once, and writes down what it finds."""

    def __init__(self) -> None:
        self.out: list[object] = []
        self._met: dict[int, int] = {}
        self._kept: list[object] = []

    def visit(self, value: Any) -> None:
        """Writes down what the value is."""
        kind = type(value)
        if kind in _PLAIN:
            self.out.append(value)
        else:
            (_WAYS.get(kind) or _way_of(kind))(self, value)

    def visit_all(self, values: Iterable[Any]) -> None:
        """Writes down what each of the values is."""
        out, plain, ways = self.out, _PLAIN, _WAYS
        for value in values:
            kind = type(value)
            if kind in plain:
                out.append(value)
            else:
                (ways.get(kind) or _way_of(kind))(self, value)

    def rank(self, value: object) -> int:
        """What orders the members of a set, whose places are chance: their own states, without what was met already."""
        aside = _Walk()
        aside._met, aside._kept = self._met.copy(), self._kept.copy()
        aside.visit(value)
        return hash(tuple(aside.out))

    def meets(self, value: object) -> bool:
        """Whether the object is met for the first time; else which one it is has been written down."""
        met = self._met
        number = met.setdefault(id(value), len(met))
        self.out.append(number)
        if number < len(self._kept):
            return False
        self._kept.append(value)  # so that no other object gets its id
        return True


_Way: TypeAlias = Callable[[_Walk, Any], None]


def _nothing(walk: _Walk, value: Any) -> None:
    """Not a part of the state."""


def _kind(walk: _Walk, value: Any) -> None:
    walk.out.append(type(value).__name__)


def _word(walk: _Walk, value: Enum) -> None:
    walk.out.append(value.name)


def _number(walk: _Walk, value: Any) -> None:
    walk.out.append(value.item())


def _bytes(walk: _Walk, value: Any) -> None:
    walk.out.append(bytes(value))


def _column(walk: _Walk, value: Any) -> None:
    walk.out.append(value.tobytes())


def _items(walk: _Walk, value: Any) -> None:
    walk.out.append(len(value))
    walk.visit_all(value)


def _pairs(walk: _Walk, value: dict[Any, Any]) -> None:
    walk.out.append(len(value))
    walk.visit_all(value)
    walk.visit_all(value.values())


def _set(walk: _Walk, value: set[Any]) -> None:
    walk.out.append(len(value))
    walk.visit_all(sorted(value, key=walk.rank) if len(value) > 1 else value)


def _partial(walk: _Walk, value: partial[Any]) -> None:
    walk.visit(value.func)
    walk.visit_all(value.args)


def _method(walk: _Walk, value: types.MethodType) -> None:
    walk.out.append(value.__func__.__qualname__)
    walk.visit(value.__self__)


def _function(walk: _Walk, value: types.FunctionType) -> None:
    walk.out.append(value.__qualname__)
    walk.visit_all(cell.cell_contents for cell in value.__closure__ or ())


def _task(walk: _Walk, value: asyncio.Task[Any]) -> None:
    if not walk.meets(value):
        return
    walk.out.append(value.done())
    if not value.done():
        walk.visit(value.get_coro())
        walk.visit(value._fut_waiter)  # type: ignore[attr-defined]  # what the coroutine waits for in the end
        _callbacks(walk, value)


def _future(walk: _Walk, value: asyncio.Future[Any]) -> None:
    if not walk.meets(value):
        return
    if not value.done():
        walk.out.append("waits")
        walk.visit(getattr(value, "_children", None))  # of a gather
        _callbacks(walk, value)
    elif value.cancelled() or value.exception() is not None:
        walk.out.append("failed")
    else:
        walk.visit(value.result())


def _callbacks(walk: _Walk, value: asyncio.Future[Any]) -> None:
    walk.visit_all(callback for callback, _ in value._callbacks or ())


def _coroutine(walk: _Walk, value: types.CoroutineType[Any, Any, Any]) -> None:
    if walk.meets(value):
        _frame(walk, value.cr_frame)
        walk.visit(value.cr_await)


def _generator(walk: _Walk, value: types.GeneratorType[Any, Any, Any]) -> None:
    if walk.meets(value):
        _frame(walk, value.gi_frame)
        walk.visit(value.gi_yieldfrom)


def _frame(walk: _Walk, frame: types.FrameType | None) -> None:
    if frame is None:
        walk.out.append("over")
        return
    walk.out += (frame.f_code.co_name, frame.f_lasti)
    walk.visit_all(frame.f_locals.values())


def _attributes(walk: _Walk, value: object) -> None:
    if walk.meets(value):
        walk.visit_all(item for name, item in vars(value).items() if name not in _LEFT_OUT)


def _slots(walk: _Walk, value: Any) -> None:
    if walk.meets(value):
        walk.visit_all(getattr(value, name, None) for name in _slots_of(type(value)))


def _frozen(walk: _Walk, value: Any) -> None:
    """A value that never changes is walked through once."""
    known = _FROZEN.get(id(value))
    if known is None:
        inside = _Walk()
        kind = type(value)
        _kind(inside, value)
        inside.visit_all(getattr(value, name) for name in kind.__dataclass_fields__)
        if len(_FROZEN) > _FROZEN_MOST:
            _FROZEN.clear()
        known = _FROZEN[id(value)] = (value, hash(tuple(inside.out)))
    walk.out.append(known[1])


def _unread(walk: _Walk, value: ReceiveBuffer) -> None:
    walk.out.append(bytes(value.unread()))


def _slots_of(kind: type) -> list[str]:
    return [name for base in kind.__mro__ for name in getattr(base, "__slots__", ()) if name != "__weakref__"]


def _way_of(kind: type) -> _Way:
    way = _WAYS[kind] = next((way for base, way in _BASES if issubclass(kind, base)), None) or _way_of_object(kind)
    return way


def _way_of_object(kind: type) -> _Way:
    if not kind.__module__.startswith(("hwvirt.", "asyncio.")):
        return _kind
    parameters = getattr(kind, "__dataclass_params__", None)
    if parameters is not None and parameters.frozen:
        return _frozen
    return _attributes if "__dict__" in dir(kind) else _slots


_LEFT_OUT = frozenset(("scenario", "visits", "asks", "frames", "_process", "_zeroes", "_sessions"))
"""What belongs to the world, never changes, or only counts."""
_PLAIN = frozenset((int, str, bytes, float, bool, type(None)))
_BASES: tuple[tuple[type | tuple[type, ...], _Way], ...] = (
    ((Trace, LinkStatistics, HandLoop, FrameTable, asyncio.Handle), _nothing),
    (BaseException, _kind),
    (Enum, _word),
    (np.generic, _number),
    ((np.ndarray, array, memoryview), _column),
    (bytearray, _bytes),
    ((list, tuple, deque), _items),
    (dict, _pairs),
    ((set, frozenset), _set),
    (partial, _partial),
    (types.MethodType, _method),
    (types.FunctionType, _function),
    (asyncio.Task, _task),
    (asyncio.Future, _future),
    (types.CoroutineType, _coroutine),
    (types.GeneratorType, _generator),
    (ReceiveBuffer, _unread),
)
_WAYS: dict[type, _Way] = {}
_FROZEN: dict[int, tuple[object, int]] = {}
_FROZEN_MOST = 20_000
