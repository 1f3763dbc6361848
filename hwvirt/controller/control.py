"""The control socket: one JSON request a line, one JSON reply a line.

The verb `events` streams events until closed, from the newest `last` ones on: a viewer may come late.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from hwvirt.blame import suggestion
from hwvirt.controller.misfit import read_arguments
from hwvirt.errors import ControllerError, HwvirtError, UsageError
from hwvirt.scsi.sense import CheckCondition
from hwvirt.trace import Event, Trace

__all__ = ["EVENTS", "MOST_REQUEST_BYTES", "ControlServer", "Verb", "json_object"]

EVENTS = "events"
"""The verb that has no answer but a stream."""

MOST_REQUEST_BYTES = 1 << 16
"""Of a line with a request, its newline not counted."""

Verb = Callable[[dict[str, Any]], Awaitable[Any]]
_BACKLOG_EVENTS = 4096
_LAST_WORDS_S = 1.0
_encode = msgspec.json.encode
_Queue = asyncio.Queue[Event | None]


class _Following(msgspec.Struct, forbid_unknown_fields=True):
    """What a viewer wants to follow: the newest `last` events and all later ones."""

    last: Annotated[int, Meta(ge=0)] = 0


class ControlServer:
    """Serves verbs on a unix socket that only its owner may open. Remembers the newest events from its making on."""

    def __init__(self, path: Path, verbs: Mapping[str, Verb], trace: Trace) -> None:
        self._path = path
        self._verbs = verbs
        self._trace = trace
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._recent: deque[Event] = deque(maxlen=_BACKLOG_EVENTS)
        self._viewers: dict[asyncio.Task[None], _Queue] = {}
        trace.subscribe(self._remember)

    async def start(self) -> None:
        """Listens. Raises ControllerError when the path cannot be used."""
        _remove_leftover(self._path)
        former = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, self._path, limit=MOST_REQUEST_BYTES)
        except OSError as error:
            raise ControllerError(
                f"control socket {self._path}: {error.strerror or error}.",
                next_step="Give the controller a shorter path in a directory that it may write.",
            ) from error
        finally:
            os.umask(former)

    @property
    def viewers(self) -> int:
        """How many follow the events."""
        return len(self._viewers)

    async def close(self) -> None:
        """Ends every connection and removes the socket. Viewers that read are told what they were not yet told first.

        That is the newest events where there are too many to keep.
        """
        if self._server is not None:
            self._server.close()
        for queue in self._viewers.values():
            _put(queue, None)
        if self._viewers:
            await asyncio.wait(tuple(self._viewers), timeout=_LAST_WORDS_S)
        for connection in tuple(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    def _remember(self, event: Event) -> None:
        self._recent.append(event)
        for queue in self._viewers.values():
            _put(queue, event)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while line := await reader.readline():
                reply = await self._reply(json_object(line))
                if isinstance(reply, _Following):
                    await self._stream(task, writer, reply.last)
                    return
                writer.write(reply + b"\n")
                await writer.drain()
        except (OSError, ValueError, asyncio.CancelledError):
            pass  # the viewer went away, sent a line without end, or the daemon stops
        finally:
            self._connections.discard(task)
            writer.close()

    async def _reply(self, request: dict[str, Any]) -> bytes | _Following:
        """The line that answers, or what is to be streamed instead of one."""
        try:
            answer = await self._answer(request)
            return answer if isinstance(answer, _Following) else _encode({"ok": True, "result": answer})
        except HwvirtError as error:
            return _encode(_refusal(error))
        except CheckCondition as error:
            return _encode(_refusal(ControllerError(f"{error}.")))
        except Exception as error:  # the daemon's own mistake: who asked is told, and hosts are served on
            self._trace.emit("control.failed", verb=str(request.get("verb")), reason=repr(error))
            return _encode(_refusal(ControllerError(f"internal error: {error!r}.", next_step="Please report it.")))

    async def _answer(self, request: dict[str, Any]) -> Any:
        name = request.get("verb")
        if not isinstance(name, str):
            raise UsageError("not a request.", next_step='Send one JSON object a line, like {"verb": "status"}.')
        arguments = {key: value for key, value in request.items() if key != "verb"}
        if name == EVENTS:
            return read_arguments(arguments, _Following)
        verb = self._verbs.get(name)
        if verb is None:
            raise UsageError("unknown verb.", next_step=suggestion(name, sorted([*self._verbs, EVENTS])))
        return await verb(arguments)

    async def _stream(self, task: asyncio.Task[None], writer: asyncio.StreamWriter, last: int) -> None:
        """The newest `last` events and every later one; ends when the server is closed."""
        queue: _Queue = asyncio.Queue(_BACKLOG_EVENTS)
        for past in tuple(self._recent)[-last:] if last else ():
            _put(queue, past)
        self._viewers[task] = queue
        try:
            while (event := await queue.get()) is not None:
                writer.write(_encode(event) + b"\n")
                await writer.drain()
            writer.close()
            await writer.wait_closed()  # it has them, or the loop may end before they are sent
        finally:
            del self._viewers[task]


def _put(queue: _Queue, event: Event | None) -> None:
    if queue.full():  # a viewer that does not read must not cost memory, and the newest tell how it ends
        queue.get_nowait()
    queue.put_nowait(event)


def _remove_leftover(path: Path) -> None:
    """Removes the socket of a controller that was killed, and nothing else. Raises ControllerError for anything else."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ControllerError(f"control socket {path}: there is a file of that name.", next_step="Choose another path.")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(str(path))
    except ConnectionRefusedError:
        path.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ControllerError(
            f"control socket {path}: {error.strerror or error}.", next_step="Choose another path."
        ) from error
    else:
        raise ControllerError(
            f"control socket {path}: a running controller has it.",
            next_step="Stop that controller, or choose another path.",
        )


def _refusal(error: HwvirtError) -> dict[str, Any]:
    return {"ok": False, "error": error.reason, "next_step": error.next_step, "exit_code": int(error.exit_code)}


def json_object(line: bytes) -> dict[str, Any]:
    """The JSON object of a line; empty where it is none."""
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
