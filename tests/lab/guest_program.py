"""Runs inside a kernel of the lab: `hwvirt` again and again in one process, because to start Python takes a second there.

One command line a line on standard input; one line of JSON each: exit code, standard output, standard error.
"""

from __future__ import annotations

import io
import json
import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout

from hwvirt.cli.main import main

__all__ = ["program"]


def program(arguments: Sequence[str]) -> tuple[object, str, str]:
    """Exit code, standard output and standard error of `hwvirt ARGUMENTS`."""
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["hwvirt", *arguments]
    code: object = None
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
    return code, out.getvalue(), err.getvalue()


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(program(shlex.split(line))), flush=True)
