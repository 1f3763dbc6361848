"""What panes have in common: a frame around lines, a titled rule, and the colours of states."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group
from rich.panel import Panel
from rich.text import Text

from hwvirt.console.text import line

__all__ = ["framed", "mark", "rule", "state_style"]

_STATE_STYLES = {
    "up": "green",
    "own": "green",
    "redirecting": "bright_cyan",
    "redirect": "bright_cyan",
    "forward": "magenta",
    "frozen": "bright_blue",
    "committing": "yellow",
    "discarding": "yellow",
    "connecting": "yellow",
    "down": "bold red",
    "refused": "bold red",
    "stopped": "red",
    "silent": "red",
    "armed": "",
    "fired": "yellow",
    "healed": "green",
}


def state_style(state: str) -> str:
    """The colour of a state of a link, a unit, a controller or a fault."""
    return _STATE_STYLES.get(state, "dim")


def mark(state: str) -> tuple[str, str]:
    """A dot in the state's colour."""
    return "●" if state else "○", state_style(state)


def framed(rows: Sequence[Text], title: Text, width: int, height: int | None = None, foot: Text | None = None) -> Panel:
    """Lines in a rounded frame; `width` and `height` include the frame. Lines past the height are left out."""
    shown = rows if height is None else rows[: max(0, height - 2)]
    for words in (title, foot or Text()):
        words.stylize_before("default")  # else they take the border's colour
    return Panel(
        Group(*shown),
        box=box.ROUNDED,
        title=title,
        title_align="left",
        subtitle=foot,
        subtitle_align="right",
        border_style="bright_black",
        padding=(0, 1),
        width=width,
        height=height,
    )


def rule(title: Text, right: Text, width: int) -> Text:
    """A horizontal line with a title at its left and, where there is one, a text at its right."""
    right = right.copy()
    right.truncate(max(0, width - title.cell_len - 8), overflow="ellipsis")
    tail: list[str | tuple[str, str] | Text] = [" ", right, (" ─", "bright_black")] if right.plain else []
    used = 3 + title.cell_len + (3 + right.cell_len if right.plain else 0)
    return line(("─ ", "bright_black"), title, " ", ("─" * max(0, width - used), "bright_black"), *tail)
