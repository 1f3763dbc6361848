"""`hwvirt explore`: every schedule of a small story over the real controllers, judged."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Annotated

import typer

from hwvirt.blame import suggestion
from hwvirt.cli.arguments import JsonFlag
from hwvirt.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from hwvirt.rig.explore.scenario import Scenario
    from hwvirt.rig.explore.search import Bounds, Outcome

__all__ = ["explore"]


def explore(
    scenarios: Annotated[
        list[str] | None, typer.Argument(metavar="SCENARIO", help="Which ones; by default all.", show_default=False)
    ] = None,
    depth: Annotated[int | None, typer.Option(help="Actions of the longest schedules.")] = None,
    faults: Annotated[int | None, typer.Option(help="Faults in one schedule.")] = None,
    states: Annotated[int | None, typer.Option(help="Distinct states to stop at.")] = None,
    seed: Annotated[int | None, typer.Option(help="Walk at random instead of breadth first.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="Show the scenarios and explore nothing.")] = False,
    json: JsonFlag = False,
) -> ExitCode:
    """Walk through every schedule of faults in small scenarios: the real controllers in memory, in virtual time."""
    from hwvirt.cli.explored import Progress, show, show_json, show_scenarios  # noqa: PLC0415  slow to load
    from hwvirt.rig.explore.search import explore as walk  # noqa: PLC0415  slow to load
    from hwvirt.stopping import stops_handled  # noqa: PLC0415  slow to load

    _refuse_senseless(depth, faults, states, seed)
    chosen = _chosen(scenarios)
    if listing:
        show_scenarios(chosen, as_json=json)
        return ExitCode.PASSED
    outcomes: dict[str, Outcome] = {}
    present = show_json if json else show
    try:
        with stops_handled(signal.default_int_handler), Progress() as progress:
            for scenario in chosen:

                def tell(outcome: Outcome) -> None:
                    outcomes[outcome.scenario] = outcome
                    progress.tell(outcome)

                walk(scenario, _bounds(scenario, depth, faults, states), seed, tell)
    except KeyboardInterrupt:
        present(list(outcomes.values()), interrupted=True)
        raise
    present(list(outcomes.values()), interrupted=False)
    return ExitCode.BROKEN if any(outcome.violation for outcome in outcomes.values()) else ExitCode.PASSED


def _refuse_senseless(depth: int | None, faults: int | None, states: int | None, seed: int | None) -> None:
    for option, value, least in (("depth", depth, 1), ("faults", faults, 0), ("states", states, 1), ("seed", seed, 0)):
        if value is not None and value < least:
            raise UsageError(f"--{option} {value} makes no sense.", next_step=f"It is {least} or more.")


def _chosen(names: list[str] | None) -> list[Scenario]:
    from hwvirt.rig.explore.scenario import SCENARIOS  # noqa: PLC0415  slow to load

    for name in names or ():
        if name not in SCENARIOS:
            raise UsageError(f"no scenario {name!r}.", next_step=suggestion(name, SCENARIOS))
    return [SCENARIOS[name] for name in dict.fromkeys(names or SCENARIOS)]


def _bounds(scenario: Scenario, depth: int | None, faults: int | None, states: int | None) -> Bounds:
    from hwvirt.rig.explore.search import Bounds  # noqa: PLC0415  slow to load

    return Bounds(
        scenario.depth if depth is None else depth,
        scenario.budget if faults is None else faults,
        scenario.states if states is None else states,
    )
