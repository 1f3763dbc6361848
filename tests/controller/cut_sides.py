"""Two controllers whose link ends at a request of the test's choice, before the request is seen or after it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from hwvirt.controller.config import LinkConfig
from hwvirt.controller.link_side import LinkSide
from hwvirt.controller.service import Answering, Service
from hwvirt.link.errors import LinkDown
from hwvirt.link.messages import Request
from hwvirt.units import Deadline

from .two_sides import TwoSides


class CutSides(TwoSides):
    """`cut_when` is asked about each request that reaches B. True: the session ends there, and `cuts` counts it.

    With `stay_down` nobody listens from then on, until `plug_in`.
    """

    cut_when: Callable[[Request], bool] = staticmethod(lambda request: False)
    answered_first = False
    stay_down = False
    cuts = 0
    was_cut: asyncio.Event

    async def start_b_side(self) -> None:
        self.start_b()
        self.was_cut = asyncio.Event()
        self.boot_b += 1
        self.service = _Cutting(self)
        await self.plug_in()

    async def plug_in(self) -> None:
        """B listens, with the store that it has, and what it remembers."""
        config = LinkConfig("listen", "a", str(self.secret_b), "127.0.0.1", self.port)
        self.side_b = LinkSide("b", config, self.boot_b, self.trace)
        await self.side_b.start({}, self.service)

    async def unplug(self) -> None:
        """The link is gone; B lives."""
        await self.side_b.close()

    async def heal(self) -> None:
        """The link is back after `cut` with `stay_down`."""
        await self.unplug()
        await self.plug_in()
        await self.side_a.patient.wait_ready(Deadline.after(10))

    def cut(self) -> None:
        """The session ends now, for both sides without a word."""
        self.cuts += 1
        self.was_cut.set()
        endpoint = self.side_b.endpoint
        if self.stay_down:
            endpoint._transport._server.close()  # type: ignore[union-attr]  # it listens
        live = endpoint._live
        assert live is not None
        live._port._transport.abort()  # type: ignore[attr-defined]  # it is a TCP port
        live.end(LinkDown("link: cut by the test."))


class _Cutting(Service):
    def __init__(self, sides: CutSides) -> None:
        super().__init__(sides.store, sides.units, sides.trace)
        self._sides = sides

    def on_request(self, message: Request, answering: Answering) -> None:
        cut = self._sides.cut_when(message)
        if not cut or self._sides.answered_first:
            super().on_request(message, answering)
        if cut:
            self._sides.cut()


def on_cut_sides(folder: Path, story: Callable[[CutSides], Awaitable[None]], stall_s: float = 5.0) -> None:
    """Plays the story, in 20 seconds at most."""

    async def run() -> None:
        sides = CutSides(folder, stall_s=stall_s)
        await sides.start()
        try:
            async with asyncio.timeout(20):
                await story(sides)
        finally:
            await sides.stop()
            sides.close()

    uvloop.run(run())


def first(kind: type[Request]) -> Callable[[Request], bool]:
    """True for the first request of that kind from now on."""
    seen: list[Request] = []

    def is_first(request: Request) -> bool:
        seen.extend([request] * isinstance(request, kind))
        return seen == [request]

    return is_first
