"""The command that does a run once more: whoever reads it copies it into a shell, in whatever folder he is."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

__all__ = ["replay_command"]

_PROGRAM = "hwvirt"


def replay_command(rig: Path, seed: int) -> str:
    """For a POSIX shell. It names the program in full where the shell would not find this one by its name alone."""
    return shlex.join([*_program(), "run", str(rig.absolute()), "--seed", str(seed)])


def _program() -> list[str]:
    beside = Path(sys.executable).with_name(_PROGRAM)
    if not beside.exists():
        return [sys.executable, "-m", _PROGRAM]
    found = shutil.which(_PROGRAM)
    return [_PROGRAM] if found is not None and Path(found).absolute() == beside else [str(beside)]
