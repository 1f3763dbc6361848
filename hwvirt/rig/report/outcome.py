"""From verdicts, expectations and counts to one exit code, and the reasons for it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from hwvirt.errors import ExitCode
from hwvirt.rig.file.scenario import Expectation
from hwvirt.rig.judge.verdict import Outcome, Verdict

__all__ = ["Decision", "decide", "unmet", "verdict_word"]

_WORDS = {
    ExitCode.PASSED: "passed",
    ExitCode.BROKEN: "broken",
    ExitCode.USAGE: "usage",
    ExitCode.REFUSED: "refused",
    ExitCode.INFRASTRUCTURE: "infrastructure",
    ExitCode.NOTHING_RAN: "nothing-ran",
    ExitCode.INTERRUPTED: "interrupted",
    ExitCode.UNREAD: "unread",
}


class Decision(NamedTuple):
    """How a run ended; `reasons` is empty when it passed."""

    exit_code: ExitCode
    reasons: tuple[str, ...]


def verdict_word(code: ExitCode) -> str:
    """The word for report.json and the console."""
    return _WORDS[code]


def unmet(expectations: Iterable[Expectation], counts: Mapping[str, int], scenario: str = "") -> list[str]:
    """A reason for each expectation that the counts do not meet; `scenario` is whose they are, or empty: the whole run's."""
    where = f" in scenario {scenario!r}" if scenario else ""
    return [
        f"expected {expectation.text}, counted {counts.get(expectation.counter.value, 0)}{where}"
        for expectation in expectations
        if not expectation.holds(counts.get(expectation.counter.value, 0))
    ]


def decide(
    verdicts: Sequence[Verdict], missed: Iterable[str] = (), failure: tuple[ExitCode, tuple[str, ...]] | None = None
) -> Decision:
    """A broken property outweighs everything; then `failure`, what ended the run early (its code and reasons).

    A run passes only when something was checked, everything that was asked was checked, and no expectation was `missed`.
    """
    broken = [f"{verdict.property.value} is broken" for verdict in verdicts if verdict.outcome is Outcome.BROKEN]
    if broken:
        return Decision(ExitCode.BROKEN, tuple(dict.fromkeys(broken)))
    if failure is not None:
        return Decision(*failure)
    reasons = [
        f"{verdict.property.value} was not checked: {verdict.reason}"
        for verdict in verdicts
        if verdict.outcome is Outcome.NOT_CHECKED
    ]
    reasons += missed
    if not verdicts:
        reasons.append("no property was judged")
    return Decision(ExitCode.NOTHING_RAN if reasons else ExitCode.PASSED, tuple(reasons))
