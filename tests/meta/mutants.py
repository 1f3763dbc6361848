"""Deliberately wrong controllers: `python -m tests.meta.mutants NAME CONFIG` is a controller with one thing wrong.

The judge must convict each of them.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

from hwvirt.controller import daemon, link_side
from hwvirt.controller.config_file import load_config
from tests.meta import mutants_of_a, mutants_of_b, mutants_of_ranges, mutants_of_time
from tests.meta.planting import MUTANTS, instead_of, mutant

__all__ = ["MUTANTS", "mutants_of_a", "mutants_of_b", "mutants_of_ranges", "mutants_of_time"]


@mutant
def nothing() -> None:
    """The control: a controller that is right."""


@mutant
def deaf() -> None:
    """SIGTERM is not heard."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    vars(daemon)["on_stop"] = lambda stop: None


@mutant
def wrong_secret() -> None:
    """Controller a has another secret than b."""

    @instead_of(link_side, "_read_secret")
    def read_secret(original: Any, path: Path) -> bytes:
        secret: bytes = original(path)
        return secret[::-1] if load_config(Path(sys.argv[2])).name == "a" else secret


if __name__ == "__main__":
    MUTANTS[sys.argv[1]]()
    # A test that is killed leaves none behind: the end of its pipe ends them.
    sys.exit(daemon.main(Path(sys.argv[2]), until_eof="--until-eof" in sys.argv))
