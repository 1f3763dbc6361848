"""`hwvirt ctl`: asks a running controller."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Annotated, Any

import typer

from hwvirt.cli.arguments import SocketPath
from hwvirt.errors import ExitCode, UsageError

__all__ = ["ctl"]


def ctl(
    socket: SocketPath,
    verb: Annotated[str, typer.Argument(metavar="VERB", help="status, map, ledger, events, ...", show_default=False)],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Arguments of the verb.", show_default=False)
    ] = None,
) -> ExitCode:
    """Ask a running controller; the answer is JSON on stdout. With `events`: one JSON event a line, until it stops."""
    from hwvirt.controller.ask import call, follow  # noqa: PLC0415  slow to load
    from hwvirt.controller.control import EVENTS  # noqa: PLC0415  slow to load

    for word in (verb, *(arguments or ())):
        _refuse_no_text(word)
    asked = _arguments(arguments or ())
    if verb == EVENTS:
        with suppress(KeyboardInterrupt):  # a viewer has no verdict
            follow(socket, asked, sys.stdout.buffer)
        return ExitCode.PASSED
    print(json.dumps(call(socket, verb, asked), indent=2))
    return ExitCode.PASSED


def _arguments(texts: Iterable[str]) -> dict[str, Any]:
    """`lun=0` is {"lun": 0}, `name=first` {"name": "first"}: a value is JSON where it can be read as JSON."""
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"{text!r} is no argument; write it like lun=0")
        if key == "verb":
            raise UsageError(f"{text!r} is no argument: the verb stands before them.")
        if key in found:
            raise UsageError(f"{key!r} is given twice.", next_step="Give it once.")
        found[key] = _value(value)
    return found


def _refuse_no_text(word: str) -> None:
    try:
        word.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{word!r} is not UTF-8: JSON cannot carry it.", next_step="Write it in UTF-8.") from None


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_number, parse_float=_number)
    except (ValueError, RecursionError):
        return text


def _number(word: str) -> float:
    number = float(word)
    if not math.isfinite(number):
        raise ValueError(f"{word} is no number of JSON")
    return number
