"""The one event seam: whatever happens is emitted here; log, NDJSON, console and JUnit subscribe."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Event", "Trace"]


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `name` is dotted, `layer.what` ("link.up", "step.started"); `at` is UNIX time in seconds."""

    name: str
    at: float
    source: str
    fields: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """One plain line for people."""
        facts = " ".join(f"{key}={value}" for key, value in self.fields.items())
        return f"{self.source:<8} {self.name:<24} {facts}".rstrip()


class Trace:
    """Emits events to subscribers, in order, in the caller's thread. A subscriber must not block."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._subscribers: list[Callable[[Event], None]] = []

    def subscribe(self, subscriber: Callable[[Event], None]) -> Callable[[], None]:
        """Calls `subscriber` for every later event; the returned function ends it."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber) if subscriber in self._subscribers else None

    def emit(self, name: str, /, **fields: Any) -> None:
        """Something happened here and now."""
        self.forward(Event(name, time.time(), self.source, fields))

    def forward(self, event: Event) -> None:
        """Something happened elsewhere: passes on an event of another process as it is."""
        for subscriber in tuple(self._subscribers):
            subscriber(event)
