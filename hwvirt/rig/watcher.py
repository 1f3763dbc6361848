"""Who is shown a run."""

from __future__ import annotations

import sys
from typing import Any, Protocol

import msgspec

from hwvirt.trace import Event

__all__ = ["Streamer", "Watcher"]


class Watcher(Protocol):
    """Shows people what goes on. Cheap, and never raises."""

    def handle(self, event: Event) -> None:
        """Something happened."""
        ...

    def status(self, name: str, report: dict[str, Any]) -> None:
        """A controller's newest status."""
        ...

    def tick(self, now: float) -> None:
        """Time has passed."""
        ...


class Streamer:
    """A `Watcher` that passes everything on to a runner outside, a line of JSON each on standard output."""

    def __init__(self) -> None:
        self._encoder = msgspec.json.Encoder(enc_hook=str)

    def handle(self, event: Event) -> None:
        """See `Watcher`."""
        self._say({"event": event})

    def status(self, name: str, report: dict[str, Any]) -> None:
        """See `Watcher`."""
        self._say({"name": name, "status": report})

    def tick(self, now: float) -> None:
        """See `Watcher`: the runner outside has a clock of its own."""

    def _say(self, line: dict[str, Any]) -> None:
        sys.stdout.buffer.write(self._encoder.encode(line) + b"\n")
        sys.stdout.flush()
