"""report.json as typed values."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from hwvirt.rig.judge.card import Card
from hwvirt.rig.judge.verdict import CARDS_KEPT, Outcome, Verdict

__all__ = ["SCHEMA", "PropertyReport", "Report", "StepReport", "Violation", "summarize"]

SCHEMA = 1

_WEIGHT = [Outcome.HELD, Outcome.NOT_CHECKED, Outcome.BROKEN]


class Violation(msgspec.Struct, frozen=True):
    """A violation in short; its card says the rest."""

    kind: str
    lba: int | None


class PropertyReport(msgspec.Struct, frozen=True):
    """All judgements of one property together: `checked` and `total` violations are sums, the worst verdict stands."""

    verdict: str
    checked: int
    total: int = 0
    violations: tuple[Violation, ...] = ()
    reason: str = ""


class StepReport(msgspec.Struct, frozen=True):
    """One step. `failure` is why it failed, or empty; `blocked` steps were not begun because an earlier one failed."""

    scenario: str
    name: str
    elapsed_s: float = 0.0
    failure: str = ""
    blocked: bool = False


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `started` is ISO 8601 in UTC; `verdict` is the exit code in a word; `reasons` say why it is not a pass.

    `replay` is the command that does the same again.
    """

    schema: int = SCHEMA
    rig: str
    seed: int
    verdict: str
    exit_code: int
    reasons: tuple[str, ...] = ()
    counts: dict[str, int]
    properties: dict[str, PropertyReport]
    steps: tuple[StepReport, ...] = ()
    cards: tuple[Card, ...] = ()
    provenance: dict[str, str]
    started: str
    elapsed_s: float
    replay: str = ""


def summarize(verdicts: Iterable[Verdict]) -> tuple[dict[str, PropertyReport], tuple[Card, ...]]:
    """What the judge said over the whole run, by property, and all cards in order."""
    properties: dict[str, PropertyReport] = {}
    cards: list[Card] = []
    for verdict in verdicts:
        known = properties.get(verdict.property.value, PropertyReport(Outcome.HELD.value, 0))
        worst = max(Outcome(known.verdict), verdict.outcome, key=_WEIGHT.index)
        short = tuple(Violation(card.kind, card.lba) for card in verdict.violations)
        properties[verdict.property.value] = PropertyReport(
            worst.value,
            known.checked + verdict.checked,
            known.total + verdict.total,
            (known.violations + short)[:CARDS_KEPT],
            known.reason or verdict.reason,
        )
        cards += verdict.violations
    return properties, tuple(cards)
