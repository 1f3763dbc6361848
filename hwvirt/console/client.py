"""Asks a running controller over its control socket: JSON lines, one request and its reply, or a stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from hwvirt.errors import ControllerError
from hwvirt.trace import Event

__all__ = ["ask", "events"]

_LINE_BYTES = 1 << 22


class _Reply(msgspec.Struct):
    ok: bool
    result: Any = None
    error: str = ""
    next_step: str = ""


class _EventLine(msgspec.Struct):
    name: str = ""
    at: float = 0.0
    source: str = ""
    fields: dict[str, Any] = {}


async def ask(socket_path: Path, verb: str) -> Any:
    """The result of a verb. Raises ControllerError when there is no controller, no reply, or one that says no."""
    async with _request(socket_path, verb) as reader:
        text = await reader.readline()
    if not text:
        raise ControllerError(f"the controller at {socket_path} closed its control socket without a reply.")
    try:
        reply = msgspec.json.decode(text, type=_Reply)
    except msgspec.DecodeError as error:
        raise ControllerError(f"what listens at {socket_path} is no controller: {error}.") from error
    if not reply.ok:
        raise ControllerError(reply.error, next_step=reply.next_step)
    return reply.result


async def events(socket_path: Path) -> AsyncIterator[Event]:
    """Events as they happen, until the controller ends; lines without a name are passed over. Raises ControllerError."""
    async with _request(socket_path, "events") as reader:
        while text := await reader.readline():
            try:
                told = msgspec.json.decode(text, type=_EventLine)
            except msgspec.DecodeError as error:
                raise ControllerError(f"{socket_path} sent an event that cannot be read: {error}.") from error
            if told.name:
                yield Event(told.name, told.at, told.source, told.fields)


@asynccontextmanager
async def _request(socket_path: Path, verb: str) -> AsyncIterator[asyncio.StreamReader]:
    """Connects, asks, and closes at the end; the errors of a socket become ControllerError."""
    try:
        reader, writer = await asyncio.open_unix_connection(socket_path, limit=_LINE_BYTES)
        try:
            writer.write(msgspec.json.encode({"verb": verb}) + b"\n")
            yield reader
        finally:
            writer.close()
    except FileNotFoundError as error:
        raise _absent(socket_path, "there is no such socket") from error
    except OSError as error:
        raise _absent(socket_path, (error.strerror or str(error)).lower()) from error


def _absent(socket_path: Path, reason: str) -> ControllerError:
    return ControllerError(
        f"no controller answers at {socket_path}: {reason}.",
        next_step="Start one with `hwvirt up RIG`, which prints the socket of each controller.",
    )
