"""`hwvirt watch`: a running controller seen from outside. It only looks: Ctrl-C ends the view and nothing else."""

from __future__ import annotations

import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TextIO

from hwvirt.console.feed import EventFeed
from hwvirt.console.lines import event_line, status_line, write_line
from hwvirt.console.model import ConsoleModel
from hwvirt.console.screen import LiveMode, Screen, wants_screen
from hwvirt.console.text import clean
from hwvirt.controller.ask import call
from hwvirt.errors import ControllerError, ExitCode

__all__ = ["watch"]

_POLL_EVERY_S = 0.25
_LINE_EVERY_S = 1.0
_FIRST_REPLY_WITHIN_S = 5.0
_REPLY_WITHIN_S = 1.0


def watch(socket_path: Path, stream: TextIO | None = None, live: LiveMode = LiveMode.AUTO) -> ExitCode:
    """Shows the controller behind a control socket until Ctrl-C, which is PASSED: a viewer has no verdict.

    Raises ControllerError when no controller answers there, or when it ends.
    """
    with suppress(KeyboardInterrupt):
        _Viewer(socket_path, sys.stdout if stream is None else stream, live).run()
    return ExitCode.PASSED


class _Viewer:
    def __init__(self, socket_path: Path, stream: TextIO, live: LiveMode) -> None:
        self._socket_path = socket_path
        self._stream = stream
        self._model = ConsoleModel()
        self._name = ""
        self._screen = Screen(stream, self._model) if wants_screen(stream, live) else None
        self._line_at = 0.0

    def run(self) -> None:
        """Ends only by an error or an interruption."""
        self._poll(_FIRST_REPLY_WITHIN_S)
        with closing(EventFeed(self._socket_path)) as feed:
            try:
                if self._screen:
                    self._screen.start(time.time())
                else:
                    self._write_status(time.time())
                while True:
                    self._show(feed)
                    time.sleep(_POLL_EVERY_S)
                    self._poll_again()
            finally:
                if self._screen:
                    self._screen.stop()

    def _show(self, feed: EventFeed) -> None:
        for event in feed.take():
            self._model.apply(event)
            if not self._screen:
                write_line(self._stream, event_line(self._model, event))
        now = time.time()
        if self._screen:
            self._screen.paint(now)
        elif now - self._line_at >= _LINE_EVERY_S:
            self._write_status(now)

    def _write_status(self, now: float) -> None:
        self._line_at = now
        write_line(self._stream, status_line(self._model.controllers[self._name], now))

    def _poll(self, within_s: float) -> None:
        report = call(self._socket_path, "status", timeout_s=within_s)
        self._name = clean(str(report.get("controller", "")) or self._socket_path.stem)
        self._model.status(self._name, report, time.time())

    def _poll_again(self) -> None:
        """A controller that has answered before may be busy, then the view shows its silence; or gone, then that is said."""
        try:
            self._poll(_REPLY_WITHIN_S)
        except ControllerError as error:
            if isinstance(error.__cause__, TimeoutError):
                return
            raise ControllerError(
                f"controller {self._name} is gone: {error.reason}", next_step="Its own log tells why it ended."
            ) from error
