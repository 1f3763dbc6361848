"""An event loop that moves only when it is told to, in a time that passes only when it is told to.

One loop is one process of the world: to crash it is to drop the loop with everything that waits in it.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from functools import partial
from typing import Any, NamedTuple, cast

from typing_extensions import override

from hwvirt.errors import HwvirtError
from hwvirt.scsi.sense import CheckCondition

__all__ = ["HandLoop", "Job"]

_CALLS_MOST = 20_000
"""More callbacks in a row than any small story needs: whoever reaches it spins."""


class Job(NamedTuple):
    """Something slow that was begun: `finish` ends it, `name` says what it is."""

    name: str
    finish: Callable[[], None]


class HandLoop:
    """The part of an event loop that controllers use, with a clock and a source of chance of its own.

    `salt` makes its numbers differ from those of other loops; the same loop draws the same ones in every run. With
    `slow_jobs`, what is given to an executor waits in `jobs` until somebody finishes it; else it is done at once.
    """

    def __init__(self, salt: int, *, slow_jobs: bool = False) -> None:
        self.now = 1000.0
        self.jobs: list[Job] = []
        self.errors: list[str] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self._salt = salt
        self._drawn = 0
        self._slow_jobs = slow_jobs
        self._ready: deque[tuple[Callable[..., object], tuple[Any, ...], Context | None]] = deque()
        self._timers: list[_Handle] = []
        self._numbered = 0
        self._dead = False

    # What asyncio asks of a loop.

    def time(self) -> float:
        """See `asyncio.AbstractEventLoop`."""
        return self.now

    def get_debug(self) -> bool:
        """See `asyncio.AbstractEventLoop`."""
        return False

    def is_closed(self) -> bool:
        """See `asyncio.AbstractEventLoop`."""
        return self._dead

    def create_future(self) -> asyncio.Future[Any]:
        """See `asyncio.AbstractEventLoop`."""
        return asyncio.Future(loop=self._itself)

    def create_task(self, coro: Any, *, name: object = None, context: Context | None = None) -> asyncio.Task[Any]:
        """See `asyncio.AbstractEventLoop`."""
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self._itself, name="-", context=context)
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # a crash asks nobody to finish
        self.tasks.append(task)
        return task

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
        """See `asyncio.AbstractEventLoop`."""
        if not self._dead:
            self._ready.append((callback, args, context))
        return _NOT_TO_CANCEL

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See `asyncio.AbstractEventLoop`."""
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See `asyncio.AbstractEventLoop`."""
        self._numbered += 1
        handle = _Handle(partial(callback, *args), context, when, self._numbered)
        if not self._dead:
            heapq.heappush(self._timers, handle)
        return handle

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """See `asyncio.AbstractEventLoop`."""
        done = self.create_future()
        work = partial(_finish, done, partial(func, *args))
        if self._slow_jobs and not self._dead:
            self.jobs.append(Job(func.__name__, work))
        else:
            work()
        return done

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """See `asyncio.AbstractEventLoop`."""
        if not self._dead:
            self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")

    @property
    def _itself(self) -> asyncio.AbstractEventLoop:
        return cast("asyncio.AbstractEventLoop", self)  # it has what is needed here

    # What the world asks of it.

    def draw(self, size_bytes: int) -> bytes:
        """What stands for random bytes: a number that never came before in this loop or another."""
        self._drawn += 1
        return (self._salt << 16 | self._drawn << 8).to_bytes(size_bytes, "little")

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Here this loop is the running one, and `time.monotonic` and `os.urandom` are its own."""
        monotonic, urandom = time.monotonic, os.urandom
        vars(time)["monotonic"], vars(os)["urandom"] = self.time, self.draw
        asyncio._set_running_loop(self._itself)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)
            vars(time)["monotonic"], vars(os)["urandom"] = monotonic, urandom

    def run(self) -> None:
        """From `inside`: calls what is due now, and what that makes due, until everybody waits."""
        ready, calls = self._ready, 0
        while ready:
            callback, args, context = ready.popleft()
            try:
                if context is None:
                    callback(*args)
                else:
                    context.run(callback, *args)
            except Exception as error:  # whatever the explored code raises out of a callback is what we look for
                self.errors.append(f"{type(error).__name__}: {error}")
            calls += 1
            if calls > _CALLS_MOST:
                self.errors.append("it never comes to rest")
                ready.clear()
        still = [task for task in self.tasks if not task.done()]
        if len(still) != len(self.tasks):
            self.errors += [text for task in self.tasks if (text := _bug_of(task))]
            self.tasks = still

    def begin(self, work: Coroutine[Any, Any, Any]) -> None:
        """From `inside`: a task, which runs until it waits or is over."""
        self.create_task(work)
        self.run()

    def timers(self) -> list[tuple[float, Callable[[], object]]]:
        """When timers are due, and what they call."""
        return [(handle.due, handle.call) for handle in sorted(self._timers) if not handle.void]

    def sleep(self, seconds: float) -> None:
        """From `inside`: time passes, timer by timer."""
        until = self.now + seconds
        while self._timers and self._timers[0].due <= until:
            handle = heapq.heappop(self._timers)
            if not handle.void:
                self.now = max(self.now, handle.due)
                self._ready.append((handle.call, (), handle.within))
                self.run()
        self.now = until

    def kill(self) -> None:
        """Nothing in this loop ever happens again."""
        self._dead = True
        self._ready.clear()
        self._timers.clear()
        self.jobs.clear()
        tasks, self.tasks = self.tasks, []
        for task in tasks:
            # Closed here and now, so that no garbage collection wakes it in the middle of another world.
            with suppress(Exception, asyncio.CancelledError):
                task.get_coro().close()


class _Handle(asyncio.TimerHandle):
    """A callback that is due, made without what its base class costs."""

    __slots__ = ("call", "due", "number", "void", "within")

    def __init__(self, call: Callable[[], object], within: Context | None, due: float, number: int) -> None:
        self.call, self.within, self.due, self.number = call, within, due, number
        self.void = False

    @override
    def cancel(self) -> None:
        self.void = True

    @override
    def cancelled(self) -> bool:
        return self.void

    @override
    def __lt__(self, other: object) -> bool:
        return isinstance(other, _Handle) and (self.due, self.number) < (other.due, other.number)


def _finish(done: asyncio.Future[Any], work: Callable[[], Any]) -> None:
    try:
        result = work()
    except Exception as error:  # the waiter gets it, as from an executor
        done.set_exception(error)
    else:
        done.set_result(result)


def _bug_of(task: asyncio.Task[Any]) -> str:
    if not task.done() or task.cancelled():
        return ""
    error = task.exception()
    expected = error is None or isinstance(error, HwvirtError | CheckCondition | OSError)
    return "" if expected else f"{type(error).__name__}: {error}"


_NOT_TO_CANCEL = _Handle(lambda: None, None, 0.0, 0)
