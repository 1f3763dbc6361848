"""Coroutines without tasks: they begin at once, and go on in the step of the loop that ends what they wait for.

A task costs a step of the loop before it begins and the book-keeping of asyncio; a host with one request in flight waits
for both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["Errand", "begin"]


class Errand:
    """A coroutine that waits for something. `ended` is called when it is over, also when it raised."""

    __slots__ = ("_ended", "_work")

    def __init__(self, work: Coroutine[Any, Any, None], ended: Callable[[Errand], None]) -> None:
        self._work = work
        self._ended = ended

    def wait_for(self, pause: asyncio.Future[Any] | None) -> None:
        """Goes on when `pause`, which the coroutine has yielded, is done; None (as of `sleep(0)`): in the next step."""
        if pause is None:
            asyncio.get_running_loop().call_soon(self._go_on)
        else:
            pause._asyncio_future_blocking = False  # what a task does too: this future was awaited, not merely yielded
            pause.add_done_callback(self._go_on)

    def _go_on(self, _done: object = None) -> None:
        try:
            pause = self._work.send(None)
        except (StopIteration, asyncio.CancelledError):  # cancelled: what it waited for will never be, the loop ends
            self._ended(self)
        except BaseException:
            self._ended(self)
            raise  # to the loop, which tells of it
        else:
            self.wait_for(pause)


def begin(work: Coroutine[Any, Any, None], ended: Callable[[Errand], None]) -> Errand | None:
    """Runs `work` until it first waits. None: it is over; else what goes on with it by itself and ends with `ended`.

    It runs outside of any task: it must not use `asyncio.timeout` or `current_task`, and nobody can cancel it. Raises what
    `work` raises before its first wait.
    """
    try:
        pause = work.send(None)
    except StopIteration:
        return None
    errand = Errand(work, ended)
    errand.wait_for(pause)
    return errand
