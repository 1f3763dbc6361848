"""How a program is told to stop: Ctrl-C, SIGTERM, or the end of the terminal or of the connection that it runs on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["on_end_of_input", "on_stop", "stops_handled"]

_MOST_BYTES = 4096


def _stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that tell it. SIGHUP stays ignored where it is: nohup(1) wishes so."""
    usual = (signal.SIGINT, signal.SIGTERM)
    return usual if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (*usual, signal.SIGHUP)


@contextmanager
def stops_handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Each such signal goes to the handler inside. For the main thread."""
    former = {number: signal.signal(number, handler) for number in _stop_signals()}
    try:
        yield
    finally:
        for number, before in former.items():
            signal.signal(number, before)


def on_stop(stop: Callable[[], object]) -> None:
    """Calls `stop` for each such signal, in the running loop."""
    loop = asyncio.get_running_loop()
    for number in _stop_signals():
        loop.add_signal_handler(number, stop)


def on_end_of_input(stop: Callable[[], object], fd: int = 0) -> None:
    """Calls `stop` once when there is nothing more to read: whoever held the other end of the pipe is no more.

    A file that nobody can wait for, such as /dev/null, has ended already.
    """
    loop = asyncio.get_running_loop()

    def read() -> None:
        if not os.read(fd, _MOST_BYTES):
            loop.remove_reader(fd)
            stop()

    try:
        loop.add_reader(fd, read)
    except PermissionError:  # epoll_ctl(2): the file does not support it
        loop.call_soon(stop)
