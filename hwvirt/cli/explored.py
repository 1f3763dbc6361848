"""What exploration has found, for people and for machines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from hwvirt.link.config import Role
from hwvirt.rig.explore.coverage import Happening, Visits, cells
from hwvirt.rig.explore.scenario import Fault, Scenario
from hwvirt.rig.explore.search import Outcome
from hwvirt.tables import Fit, plain_table, print_table

__all__ = ["Progress", "replay", "show", "show_json", "show_scenarios"]

_SIDES = {Role.CONNECT: "A", Role.LISTEN: "B"}
_NEVER = "·"


class Progress(AbstractContextManager["Progress"]):
    """A line on stderr that says how far it is, where that is a terminal."""

    def __init__(self) -> None:
        self._status = Status("", console=Console(stderr=True, highlight=False))

    def __enter__(self) -> Progress:
        if self._status.console.is_terminal:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def tell(self, outcome: Outcome) -> None:
        """So far it is."""
        self._status.update(f"{outcome.scenario}: {outcome.states:,} states, depth {outcome.depth}")


def show_scenarios(scenarios: Sequence[Scenario], *, as_json: bool) -> None:
    """Names, what happens, and the bounds by default."""
    if as_json:
        print(json.dumps([_scenario(one) for one in scenarios], indent=2))
        return
    table = plain_table("scenario", "states", "faults", "what happens")
    for one in scenarios:
        table.add_row(one.name, f"{one.states:,}", str(one.budget), one.story)
    print_table(table, Fit.FOLDED)


def show(outcomes: Sequence[Outcome], *, interrupted: bool) -> None:
    """A row for each scenario, the session's table, and each violation."""
    print_table(_counts(outcomes), Fit.WHOLE)
    print()
    print_table(_coverage(_visits(outcomes)), Fit.WHOLE)
    for outcome in outcomes:
        for line in _violation_lines(outcome):
            print(line)
    if interrupted:
        print("\nInterrupted: the last scenario is not through.")


def show_json(outcomes: Sequence[Outcome], *, interrupted: bool) -> None:
    """One object: the verdict, the scenarios and the cells of the session's table."""
    visits = _visits(outcomes)
    document = {
        "verdict": "broken" if any(one.violation for one in outcomes) else "interrupted" if interrupted else "passed",
        "scenarios": [_outcome(one) for one in outcomes],
        "coverage": [
            {"side": _SIDES[role], "state": state.name.lower(), "happening": what.value, "visits": visits[role, state, what]}
            for role, state in cells()
            for what in Happening
        ],
    }
    print(json.dumps(document, indent=2))


def replay(outcome: Outcome) -> str:
    """The command that finds the violation once more."""
    bounds, violation = outcome.bounds, outcome.violation
    depth = bounds.depth if outcome.seed is not None or violation is None else max(1, len(violation.schedule))
    seed = "" if outcome.seed is None else f" --seed {outcome.seed}"
    return f"hwvirt explore {outcome.scenario} --depth {depth} --faults {bounds.faults} --states {bounds.states}{seed}"


def _counts(outcomes: Sequence[Outcome]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("scenario", no_wrap=True)
    for name in ("states", "transitions", "depth", "faults", "settled", "judged", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for one in outcomes:
        numbers = (one.states, one.transitions, one.depth, one.bounds.faults, one.settled, one.judged)
        table.add_row(one.scenario, *(f"{number:,}" for number in numbers), f"{one.elapsed_s:.1f}", _remark(one))
    return table


def _remark(outcome: Outcome) -> Text:
    if outcome.violation:
        return Text("broken", "red")
    return Text("held, complete" if outcome.complete else "held", "green")


def _coverage(visits: Visits) -> Table:
    rows, met = cells(), sum(1 for count in visits.values() if count)
    title = f"Steps of the session, by its state and what reaches it: {met} of {len(rows) * len(Happening)} cells"
    table = Table("", title=title, title_justify="left", title_style="", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for role, state in rows:
        table.add_column(f"{_SIDES[role]} {state.name.lower()}", justify="right")
    for what in Happening:
        counts = [visits[role, state, what] for role, state in rows]
        table.add_row(what.value, *(f"{count:,}" if count else _NEVER for count in counts))
    return table


def _violation_lines(outcome: Outcome) -> Iterator[str]:
    violation = outcome.violation
    if violation is None:
        return
    yield ""
    yield f"{outcome.scenario} is broken:"
    for problem in violation.problems:
        yield from (f"  {line}" for line in problem.splitlines())
    if violation.words:
        yield "A shortest schedule:" if outcome.seed is None else "A schedule from which nothing can be left out:"
    yield from (f"  {number}. {words}" for number, words in enumerate(violation.words, 1))
    if violation.healing:
        yield "What then happens by itself:" if violation.words else "It happens by itself:"
        yield from (f"  {number}. {words}" for number, words in enumerate(violation.healing, len(violation.words) + 1))
    yield f"Once more: {replay(outcome)}"


def _visits(outcomes: Sequence[Outcome]) -> Visits:
    return sum((outcome.visits for outcome in outcomes), Visits())


def _scenario(scenario: Scenario) -> dict[str, Any]:
    faults = [fault.name.lower().replace("_", "-") for fault in Fault if fault in scenario.faults and fault.name]
    return {
        "scenario": scenario.name,
        "story": scenario.story,
        "states": scenario.states,
        "depth": scenario.depth,
        "faults": scenario.budget,
        "fault_kinds": faults,
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    violation = outcome.violation
    return {
        "scenario": outcome.scenario,
        "states": outcome.states,
        "transitions": outcome.transitions,
        "depth": outcome.depth,
        "complete": outcome.complete,
        "faults": outcome.bounds.faults,
        "seed": outcome.seed,
        "settled": outcome.settled,
        "judged": outcome.judged,
        "seconds": round(outcome.elapsed_s, 3),
        "violation": violation
        and {
            "problems": violation.problems,
            "schedule": violation.words,
            "healing": violation.healing,
            "replay": replay(outcome),
        },
    }
