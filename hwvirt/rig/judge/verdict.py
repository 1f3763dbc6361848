"""Verdicts: one for each property, with a count of what was checked. Nothing checked is never a pass."""

from __future__ import annotations

from enum import Enum

import msgspec

from hwvirt.rig.judge.card import Card

__all__ = ["CARDS_KEPT", "Outcome", "Property", "Verdict"]

CARDS_KEPT = 20
"""A verdict keeps the cards of its first violations only; it counts all."""


class Property(Enum):
    """What the judge can prove."""

    UNTOUCHED = "untouched"
    COMPLETE = "complete"
    EXACT = "exact"
    CONTENT = "content"
    CONSISTENT = "consistent"
    DURABLE = "durable"
    FENCED = "fenced"
    FROZEN = "frozen"
    SETTLED = "settled"
    CONSERVED = "conserved"


class Outcome(Enum):
    """How a property came out."""

    HELD = "held"
    BROKEN = "broken"
    NOT_CHECKED = "not-checked"


class Verdict(msgspec.Struct, frozen=True):
    """`checked` counts the things examined, `total` the violations; `reason` says why nothing was checked."""

    property: Property
    outcome: Outcome
    checked: int
    total: int = 0
    violations: tuple[Card, ...] = ()
    reason: str = ""
