"""What a runner in the host kernel asks of the runner outside, who holds the power switches and the cables of the lab.

An errand is a line of the runner's standard output, among the events; its answer is a line of its standard input.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

import msgspec

from hwvirt.lab.process import LabError
from hwvirt.link.faults import LinkFault
from hwvirt.trace import Event

__all__ = ["Answer", "Asked", "Errand", "Outside", "Streamed", "What", "say"]

_INPUT_BYTES = 4096


class What(Enum):
    """What is asked for."""

    CUT = "cut"  # the controller's kernel has no power any more
    STOP = "stop"  # the controller has ended cleanly; its kernel goes on
    START = "start"  # the controller runs again, in a kernel that is booted where it was off
    STRIKE = "strike"  # the fault is at work on the cable; answered when it is (`begun`), and when it is over
    END = "end"  # the strike of this number is over now; not answered itself


class Errand(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing to do. `number` is that of its answer."""

    number: int
    what: What
    controller: str | None = None
    fault: LinkFault | None = None


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Errand `number` is done, or has failed; a strike has hit so many units, or has just `begun`.

    Number 0 answers nothing: `controller` has ended without being asked to.
    """

    number: int
    begun: bool = False
    struck: int = 0
    error: str = ""
    next_step: str = ""
    controller: str = ""


class Asked(NamedTuple):
    """An errand under way: whether it has begun (told of strikes alone), and its answer to come, which may be a LabError."""

    number: int
    begun: asyncio.Future[None]
    answer: asyncio.Future[Answer]


class Streamed(msgspec.Struct, omit_defaults=True):
    """One line from the runner inside: an event, a controller's status, or an errand."""

    event: Event | None = None
    name: str = ""
    status: dict[str, Any] | None = None
    errand: Errand | None = None


_encoder = msgspec.json.Encoder(enc_hook=str)


def say(streamed: Streamed) -> None:
    """Writes one line for the runner outside."""
    sys.stdout.buffer.write(_encoder.encode(streamed) + b"\n")
    sys.stdout.flush()


class Outside:
    """The runner outside, as the one inside sees it, for one asyncio loop. `on_lost` hears who has ended, and how."""

    def __init__(self, on_lost: Callable[[str, str], None], source: int = 0) -> None:
        self._on_lost = on_lost
        self._source = source
        self._numbers = itertools.count(1)
        self._asked: dict[int, Asked] = {}
        self._rest = b""

    def listen(self) -> Callable[[], bool]:
        """Hears answers from now on; the returned function ends it."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._source, self._readable)
        return lambda: loop.remove_reader(self._source)

    def ask(self, what: What, controller: str | None, fault: LinkFault | None = None) -> Asked:
        """Sends somebody on an errand."""
        loop, number = asyncio.get_running_loop(), next(self._numbers)
        asked = self._asked[number] = Asked(number, loop.create_future(), loop.create_future())
        say(Streamed(errand=Errand(number, what, controller, fault)))
        return asked

    def end(self, number: int) -> None:
        """Ends a strike; its answer comes now."""
        say(Streamed(errand=Errand(number, What.END)))

    async def do(self, what: What, controller: str) -> None:
        """An errand from its beginning to its end. Raises LabError."""
        await self.ask(what, controller).answer

    def _readable(self) -> None:
        data = os.read(self._source, _INPUT_BYTES)
        if not data:
            asyncio.get_running_loop().remove_reader(self._source)
            for number in tuple(self._asked):
                self._answered(Answer(number, error="the runner outside has gone."))
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._answered(msgspec.json.decode(line, type=Answer))

    def _answered(self, answer: Answer) -> None:
        if answer.number == 0:
            self._on_lost(answer.controller, answer.error)
            return
        asked = self._asked[answer.number]
        if not asked.begun.done():
            asked.begun.set_result(None)
        if answer.begun:
            return
        del self._asked[answer.number]
        if asked.answer.done():  # nobody waits any more
            return
        if answer.error:
            asked.answer.set_exception(LabError(answer.error, next_step=answer.next_step))
        else:
            asked.answer.set_result(answer)
