"""Who runs, for how long, and what the judge has said so far."""

from __future__ import annotations

from rich.text import Text

from hwvirt.console.model import ConsoleModel
from hwvirt.console.text import clock, label, line, spread

__all__ = ["header", "verdict_so_far"]


def header(model: ConsoleModel, now: float, width: int) -> Text:
    """One line: the rig, or the one daemon that is being watched."""
    name = ("hwvirt", "bold bright_cyan")
    if not model.running:
        return spread(line(name, "  ", *_daemon(model)), Text(), width)
    rig = line(name, "  ", (model.rig, "bold"), "  ", label("seed", model.seed))
    right = line((clock(model.elapsed(now)), "bold"), "  ", verdict_so_far(model))
    with_run = line(rig, "  ", label("run", model.run))
    fits = model.run and with_run.cell_len + 2 + right.cell_len <= width
    return spread(with_run if fits else rig, right, width)


def verdict_so_far(model: ConsoleModel) -> Text:
    """The worst that is known: a failure, a broken property, or that nothing is broken."""
    if model.outcome:
        good = model.outcome.exit_code == 0
        return line(("● " if good else "✗ ", "green" if good else "bold red"), (model.outcome.verdict, "bold"))
    if model.broken:
        broken = ", ".join(model.broken) if len(model.broken) < 3 else f"{len(model.broken)} properties"
        return line((f"✗ broken: {broken}", "bold red"))
    if model.failures:
        return line(("✗ a step failed", "bold red"))
    if model.verdicts:
        return line(("●", "green"), " nothing broken")
    return line(("· nothing judged yet", "dim"))


def _daemon(model: ConsoleModel) -> list[str | Text]:
    for controller in model.controllers.values():
        if controller.report:
            pid, uptime = str(controller.report.pid), clock(controller.report.uptime_s)
            return [label("controller", controller.name, "bold"), "  ", label("pid", pid), "  ", label("up", uptime)]
    return ["waiting for the first status"]
