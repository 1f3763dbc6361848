"""How a run ended, for the scrollback: verdicts, counts, failures, where the run's folder is, and the exit code."""

from __future__ import annotations

from rich.text import Text

from hwvirt.console.facts import Counts
from hwvirt.console.model import PROPERTIES, ConsoleModel
from hwvirt.console.panels.header import verdict_so_far
from hwvirt.console.panels.step import counts_line
from hwvirt.console.text import line, number
from hwvirt.errors import ExitCode
from hwvirt.units import format_duration

__all__ = ["summary"]

_MEANINGS = {
    ExitCode.PASSED: "passed",
    ExitCode.BROKEN: "a property is broken",
    ExitCode.USAGE: "usage or rig file",
    ExitCode.REFUSED: "refused for safety",
    ExitCode.INFRASTRUCTURE: "infrastructure: disk, link, controller or lab",
    ExitCode.NOTHING_RAN: "nothing ran, or less than expected",
    ExitCode.INTERRUPTED: "interrupted",
}


def summary(model: ConsoleModel, now: float) -> list[Text]:
    """Lines of any length: cards are given whole, so that they can be copied."""
    took = format_duration(model.elapsed(now))
    verdict = verdict_so_far(model) if model.outcome else line(("✗ ended without a verdict", "bold red"))
    rows = [Text(), line(verdict, "  ", (model.rig, "bold"), (f"  seed {model.seed}  in {took}", "dim")), Text()]
    rows += [*_verdicts(model), Text(), line("  ", counts_line(model.counts))]
    if told := _parts(model.counts):
        rows.append(line((f"  {told}", "dim")))
    rows += [line("  ", (failure, "red")) for failure in model.failures]
    for card in model.cards:
        rows += [Text(), *(Text(f"  {row}") for row in card.splitlines())]
    if model.outcome:
        code = model.outcome.exit_code
        meaning = _MEANINGS.get(ExitCode(code), "") if code in _MEANINGS else ""
        rows += [
            Text(),
            line(("  run folder  ", "dim"), model.outcome.run_dir or "none"),
            line(("  exit code   ", "dim"), (str(code), "bold"), (f"  {meaning}", "dim")),
        ]
        if code != ExitCode.PASSED and model.outcome.replay:
            rows.append(line(("  once more   ", "dim"), model.outcome.replay))
    return rows


def _parts(counts: Counts) -> str:
    """What the acknowledged requests were."""
    if not counts.acknowledged:
        return ""
    parts = {"by fill": counts.fills, "unmaps": counts.unmaps, "writes": counts.acknowledged - counts.fills - counts.unmaps}
    return "acknowledged were " + ", ".join(f"{number(count)} {what}" for what, count in parts.items() if count)


def _verdicts(model: ConsoleModel) -> list[Text]:
    names = [*PROPERTIES, *(name for name in model.verdicts if name not in PROPERTIES)]
    rows = []
    for name in names:
        verdict = model.verdicts.get(name)
        if verdict is None:
            continue
        held = verdict.verdict == "held"
        mark = ("●", "green") if held else ("✗", "bold red") if verdict.verdict == "broken" else ("○", "yellow")
        violations = f", {number(verdict.violations)} violations" if verdict.violations else ""
        rows.append(line("  ", mark, f" {name:<12} {verdict.verdict:<8} {number(verdict.checked):>10} checked{violations}"))
    missing = [name for name in names if name not in model.verdicts]
    if missing:
        rows.append(line((f"  · not judged: {', '.join(missing)}", "dim")))
    return rows
