"""The view for a log file: one plain line for each event, no colours, no cursor."""

from __future__ import annotations

from dataclasses import asdict
from typing import TextIO

from hwvirt.console.facts import Controller
from hwvirt.console.model import ConsoleModel
from hwvirt.console.sentences import sentence
from hwvirt.console.text import clean, compact, number, per_second_mb, size
from hwvirt.trace import Event

__all__ = ["event_line", "status_line", "waiting_line", "write_line"]


def event_line(model: ConsoleModel, event: Event) -> str:
    """What happened, after the time since the start of the rig and the source."""
    return _line(model.elapsed(event.at), event.source, sentence(event).text)


def waiting_line(model: ConsoleModel, now: float) -> str:
    """What goes on in silence: the step with its time and its counts."""
    step = model.step
    if step is None or step.ended_at is not None:
        return _line(model.elapsed(now), "rig", "between steps")
    limit = f" of {step.deadline_s:g}s" if step.deadline_s else ""
    told = f"{step.name}: {step.elapsed(now):.1f}s{limit}"
    if step.total:
        told += f", {number(step.done)} of {number(step.total)}"
    if step.aside:
        told += f", {step.aside}"
    counts = ", ".join(f"{name.replace('_', ' ')} {number(count)}" for name, count in asdict(step.counts).items() if count)
    return _line(model.elapsed(now), "rig", f"{told}: {counts}" if counts else told)


def status_line(controller: Controller, now: float) -> str:
    """A running controller in one line."""
    report = controller.report
    if report is None or controller.silent_s(now):
        return _line(0.0 if report is None else report.uptime_s, controller.name, "does not answer")
    rates = controller.rates(now)
    facts = [
        f"link {controller.link_state or '-'}",
        f"IOPS {compact(rates.operations) if rates else '-'}",
        f"MB/s {per_second_mb(rates.moved_bytes) if rates else '-'}",
        f"mapped {number(report.mapped_blocks)}",
        f"unflushed {size(report.unflushed_bytes)}",
        f"errors {number(report.errors)}",
        *(f"lun {lun.lun} {lun.word}" for lun in report.luns),
    ]
    return _line(report.uptime_s, controller.name, "  ".join(facts))


def write_line(stream: TextIO, text: str) -> None:
    """Writes and flushes one line; characters that the stream's encoding lacks are written as escapes."""
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()


def _line(elapsed_s: float, source: str, text: str) -> str:
    return f"{elapsed_s:>8.1f}s  {clean(source):<8} {clean(text)}".rstrip()
