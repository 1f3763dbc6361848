"""The console of a run: the live view on a terminal, plain lines elsewhere. Whatever goes wrong here, the run goes on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TextIO

from hwvirt.console.lines import event_line, waiting_line, write_line
from hwvirt.console.model import PROGRESS, ConsoleModel
from hwvirt.console.screen import LiveMode, Screen, wants_screen
from hwvirt.console.summary import summary
from hwvirt.trace import Event

__all__ = ["Console", "LiveMode"]

_PAINT_EVERY_S = 0.2
_SILENCE_S = 5.0


class Console:
    """A subscriber of the run's events. Its methods are cheap, take no lock, and never raise.

    The caller calls `tick` some times a second; between ticks nothing moves. On leaving, the summary is printed.
    """

    def __init__(
        self, stream: TextIO | None = None, live: LiveMode = LiveMode.AUTO, clock: Callable[[], float] = time.time
    ) -> None:
        self.model = ConsoleModel()
        self._stream: TextIO | None = sys.stderr if stream is None else stream
        self._screen = Screen(self._stream, self.model) if wants_screen(self._stream, live) else None
        self._clock = clock
        self._spoke_at = 0.0

    def __enter__(self) -> Self:
        with self._harmless():
            if self._screen:
                self._screen.start(self._clock())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        screen = self._screen
        with self._harmless():
            if screen:
                screen.stop()
        with self._harmless():
            rows = summary(self.model, self._clock()) if self.model.running else []
            if self._screen:
                self._screen.print(rows)
            else:
                self._say(*(row.plain.rstrip() for row in rows))

    def handle(self, event: Event) -> None:
        """Something happened, here or in a controller."""
        with self._harmless():
            self.model.apply(event)
            if self._screen:
                self._screen.paint(self._clock(), _PAINT_EVERY_S)
            elif event.name not in PROGRESS:  # there are many: `tick` tells the newest where it has been silent
                self._say(event_line(self.model, event))
                self._spoke_at = event.at

    def status(self, name: str, report: dict[str, Any]) -> None:
        """A controller's status reply."""
        with self._harmless():
            self.model.status(name, report, self._clock())

    def tick(self, now: float) -> None:
        """Time has passed; `now` is UNIX time. Paints, or breaks a silence of 5 seconds."""
        with self._harmless():
            if self._screen:
                self._screen.paint(now, _PAINT_EVERY_S)
            elif self.model.running and now - self._spoke_at >= _SILENCE_S:
                self._say(waiting_line(self.model, now))
                self._spoke_at = now

    def _say(self, *texts: str) -> None:
        if self._stream is not None:
            for text in texts:
                write_line(self._stream, text)

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """A console that cannot show something must not end a run: it says so and goes on in plain lines, or in silence."""
        try:
            yield
        except Exception as error:
            screen, self._screen = self._screen, None
            try:
                if screen:
                    screen.stop()
                self._say(f"console: {error!r}")
            except (OSError, ValueError):  # nobody listens any more: the stream is closed
                self._stream = None
