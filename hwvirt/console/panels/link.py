"""The second path: what it carries and what it had to refuse, on a serial line also what that had to mend.

Frames refused, corrupt, damaged and resent are told for both ends together.
"""

from __future__ import annotations

from rich.panel import Panel
from rich.text import Text

from hwvirt.console.facts import Rates
from hwvirt.console.model import ConsoleModel
from hwvirt.console.panels.frame import framed, mark, state_style
from hwvirt.console.panels.topology import link_state
from hwvirt.console.report import LinkReport
from hwvirt.console.text import line, micros, number, per_second_mb, spread

__all__ = ["link_line", "link_pane"]


def link_line(model: ConsoleModel, now: float, width: int) -> Text:
    """One line."""
    ends = _ends(model)
    state = link_state(model)
    told = line(("link  ", "dim"), (state or "not up yet", state_style(state)))
    if not ends:
        return spread(told, Text(), width)
    rates = _rates(model, now)
    traffic = f"  → {_mb(rates, 'sent_bytes')}  ← {_mb(rates, 'received_bytes')} MB/s  {number(ends[0].in_flight)} in flight"
    left, counts = line(told, traffic), _counts(_incidents(ends))
    mended = _counts(_mended(ends))
    if mended and left.cell_len + counts.cell_len + mended.cell_len + 4 <= width:
        counts = line(counts, "  ", mended)
    return spread(left, counts, width)


def _counts(incidents: list[tuple[str, int, str]]) -> Text:
    return Text("  ").join(line((number(count), style or "bold"), (f" {name}", "dim")) for name, count, style in incidents)


def link_pane(model: ConsoleModel, now: float, width: int, height: int) -> Panel:
    """A frame with a line for each fact."""
    ends = _ends(model)
    state = link_state(model)
    title = line(mark(state), " ", ("link", "bold"), ("  " + (state or "not up yet"), state_style(state)))
    if not ends:
        return framed([line(("no end has told of it yet", "dim"))], title, width, height)
    end, rates = ends[0], _rates(model, now)
    mended = [(name, number(count), style) for name, count, style in _mended(ends)]
    gap: list[None] = [] if mended else [None]
    facts: list[tuple[str, str, str] | None] = [
        ("kind", end.kind or "-", ""),
        ("round trip", micros(end.rtt_us), "bold"),
        ("→ MB/s", _mb(rates, "sent_bytes"), "bold bright_cyan"),
        ("← MB/s", _mb(rates, "received_bytes"), "bold bright_cyan"),
        ("in flight", number(end.in_flight), ""),
        *gap,
        *((name, number(count), style) for name, count, style in _incidents(ends)),
        *mended,
        *gap,
        ("epoch", str(end.epoch)[:8], "dim"),
    ]
    inner = width - 4
    rows = [spread(line((fact[0], "dim")), line(fact[1:]), inner) if fact else Text() for fact in facts]
    return framed(rows, title, width, height)


def _ends(model: ConsoleModel) -> list[LinkReport]:
    reports = (controller.report for controller in model.controllers.values())
    return [report.link for report in reports if report and report.link]


def _rates(model: ConsoleModel, now: float) -> Rates | None:
    linked = (controller for controller in model.controllers.values() if controller.report and controller.report.link)
    first = next(linked, None)
    return first.rates(now) if first else None


def _mb(rates: Rates | None, which: str) -> str:
    return per_second_mb(getattr(rates, which)) if rates else "-"


def _incidents(ends: list[LinkReport]) -> list[tuple[str, int, str]]:
    reconnects = max(end.reconnects for end in ends)
    refused, corrupt = sum(end.refused for end in ends), sum(end.corrupt for end in ends)
    return [
        ("reconnects", reconnects, "yellow" if reconnects else ""),
        ("refused", refused, "yellow" if refused else ""),
        ("corrupt", corrupt, "bold red" if corrupt else ""),
    ]


def _mended(ends: list[LinkReport]) -> list[tuple[str, int, str]]:
    """Of a serial line: what came and was no frame, and what was sent again. Nothing on Ethernet."""
    lines = [end.line for end in ends if end.line is not None]
    damaged, resent = sum(each.damaged_frames for each in lines), sum(each.resent_segments for each in lines)
    return [("damaged", damaged, "yellow" if damaged else ""), ("resent", resent, "")] if lines else []
