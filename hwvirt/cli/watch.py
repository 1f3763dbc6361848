"""`hwvirt watch`: live status of a running controller."""

from __future__ import annotations

from hwvirt.cli.arguments import SocketPath
from hwvirt.errors import ExitCode

__all__ = ["watch"]


def watch(socket: SocketPath) -> ExitCode:
    """Watch a running controller until it ends or Ctrl-C."""
    from hwvirt.console.watch import watch as watch_socket  # noqa: PLC0415  slow to load

    return watch_socket(socket)
