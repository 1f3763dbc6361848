"""The other end of a control socket, for programs that ask and wait: one verb, or the stream of events."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from hwvirt.controller.control import EVENTS, MOST_REQUEST_BYTES, json_object
from hwvirt.errors import ControllerError, ExitCode, HwvirtError, UsageError

__all__ = ["call", "follow"]

_CHUNK_BYTES = 1 << 20
_STOPPED = "controller.stopped"


def call(path: Path, verb: str, arguments: Mapping[str, Any] | None = None, timeout_s: float = 60.0) -> Any:
    """The result of one verb. `events` has none: `follow` it.

    Raises UsageError or ControllerError with the daemon's reason; ControllerError when it does not answer in time, which
    is not asked of a verb that is to `wait`.
    """
    asked = {"verb": verb, **(arguments or {})}
    chunks: list[bytes] = []
    # A commit takes as long as it takes; the end of the controller ends the connection.
    with _asked(path, asked, None if asked.get("wait") else timeout_s) as connection:
        while not (chunks and chunks[-1].endswith(b"\n")):
            chunk = _received(path, connection)
            if not chunk:
                raise ControllerError(f"{path}: the controller closed the connection before it answered.")
            chunks.append(chunk)
    reply = json_object(b"".join(chunks))
    if reply.get("ok"):
        return reply["result"]
    raise _refusal(verb, reply)


def follow(path: Path, arguments: Mapping[str, Any], output: BinaryIO) -> None:
    """Writes every event as a line of JSON, at once, until the controller has stopped.

    Raises UsageError with the daemon's reason; ControllerError when the stream ends and the controller has not said that it
    stopped; BrokenPipeError as soon as nobody can read the output any more, also in silence.
    """
    last, rest = _Line(), b""
    with _asked(path, {"verb": EVENTS, **arguments}, None) as connection:
        while chunk := _received_or_unread(path, connection, output):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                last = _line(path, line)
                if not last.ok:
                    raise _refusal(EVENTS, json_object(line))
                output.write(line + b"\n")
            output.flush()
    if last.name != _STOPPED:
        raise ControllerError(
            f"{path}: the events ended, and the controller did not say that it stopped.",
            next_step="Its own log tells why it ended.",
        )


class _Line(msgspec.Struct):
    """What tells an event from a refusal."""

    name: str = ""
    ok: bool = True


@contextmanager
def _asked(path: Path, request: Mapping[str, Any], timeout_s: float | None) -> Iterator[socket.socket]:
    """A connection on which the request was sent."""
    line = msgspec.json.encode(request)
    if len(line) > MOST_REQUEST_BYTES:
        raise UsageError(
            f"that is a question of {len(line)} bytes, and a controller reads {MOST_REQUEST_BYTES}.",
            next_step="Give it shorter arguments.",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(path))
            connection.sendall(line + b"\n")
        except OSError as error:
            raise _silent(path, error) from error
        yield connection


def _received(path: Path, connection: socket.socket) -> bytes:
    try:
        return connection.recv(_CHUNK_BYTES)
    except OSError as error:
        raise _silent(path, error) from error


def _received_or_unread(path: Path, connection: socket.socket, output: BinaryIO) -> bytes:
    """As `_received`. Raises BrokenPipeError when the other end of the output goes first."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    poll.register(output, 0)  # what has gone is always told, see poll(2)
    for fd, events in poll.poll():
        if fd == output.fileno() and events & (select.POLLERR | select.POLLHUP):
            raise BrokenPipeError
    return _received(path, connection)


def _silent(path: Path, error: OSError) -> ControllerError:
    return ControllerError(
        f"{path}: {error.strerror or error}.", next_step="Is the controller running, and is this its control socket?"
    )


def _refusal(verb: str, reply: Mapping[str, Any]) -> HwvirtError:
    family = UsageError if reply.get("exit_code") == ExitCode.USAGE else ControllerError
    return family(f"{verb}: {reply.get('error')}", next_step=str(reply.get("next_step", "")))


def _line(path: Path, line: bytes) -> _Line:
    try:
        return msgspec.json.decode(line, type=_Line)
    except msgspec.DecodeError as error:
        raise ControllerError(f"{path} sent an event that cannot be read: {error}.") from error
