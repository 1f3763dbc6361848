"""What each controller does: a table of one row each where room is scarce, a pane each where it is not."""

from __future__ import annotations

from rich.panel import Panel
from rich.text import Text

from hwvirt.console.facts import Controller
from hwvirt.console.model import ConsoleModel
from hwvirt.console.panels.frame import framed, mark, state_style
from hwvirt.console.panels.topology import controller_state, disk_name
from hwvirt.console.report import ControllerReport, LunReport, Percentiles
from hwvirt.console.text import clock, compact, label, line, micros, number, per_second_mb, size, spread

__all__ = ["controller_pane", "controller_table"]

_SPARKS = "▁▂▃▄▅▆▇█"
_LATENCIES = ("read", "write", "flush")


def controller_table(model: ConsoleModel, now: float, width: int) -> list[Text]:
    """A heading and one line for each controller, and one more for each that told a sense."""
    heading = _row(["IOPS", "MB/s", "read p50/p99", "write p50/p99", "mapped", "unflushed", "err"])
    rows = [line(("controllers".ljust(width - heading.cell_len), "dim"), (heading.plain, "dim"))]
    for controller in model.controllers.values():
        name = line(mark(controller_state(controller, now)), " ", (controller.name, "bold"), " ", _doing(controller, now))
        rows.append(spread(name, _row(_cells(controller, now)), width))
        if controller.last_sense:
            rows.append(spread(line("  ", label("last sense", controller.last_sense, "yellow")), Text(), width))
    return rows


def controller_pane(model: ConsoleModel, controller: Controller, now: float, width: int, height: int) -> Panel:
    """A frame with rates and their history, latencies, and one line for each LUN."""
    state = controller_state(controller, now)
    title = line(mark(state), " ", (controller.name, "bold"))
    report = controller.report
    if report is None:
        return framed([line(("no status yet", "dim"))], title, width, height)
    inner = width - 4
    silence = f"silent for {clock(controller.silent_s(now))}" if state == "silent" else ""
    title.append(f"  {silence or state if state != 'up' else f'pid {report.pid}'}", "dim" if state == "up" else "red")
    disk = report.disk
    room = f" · {size(disk.blocks * disk.block_bytes)}" if disk and disk.blocks else ""
    foot = line((disk_name(model, controller) + room, "dim"))
    mapped, unflushed = number(report.mapped_blocks), size(report.unflushed_bytes)
    sense = label("last sense", controller.last_sense or "none", "yellow" if controller.last_sense else "")
    errors = label("errors", number(report.errors), "bold yellow" if report.errors else "")
    rows = [
        _rates_line(controller, now, inner),
        *_latency_rows(report, inner),
        spread(label("mapped", mapped, "bold"), label("unflushed", unflushed, "bold"), inner),
        spread(sense, errors, inner),
        Text(),
        *_lun_rows(report, inner, room=height - 2 - 8),
    ]
    return framed(rows, title, width, height, foot)


def _row(cells: list[str]) -> Text:
    widths = (6, 6, 12, 13, 7, 9, 4)
    return line(" ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True)))


def _doing(controller: Controller, now: float) -> Text:
    state = controller_state(controller, now)
    busiest = controller.report.busiest if controller.report else None
    word = busiest.word if state == "up" and busiest else state or "no status"
    return line((word, state_style(word)))


def _cells(controller: Controller, now: float) -> list[str]:
    rates, report = controller.rates(now), controller.report
    if report is None:
        return ["-"] * 7
    latency = report.busiest.latency_us if report.busiest else {}
    both = [f"{micros(p.p50)}/{micros(p.p99)}" for p in (latency.get(kind, Percentiles()) for kind in ("read", "write"))]
    return [
        compact(rates.operations) if rates else "-",
        per_second_mb(rates.moved_bytes) if rates else "-",
        *("-" if told == "-/-" else told for told in both),
        compact(report.mapped_blocks),
        size(report.unflushed_bytes),
        compact(report.errors),
    ]


def _rates_line(controller: Controller, now: float, width: int) -> Text:
    rates = controller.rates(now)
    told = line(
        label("IOPS", compact(rates.operations) if rates else "-", "bold bright_cyan"),
        "  ",
        label("MB/s", per_second_mb(rates.moved_bytes) if rates else "-", "bold bright_cyan"),
    )
    room = max(0, width - told.cell_len - 2)
    return spread(told, line((_spark(list(controller.history)[-room:] if room else []), "cyan")), width)


def _spark(values: list[float]) -> str:
    top = max(values, default=0.0)
    return "".join(_SPARKS[round(value / top * (len(_SPARKS) - 1))] if top else _SPARKS[0] for value in values)


def _latency_rows(report: ControllerReport, width: int) -> list[Text]:
    busiest = report.busiest
    latency = busiest.latency_us if busiest else {}
    rows = [line((f"{'latency':<10}{'p50':>9}{'p99':>9}", "dim"))]
    for kind in _LATENCIES:
        told = latency.get(kind, Percentiles())
        rows.append(line((f"  {kind:<8}", "dim"), f"{micros(told.p50):>9}{micros(told.p99):>9}"))
    requests = [getattr(busiest.counters, name) if busiest else 0 for name in ("reads", "writes", "flushes")]
    rows[0] = spread(rows[0], line(("requests", "dim")), width)
    return [rows[0], *(spread(row, line(number(count)), width) for row, count in zip(rows[1:], requests, strict=True))]


def _lun_rows(report: ControllerReport, width: int, room: int) -> list[Text]:
    if len(report.luns) > room > 0:
        hidden = len(report.luns) - room + 1
        return [*(_lun_row(lun, width) for lun in report.luns[: room - 1]), line((f"and {hidden} more", "dim"))]
    return [_lun_row(lun, width) for lun in report.luns]


def _lun_row(lun: LunReport, width: int) -> Text:
    target = f" → {lun.target}" if lun.target else ""
    left = line((f"lun {lun.lun}  ", "dim"), (lun.word + target, state_style(lun.word)))
    return spread(left, line((size(lun.blocks * lun.block_bytes) if lun.blocks else "", "dim")), width)
