"""The last events and the state of every fault."""

from __future__ import annotations

from collections import Counter

from rich.text import Text

from hwvirt.console.model import ConsoleModel
from hwvirt.console.panels.frame import mark, state_style
from hwvirt.console.text import line

__all__ = ["faults_line", "log_rows"]


def log_rows(model: ConsoleModel, lines: int, width: int) -> list[Text]:
    """The last `lines` events, oldest first, each cut to `width`."""
    rows = []
    for entry in list(model.log)[-lines:] if lines > 0 else []:
        at = (f"{model.elapsed(entry.at):>7.1f}s ", "dim")
        row = line(at, (f"{entry.source:<6.6} ", "cyan"), (entry.text, entry.tone.value))
        row.truncate(width, overflow="ellipsis")
        rows.append(row)
    return rows


def faults_line(model: ConsoleModel, width: int) -> Text:
    """Each fault with its state; where that takes more than `width` cells, how many faults are in which state."""
    if not model.faults:
        return line(("no faults", "dim"))
    faults = model.faults.items()
    told = Text("  ").join(line(mark(state), f" {name} ", (state, state_style(state))) for name, state in faults)
    if told.cell_len <= width:
        return told
    counts = Counter(model.faults.values()).items()
    return line("faults: ", Text(", ").join(line(f"{count} ", (state, state_style(state))) for state, count in counts))
