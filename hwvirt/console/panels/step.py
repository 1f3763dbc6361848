"""The step that runs: its name, its deadline, how far it is and what became of all requests."""

from __future__ import annotations

from rich.text import Text

from hwvirt.console.facts import Counts, Step
from hwvirt.console.model import ConsoleModel
from hwvirt.console.text import bar, label, line, number, spread
from hwvirt.units import format_duration

__all__ = ["counts_line", "step_rows", "step_title"]


def step_title(model: ConsoleModel) -> Text:
    """The scenario."""
    return line(("scenario ", "dim"), (model.scenario, "bold")) if model.scenario else line(("no scenario yet", "dim"))


def step_rows(model: ConsoleModel, now: float, width: int) -> list[Text]:
    """Three lines: name and time, progress, and the counts of the whole run."""
    step = model.step
    if step is None:
        return [line(("no step yet", "dim")), Text(), Text()]
    name = line((f"step {step.number}  ", "dim"), (step.name, "bold bright_cyan"), f"  {step.detail}")
    if step.aside and step.ended_at is None:
        name.append(f"  {step.aside}", "dim")
    return [spread(name, _time(step, now), width), _progress(step, now, width), counts_line(model.counts)]


def counts_line(counts: Counts) -> Text:
    """The fates of requests; failed and doubtful ones stand out."""
    return Text("   ").join(
        [
            label("acknowledged", number(counts.acknowledged), "bold"),
            label("failed", number(counts.failed), "bold red" if counts.failed else "bold"),
            label("in doubt", number(counts.in_doubt), "bold yellow" if counts.in_doubt else "bold"),
            label("reads", number(counts.reads), "bold"),
            label("flushes", number(counts.flushes), "bold"),
        ]
    )


def _time(step: Step, now: float) -> Text:
    elapsed_s = step.elapsed(now)
    if step.failure:
        return line((f"failed after {format_duration(elapsed_s)}", "bold red"))
    if step.ended_at is not None:
        return line((f"finished in {format_duration(elapsed_s)}", "green"))
    if not step.deadline_s:
        return line((f"{elapsed_s:.1f}s", "bold"))
    late = elapsed_s / step.deadline_s
    style = "bold red" if late >= 1 else "bold yellow" if late >= 0.75 else "bold"
    return line((f"{elapsed_s:.1f}s", style), (f" of {step.deadline_s:g}s", "dim"))


def _progress(step: Step, now: float, width: int) -> Text:
    """Towards the step's total; without one, towards its deadline, in grey."""
    if step.failure:
        return line((step.failure, "red"))
    if step.total:
        share = step.done / step.total
        told = line(f"  {share:>4.0%}", (f"  {number(step.done)} of {number(step.total)}", "dim"))
        style = "green" if share >= 1 else "bright_cyan"
        return line(bar(share, max(1, width - told.cell_len), style), told)
    if step.ended_at is None and step.deadline_s:
        return bar(step.elapsed(now) / step.deadline_s, width, "white")
    return Text()
