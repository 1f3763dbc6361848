"""How a command ends: an exit code for the shell, one line for people, never a traceback for what is not a bug."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import typer

from hwvirt.errors import ExitCode, HwvirtError

__all__ = ["exits", "output_failed"]

P = ParamSpec("P")


def exits(command: Callable[P, ExitCode]) -> Callable[P, None]:
    """The command, made to end the program with the exit code that it returns or that its error stands for."""

    @wraps(command)
    def ending(*args: P.args, **kwargs: P.kwargs) -> None:
        raise typer.Exit(_code(command, *args, **kwargs))

    return ending


def _code(command: Callable[P, ExitCode], *args: P.args, **kwargs: P.kwargs) -> ExitCode:
    try:
        code = command(*args, **kwargs)
        sys.stdout.flush()
    except HwvirtError as error:
        return _say(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _say("interrupted", ExitCode.INTERRUPTED)
    except (BrokenPipeError, SystemExit):  # whoever read our output is gone; rich tells that by SystemExit(1)
        _write_no_more()
        return ExitCode.INTERRUPTED
    except OSError as error:
        full = error.errno == errno.ENOSPC and error.filename is None
        return output_failed(error) if full else _say(str(error), ExitCode.INFRASTRUCTURE)
    except Exception:  # exit code 1 means a broken property: a bug must not look like one
        traceback.print_exc()
        return _say("this is a bug in hwvirt. Please report it with the lines above.", ExitCode.INFRASTRUCTURE)
    return code


def output_failed(error: OSError) -> ExitCode:
    """Says that what should have been printed was not."""
    _write_no_more()
    return _say(f"cannot write the output: {error.strerror}. Send it somewhere with room.", ExitCode.INFRASTRUCTURE)


def _write_no_more() -> None:
    """What is still buffered goes nowhere; else the interpreter tries once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(message: str, code: ExitCode) -> ExitCode:
    print(f"hwvirt: {message}", file=sys.stderr)
    return code
