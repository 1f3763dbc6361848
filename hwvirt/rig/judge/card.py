"""The failure card: everything that one violation has to say, for programs and for people."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["Card", "Owner"]


class Owner(msgspec.Struct, frozen=True):
    """Whose a block is: `version` is the number of the operation in the history, or what is wrong with it (see block.py)."""

    volume: int
    lba: int
    version: int

    def text(self) -> str:
        """For people."""
        word = {0: "zeroes", -1: "unknown", -2: "misdirected", -3: "torn"}.get(self.version, f"version {self.version}")
        return f"volume {self.volume} lba {self.lba} {word}"


class Card(msgspec.Struct, frozen=True):
    """One violation of `property`, of class `kind`. `lba` is a block of the first volume, or was said to be one.

    `expected` lists all owners that would have been right; `events` are the last operations on the block.
    """

    property: str
    kind: str
    lba: int | None
    detail: str
    expected: tuple[Owner, ...] = ()
    found: Owner | None = None
    map_entry: dict[str, int | None] | None = None
    ledger_entry: dict[str, int] | None = None
    events: tuple[str, ...] = ()
    replay: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return fields

    def text(self) -> str:
        """For people, a line for each fact."""
        where = "" if self.lba is None else f" at lba {self.lba}"
        lines = [f"{self.property}: {self.kind}{where}: {self.detail}"]
        facts = [
            ("expected", " or ".join(owner.text() for owner in self.expected)),
            ("found", self.found.text() if self.found else ""),
            ("map", _pairs(self.map_entry)),
            ("ledger", _pairs(self.ledger_entry)),
            *(("event", event) for event in self.events),
            ("replay", self.replay),
        ]
        return "\n".join(lines + [f"  {name:<9} {fact}" for name, fact in facts if fact])


def _pairs(entry: dict[str, int | None] | dict[str, int] | None) -> str:
    return " ".join(f"{name} {value}" for name, value in entry.items()) if entry else "none"
