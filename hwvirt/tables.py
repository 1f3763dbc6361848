"""Tables for people. Nothing in one is ever cut off, and no text in it is taken for markup."""

from __future__ import annotations

import sys
from enum import Enum

from rich.console import Console
from rich.table import Table

__all__ = ["Fit", "plain_table", "print_table"]

_WIDEST = 100_000


class Fit(Enum):
    """What becomes of a row that is longer than the terminal is wide. In a pipe or a file a row is always one line."""

    WHOLE = "whole"  # it runs on, so that names, numbers and addresses can be copied
    FOLDED = "folded"  # its cells break into lines: for sentences


def plain_table(*headings: str) -> Table:
    """A table without lines, for rows to be added."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def print_table(table: Table, fit: Fit) -> None:
    """Prints the table on stdout."""
    console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
    if fit is Fit.WHOLE or not sys.stdout.isatty():
        wanted = console.measure(table, options=console.options.update_width(_WIDEST)).maximum
        console.width = max(console.width, wanted)
    console.print(table)
