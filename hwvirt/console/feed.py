"""The events of a running controller, over its control socket, taken whenever the viewer has time for them."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import msgspec

from hwvirt.controller.control import EVENTS
from hwvirt.errors import ControllerError
from hwvirt.trace import Event

__all__ = ["EventFeed"]

_LAST_EVENTS = 10  # what has just happened is why somebody comes to look
_CHUNK_BYTES = 1 << 16
_CHUNKS_AT_ONCE = 16


class _Line(msgspec.Struct):
    name: str = ""
    at: float = 0.0
    source: str = ""
    fields: dict[str, Any] = {}


class EventFeed:
    """A connection on which the controller was asked for its newest events and all later ones. It never waits."""

    def __init__(self, socket_path: Path) -> None:
        self._socket_path = socket_path
        self._unread = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(str(socket_path))
            self._socket.sendall(msgspec.json.encode({"verb": EVENTS, "last": _LAST_EVENTS}) + b"\n")
        except OSError as error:
            self._socket.close()
            raise ControllerError(f"{socket_path}: {error.strerror or error}.") from error
        self._socket.setblocking(False)

    def take(self) -> list[Event]:
        """What has arrived since the last time; nothing more once the controller has ended."""
        for _ in range(_CHUNKS_AT_ONCE):
            try:
                chunk = self._socket.recv(_CHUNK_BYTES)
            except OSError:  # nothing there yet, or the controller is gone: the next status poll tells which
                break
            if not chunk:
                break
            self._unread += chunk
        *lines, self._unread = self._unread.split(b"\n")
        return [event for text in lines if (event := self._event(text))]

    def close(self) -> None:
        """Ends the stream."""
        self._socket.close()

    def _event(self, text: bytes) -> Event | None:
        """None for a line without a name, such as a refusal of the verb."""
        try:
            told = msgspec.json.decode(text, type=_Line)
        except msgspec.DecodeError as error:
            raise ControllerError(f"{self._socket_path} sent an event that cannot be read: {error}.") from error
        return Event(told.name, told.at, told.source, told.fields) if told.name else None
