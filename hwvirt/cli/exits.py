"""How a command ends: an exit code for the shell, one line for people, never a traceback for what is not a bug."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import ParamSpec

import typer

from hwvirt.errors import ExitCode, HwvirtError

__all__ = ["exits", "output_failed", "ready_standard_streams"]

P = ParamSpec("P")


def exits(command: Callable[P, int]) -> Callable[P, None]:
    """The command, made to end the program with the exit code that it returns or that its error stands for."""

    @wraps(command)
    def ending(*args: P.args, **kwargs: P.kwargs) -> None:
        raise typer.Exit(_code(command, *args, **kwargs))

    return ending


def _code(command: Callable[P, int], *args: P.args, **kwargs: P.kwargs) -> int:
    try:
        code = command(*args, **kwargs)
        sys.stdout.flush()
    except HwvirtError as error:
        return _say(" ".join([str(error), *getattr(error, "__notes__", ())]), error.exit_code)
    except KeyboardInterrupt:
        return _say("interrupted", ExitCode.INTERRUPTED)
    except BrokenPipeError as error:
        return output_failed(error)
    except OSError as error:
        full = error.errno == errno.ENOSPC and error.filename is None
        return output_failed(error) if full else _say(str(error), ExitCode.INFRASTRUCTURE)
    except Exception:  # exit code 1 means a broken property: a bug must not look like one
        with suppress(OSError):
            traceback.print_exc()
        return _say("this is a bug in hwvirt. Please report it with the lines above.", ExitCode.INFRASTRUCTURE)
    return code


def output_failed(error: OSError) -> ExitCode:
    """Says that what should have been printed was not; nothing, as SIGPIPE would, where nobody wanted it."""
    _write_no_more()
    if isinstance(error, BrokenPipeError):
        return ExitCode.UNREAD
    return _say(f"cannot write the output: {error.strerror}. Send it somewhere with room.", ExitCode.INFRASTRUCTURE)


def _write_no_more() -> None:
    """What is still buffered goes nowhere; else the interpreter tries once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(message: str, code: ExitCode) -> ExitCode:
    with suppress(OSError):  # nobody reads that either
        print(f"hwvirt: {message}", file=sys.stderr)
    return code


def ready_standard_streams() -> None:
    """Puts /dev/null where a standard stream is closed: else the next file or disk gets its number, and what is said.

    The programs that this one starts inherit it as they do an open one.
    What the encoding of a stream cannot spell, be it a file name, is written as an escape.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest number that is free
    for name, fd in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(fd, "w"))
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
