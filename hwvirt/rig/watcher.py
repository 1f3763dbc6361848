"""Who is shown a run."""

from __future__ import annotations

from typing import Any, Protocol

from hwvirt.rig.errands import Streamed, say
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

    def handle(self, event: Event) -> None:
        """See `Watcher`."""
        say(Streamed(event=event))

    def status(self, name: str, report: dict[str, Any]) -> None:
        """See `Watcher`."""
        say(Streamed(name=name, status=report))

    def tick(self, now: float) -> None:
        """See `Watcher`: the runner outside has a clock of its own."""
