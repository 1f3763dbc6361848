"""Coroutines that begin at once: what never has to wait never costs a task (as Python 3.12's eager tasks)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from functools import partial
from typing import Any

__all__ = ["begin"]


def begin(work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
    """Runs `work` until it first waits. None: it is over; else the task that goes on with it; keep a reference to it.

    The part before the first wait runs outside of a task: it must not use `asyncio.timeout` or `current_task`.
    Raises what `work` raises before its first wait.
    """
    try:
        pause = work.send(None)
    except StopIteration:
        return None
    return asyncio.get_running_loop().create_task(_finish(work, pause))


async def _finish(work: Coroutine[Any, Any, None], pause: Any) -> None:
    await _Rest(work, pause)


class _Rest:
    """A coroutine from its first wait on."""

    def __init__(self, work: Coroutine[Any, Any, None], pause: Any) -> None:
        self._work = work
        self._pause = pause

    def __await__(self) -> Generator[Any, Any, None]:
        pause = self._pause
        while True:
            try:
                value = yield pause
            except BaseException as error:
                resume = partial(self._work.throw, error)
            else:
                resume = partial(self._work.send, value)
            try:
                pause = resume()
            except StopIteration:
                return
