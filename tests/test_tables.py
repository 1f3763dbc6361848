"""Nothing in a table is cut off, wherever it goes."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable

import pytest

from hwvirt.tables import Fit, plain_table, print_table

WORDS = [f"word{number}" for number in range(40)]
ROWS = [("one", "/dev/" + "x" * 90, "a"), ("[red]two[/] [/three] :smile:", " ".join(WORDS), "b")]


def printed_rows(fit: Fit) -> None:
    table = plain_table("name", "what there is", "mark")
    for row in ROWS:
        table.add_row(*row)
    print_table(table, fit)


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, show: Callable[[], None]) -> str:
    """What a terminal gets."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        show()
        terminal.flush()
        text = os.read(ours, 1 << 16).decode()
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize("fit", Fit)
def test_row_is_one_line_in_a_pipe(fit: Fit, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("FORCE_COLOR", "1")  # colours do not make it a terminal
    printed_rows(fit)
    told = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert [re.split(r"  +", line.strip()) for line in told.splitlines()[1:]] == [list(row) for row in ROWS]


def test_row_runs_on_where_it_is_to_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    told = on_a_terminal(monkeypatch, lambda: printed_rows(Fit.WHOLE))
    assert [re.split(r"  +", line.strip()) for line in told.splitlines()[1:]] == [list(row) for row in ROWS]


def test_cells_break_on_a_narrow_terminal_and_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    told = on_a_terminal(monkeypatch, lambda: printed_rows(Fit.FOLDED))
    assert max(map(len, told.splitlines())) <= 60
    assert told.count("x") == 90
    assert re.findall(r"word\d+", told) == WORDS
