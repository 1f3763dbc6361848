"""What is proven so far, property by property."""

from __future__ import annotations

from rich.text import Text

from hwvirt.console.facts import Verdict
from hwvirt.console.model import PROPERTIES, ConsoleModel
from hwvirt.console.text import compact, line, number, spread

__all__ = ["verdict_rows", "verdict_table"]


def verdict_table(model: ConsoleModel, width: int) -> list[Text]:
    """One line for each property."""
    rows = []
    for name in _names(model):
        verdict = model.verdicts.get(name)
        rows.append(spread(line(_mark(verdict), " ", (name, "" if verdict else "dim")), _told(verdict), width))
    return rows


def verdict_rows(model: ConsoleModel, width: int) -> list[Text]:
    """As few lines as the properties need, in columns."""
    items = []
    for name in _names(model):
        verdict = model.verdicts.get(name)
        told = f" {compact(verdict.violations or verdict.checked)}" if verdict else ""
        items.append(line(_mark(verdict), " ", (name, "" if verdict else "dim"), (told, "bold" if verdict else "")))
    column = max(item.cell_len for item in items) + 2
    in_row = max(1, (width + 2) // column)
    for item in items:
        item.pad_right(column - item.cell_len)
    return [line(*items[start : start + in_row]) for start in range(0, len(items), in_row)]


def _names(model: ConsoleModel) -> list[str]:
    return [*PROPERTIES, *(name for name in model.verdicts if name not in PROPERTIES)]


def _mark(verdict: Verdict | None) -> tuple[str, str]:
    if verdict is None:
        return "·", "dim"
    return {"held": ("●", "green"), "broken": ("✗", "bold red")}.get(verdict.verdict, ("○", "yellow"))


def _told(verdict: Verdict | None) -> Text:
    if verdict is None:
        return line(("not yet", "dim"))
    if verdict.violations:
        return line((f"{number(verdict.violations)} of {number(verdict.checked)}", "bold red"))
    if verdict.verdict != "held":
        return line((verdict.verdict, "yellow"))
    return line(("held ", "dim"), (number(verdict.checked), "bold"))
