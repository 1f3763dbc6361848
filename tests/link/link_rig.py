"""Endpoints over TCP on the loopback interface, with quick deadlines, closed when their test ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import uvloop

from hwvirt.link import messages as m
from hwvirt.link.config import EthernetLink, Identity, LinkLimits, LinkTiming, Role, TlsFiles
from hwvirt.link.endpoint import Endpoint, Responder
from hwvirt.trace import Event, Trace
from hwvirt.units import Deadline
from tests.link.pair import SECRET

__all__ = ["QUICK", "LinkRig", "echo", "play", "soon", "until"]

QUICK = LinkTiming(handshake_s=0.3, ping_s=0.1, silence_s=0.5, first_retry_s=0.01, last_retry_s=0.05)
_LIMITS = LinkLimits()


class LinkRig:
    """Endpoints and servers of one test, all closed at its end."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._endpoints: list[Endpoint] = []

    async def endpoint(
        self,
        role: Role,
        port: int = 0,
        *,
        name: str = "",
        secret: bytes = SECRET,
        limits: LinkLimits = _LIMITS,
        timing: LinkTiming = QUICK,
        peer: str | None = None,
        answer: Callable[[m.Request, Responder], None] | None = None,
        up: Callable[[Endpoint], None] | None = None,
        tls: Mapping[Role, TlsFiles] | None = None,
    ) -> Endpoint:
        name = name or ("a" if role is Role.CONNECT else "b")
        trace = Trace(name)
        trace.subscribe(self.events.append)
        files = tls[role] if tls else None
        link = EthernetLink(role, "127.0.0.1", port, secret, limits, timing, peer=peer, tls=files)
        endpoint = Endpoint(Identity(name, len(self._endpoints) + 1), link, trace)
        endpoint.on_request = answer or echo
        if up is not None:
            endpoint.on_up = lambda peer: up(endpoint)
        self._endpoints.append(endpoint)
        await endpoint.start()
        return endpoint

    async def pair(self, **both: Any) -> tuple[Endpoint, Endpoint]:
        b = await self.endpoint(Role.LISTEN, **both)
        a = await self.endpoint(Role.CONNECT, b.port, **both)
        await asyncio.gather(a.wait_up(soon()), b.wait_up(soon()))
        return a, b

    def told(self, name: str) -> list[Event]:
        return [event for event in self.events if event.name == name]

    async def close(self) -> None:
        for endpoint in self._endpoints:
            await endpoint.close()


def echo(request: m.Request, responder: Responder) -> None:
    match request:
        case m.Write():
            responder.reply(m.Written(1, [m.Placement(0, 1, len(request.digests))]))
        case m.Flush():
            responder.reply(m.Flushed(request.volume))
        case _:
            responder.reply(m.Busy())


def soon() -> Deadline:
    return Deadline.after(10.0)


def play(story: Callable[[LinkRig], Coroutine[Any, Any, None]], run: Callable[..., None] = uvloop.run) -> LinkRig:
    rig = LinkRig()

    async def told() -> None:
        async with asyncio.timeout(20):
            try:
                await story(rig)
            finally:
                await rig.close()

    run(told())
    return rig


async def until(condition: Callable[[], bool]) -> None:
    """Returns when it holds; the test's own deadline bounds it."""
    while not condition():  # noqa: ASYNC110, it is about both endpoints, which share no event
        await asyncio.sleep(0.001)
