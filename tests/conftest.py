"""Ctrl-C as in a terminal, whoever starts the tests: background jobs of a shell ignore it, and so do their children."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
