"""The control socket: one JSON request a line, one JSON reply a line; the verb `events` streams events until closed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from hwvirt.errors import ControllerError, HwvirtError
from hwvirt.scsi.sense import CheckCondition
from hwvirt.trace import Event, Trace

__all__ = ["ControlServer", "Verb", "call"]

Verb = Callable[[dict[str, Any]], Awaitable[Any]]
_LINE_BYTES = 1 << 16
_BACKLOG_EVENTS = 4096
_encode = msgspec.json.encode


class ControlServer:
    """Serves verbs on a unix socket that only its owner may open."""

    def __init__(self, path: Path, verbs: Mapping[str, Verb], trace: Trace) -> None:
        self._path = path
        self._verbs = verbs
        self._trace = trace
        self._server: asyncio.Server | None = None
        self._streams: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listens. Raises ControllerError when the path cannot be used."""
        self._path.unlink(missing_ok=True)
        try:
            self._server = await asyncio.start_unix_server(self._serve, self._path, limit=_LINE_BYTES)
        except OSError as error:
            raise ControllerError(
                f"control socket {self._path}: {error.strerror or error}.",
                next_step="Give the controller a shorter path in a directory that it may write.",
            ) from error
        self._path.chmod(0o600)

    async def close(self) -> None:
        """Ends every connection and removes the socket."""
        if self._server is not None:
            self._server.close()
        for stream in tuple(self._streams):
            stream.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            while line := await reader.readline():
                request = _parse(line)
                if request.get("verb") == "events":
                    await self._stream(writer)
                    return
                writer.write(_encode(await self._reply(request)) + b"\n")
                await writer.drain()
        except (OSError, ValueError, asyncio.CancelledError):
            pass  # the viewer went away, sent a line without end, or the daemon stops
        finally:
            self._streams.discard(task)
            writer.close()

    async def _reply(self, request: dict[str, Any]) -> dict[str, Any]:
        verb = self._verbs.get(str(request.get("verb")))
        if verb is None:
            known = ", ".join(sorted([*self._verbs, "events"]))
            return {"ok": False, "error": f"unknown verb {request.get('verb')!r}.", "next_step": f"Known: {known}."}
        try:
            return {"ok": True, "result": await verb({key: value for key, value in request.items() if key != "verb"})}
        except HwvirtError as error:
            return {"ok": False, "error": error.reason, "next_step": error.next_step}
        except (CheckCondition, KeyError, TypeError, ValueError) as error:
            return {"ok": False, "error": f"{request.get('verb')}: {type(error).__name__}: {error}", "next_step": ""}

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        queue: asyncio.Queue[Event] = asyncio.Queue(_BACKLOG_EVENTS)

        def remember(event: Event) -> None:
            if not queue.full():  # a viewer that does not read must not cost memory
                queue.put_nowait(event)

        unsubscribe = self._trace.subscribe(remember)
        try:
            while True:
                event = await queue.get()
                writer.write(_encode(event) + b"\n")
                await writer.drain()
        finally:
            unsubscribe()


def _parse(line: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}


def call(path: Path, verb: str, arguments: Mapping[str, Any] | None = None, timeout_s: float = 60.0) -> Any:
    """The result of one verb. Raises ControllerError with the daemon's reason, or when it does not answer in time."""
    request = _encode({"verb": verb, **(arguments or {})}) + b"\n"
    chunks: list[bytes] = []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            connection.sendall(request)
            while not (chunks and chunks[-1].endswith(b"\n")):
                chunk = connection.recv(1 << 20)
                if not chunk:
                    raise ControllerError(f"{path}: the controller closed the connection before it answered.")
                chunks.append(chunk)
    except OSError as error:
        raise ControllerError(
            f"{path}: {error.strerror or error}.", next_step="Is the controller running, and is this its control socket?"
        ) from error
    reply = _parse(b"".join(chunks))
    if not reply.get("ok"):
        raise ControllerError(f"{verb}: {reply.get('error')}", next_step=str(reply.get("next_step", "")))
    return reply["result"]
