"""The runner's side of a control socket: verbs, the event stream into the run's trace, the newest status."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from hwvirt.controller.control import EVENTS
from hwvirt.errors import ControllerError
from hwvirt.trace import Event, Trace
from hwvirt.units import Deadline

__all__ = ["ControlClient", "ControllerGone"]

_LINE_BYTES = 1 << 26
_RETRY_S = 0.02
_LAST_EVENTS = 4096  # all: it may have said much before its socket was found
_LAST_WORDS_S = 5.0


class ControllerGone(ControllerError):
    """A controller does not answer any more: it ends, or has ended."""


class ControlClient:
    """One controller's control socket, at a path or HOST:PORT, for one asyncio loop. `wait_ready` connects, also anew."""

    def __init__(self, name: str, address: str, trace: Trace, *, retry_s: float = _RETRY_S) -> None:
        self.name = name
        self.last_status: dict[str, Any] = {}
        self.address = address
        self._trace = trace
        self._retry_s = retry_s
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._events: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def wait_ready(self, deadline: Deadline) -> None:
        """Returns when the controller says that it serves hosts. Raises ControllerError at the deadline."""
        while not deadline.expired:
            try:
                if self._streams is None:
                    self._streams = await self._connect()
                if self._events is None:
                    self._events = asyncio.get_running_loop().create_task(self._follow())
                if (await self.status(deadline.remaining))["ready"]:
                    return
            except (OSError, ControllerError):
                await self.close()
            await asyncio.sleep(self._retry_s)  # a starting process announces nothing before its socket is there
        raise ControllerError(f"controller {self.name} did not become ready in time.")

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if "/" in self.address:
            return await asyncio.open_unix_connection(self.address, limit=_LINE_BYTES)
        host, _, port = self.address.rpartition(":")
        return await asyncio.open_connection(host, int(port), limit=_LINE_BYTES)

    async def status(self, within_s: float | None = None) -> dict[str, Any]:
        """Asks for the status and remembers it. Raises ControllerError when no answer comes within that time."""
        try:
            async with asyncio.timeout(within_s):
                self.last_status = dict(await self.call("status"))
        except TimeoutError:
            raise ControllerError(f"controller {self.name} has not answered for {within_s:.0f} s.") from None
        return self.last_status

    async def call(self, verb: str, **arguments: Any) -> Any:
        """The result of one verb that is answered at once. Raises ControllerError with the controller's reason.

        One that is given up ends the connection for verbs: its answer must not be taken for the next one's.
        """
        async with self._turn:
            if self._streams is None:
                raise ControllerGone(f"controller {self.name} is not running.")
            try:
                return await self._ask(self._streams, verb, arguments)
            except asyncio.CancelledError:
                self._hang_up()  # and not `close`: what the controller still has to say is heard to its end
                raise

    async def call_long(self, verb: str, **arguments: Any) -> Any:
        """As `call`, for what takes its time: whoever asks for anything else meanwhile does not wait for it."""
        try:
            streams = await self._connect()
        except OSError as error:
            raise ControllerGone(f"controller {self.name}: {error.strerror}.") from error
        try:
            return await self._ask(streams, verb, arguments)
        finally:
            streams[1].close()

    async def _ask(
        self, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], verb: str, arguments: dict[str, Any]
    ) -> Any:
        reader, writer = streams
        if writer.is_closing():  # to write would be an error that nobody expects
            raise ControllerGone(f"controller {self.name} closed its control socket.")
        writer.write(msgspec.json.encode({"verb": verb, **arguments}) + b"\n")
        try:
            line = await reader.readline()
        except OSError as error:
            raise ControllerGone(f"controller {self.name}: {error.strerror}.") from error
        if not line.endswith(b"\n"):  # nothing, or as much of a reply as got out before the process ended
            raise ControllerGone(f"controller {self.name} closed its control socket.")
        reply = msgspec.json.decode(line)
        if not reply["ok"]:
            raise ControllerError(f"controller {self.name}: {verb}: {reply['error']}", next_step=reply["next_step"])
        return reply["result"]

    async def pages(self, verb: str, **arguments: Any) -> list[list[Any]]:
        """All rows of a verb that answers in pages."""
        rows: list[list[Any]] = []
        after: int | None = 0
        while after is not None:
            page = await self.call(verb, after=after, **arguments)
            rows += page["rows"]
            after = page["next"]
        return rows

    async def _follow(self) -> None:
        reader, writer = await self._connect()
        try:
            writer.write(msgspec.json.encode({"verb": EVENTS, "last": _LAST_EVENTS}) + b"\n")
            while line := await reader.readline():
                self._trace.forward(msgspec.json.decode(line, type=Event))
        except (OSError, ValueError):
            pass  # the controller is gone: whoever waits for it is told by its process
        finally:
            writer.close()

    async def ended(self) -> None:
        """The controller is gone: takes what it said last, then closes."""
        if self._events is not None:
            await asyncio.wait([self._events], timeout=_LAST_WORDS_S)
        await self.close()

    async def close(self) -> None:
        """Ends the connections. Idempotent."""
        events, self._events = self._events, None
        self._hang_up()
        if events is not None:
            events.cancel()
            await asyncio.gather(events, return_exceptions=True)

    def _hang_up(self) -> None:
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()
