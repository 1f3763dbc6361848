"""More inputs than a test has time for, by one command: a seed each, so that one that fails can be had again."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence

__all__ = ["main"]


def main(checks: Sequence[Callable[[random.Random], None]]) -> None:
    """The program INPUTS [FIRST_SEED]: the checks take turns. Prints the seed of an input that fails, and raises."""
    inputs, first_seed = int(sys.argv[1]), int((*sys.argv, "0")[2])
    for number in range(first_seed, first_seed + inputs):
        try:
            checks[number % len(checks)](random.Random(number))
        except BaseException:
            print(f"seed {number}")
            raise
    print(f"{inputs} inputs, nothing found")
