"""The terminal: paints the view on its alternate screen and gives it back as it was."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TextIO

from rich.console import Console as RichConsole
from rich.live import Live
from rich.text import Text
from typing_extensions import override

from hwvirt.console.model import ConsoleModel
from hwvirt.console.view import view

__all__ = ["LiveMode", "Screen", "wants_screen"]


class LiveMode(StrEnum):
    """Whether to paint."""

    AUTO = "auto"  # where the stream is a terminal that can
    ALWAYS = "always"
    NEVER = "never"


def wants_screen(stream: TextIO, live: LiveMode) -> bool:
    """Whether to paint on this stream; a dumb terminal, or one without UTF-8, gets plain lines."""
    if live is not LiveMode.AUTO:
        return live is LiveMode.ALWAYS
    able = os.environ.get("TERM", "") not in ("", "dumb", "unknown")
    return able and stream.isatty() and (stream.encoding or "").lower().replace("-", "") == "utf8"


class _Terminal(RichConsole):
    """rich ends the program and takes stdout away when its reader is gone; here that is an error like any other."""

    @override
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


@contextmanager
def _whole() -> Iterator[None]:
    """Ctrl-C waits until the terminal has all of it: what rich was interrupted in would never be taken back."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


class Screen:
    """One view on one terminal. Text is never taken for markup. Painting takes milliseconds: not for every event."""

    def __init__(self, stream: TextIO, model: ConsoleModel) -> None:
        self._model = model
        self._terminal = _Terminal(
            file=stream, force_terminal=True, markup=False, highlight=False, emoji=False, legacy_windows=False
        )
        self._live = Live(
            console=self._terminal,
            screen=True,
            auto_refresh=False,  # a thread would read the model while it changes
            redirect_stdout=False,  # stdout belongs to machines
            redirect_stderr=False,
        )
        self._painted_at = 0.0

    def start(self, now: float) -> None:
        """Takes the terminal."""
        with _whole():
            self._live.start()
        self.paint(now)

    def paint(self, now: float, every_s: float = 0.0) -> None:
        """Shows the model as it is, unless it was painted less than `every_s` ago."""
        if 0 <= now - self._painted_at < every_s:
            return
        self._painted_at = now
        size = self._terminal.size
        picture = view(self._model, now, size.width, size.height)
        with _whole():
            self._live.update(picture, refresh=True)

    def stop(self) -> None:
        """Gives the terminal back. Idempotent."""
        with _whole():
            if self._live.is_started:
                self._terminal.clear()  # what a resized tmux remembers of this screen would show up in the scrollback
            self._live.stop()

    def print(self, rows: Iterable[Text]) -> None:
        """Lines for the scrollback, after `stop`; long ones are wrapped by the terminal, so that they copy as one."""
        for row in rows:
            self._terminal.print(row, soft_wrap=True)
