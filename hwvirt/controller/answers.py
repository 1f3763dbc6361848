"""What a peer was answered, so that a request which comes again is not done twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["Answers"]

T = TypeVar("T")


class Answers(dict[int, "asyncio.Future[T]"]):
    """Those that may still be to come, too, by the peer's number of the request, in order; until it asks no more for them.

    For one asyncio loop.
    """

    def settled(self, number: int) -> None:
        """The peer has what it waits for, or waits no more, for all requests up to this number."""
        while self and (oldest := next(iter(self))) <= number:
            del self[oldest]

    @contextmanager
    def coming(self, number: int) -> Iterator[asyncio.Future[T]]:
        """The answer to a new request, to be set inside. What is raised there is told to who waits already, and not kept."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self[number] = answer
        try:
            yield answer
        except BaseException as error:
            self.pop(number, None)
            answer.set_exception(error)
            answer.exception()  # nobody need wait
            raise
