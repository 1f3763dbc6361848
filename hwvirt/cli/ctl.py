"""`hwvirt ctl`: asks a running controller."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from hwvirt.cli.arguments import SocketPath
from hwvirt.errors import ExitCode, UsageError

__all__ = ["ctl"]


def ctl(
    socket: SocketPath,
    verb: Annotated[str, typer.Argument(metavar="VERB", help="status, map, ledger, ...", show_default=False)],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Arguments of the verb.", show_default=False)
    ] = None,
) -> ExitCode:
    """Ask a running controller; the answer is JSON on stdout."""
    from hwvirt.controller.control import call  # noqa: PLC0415  slow to load

    answer = call(socket, verb, dict(map(_argument, arguments or ())))
    print(json.dumps(answer, indent=2))
    return ExitCode.PASSED


def _argument(text: str) -> tuple[str, Any]:
    """`lun=0` → ("lun", 0), `name=first` → ("name", "first"): the value is JSON where it can be read as JSON."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"{text!r} is no argument; write it like lun=0")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value
