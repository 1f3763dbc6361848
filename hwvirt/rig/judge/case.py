"""One case before the judge: the evidence, and what several properties derive from it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np

from hwvirt.rig.judge.block import FOREIGN, BlockId, Garbage, Torn, describe
from hwvirt.rig.judge.card import Card, Owner
from hwvirt.rig.judge.evidence import Evidence, LedgerRow, MapRow
from hwvirt.rig.judge.history import Ints
from hwvirt.rig.judge.register import Register
from hwvirt.rig.judge.survey import Survey, survey
from hwvirt.rig.judge.tables import Bools
from hwvirt.rig.judge.verdict import CARDS_KEPT, Outcome, Property, Verdict

__all__ = ["Case", "Ledger", "Mapped", "Tally"]

_EVENTS_ON_A_CARD = 5


class Mapped(NamedTuple):
    """A's map, a row per block in order of LBA; `position` is -1 for a block that reads as zeroes."""

    lba: Ints
    position: Ints
    generation: Ints
    sequence: Ints


class Ledger(NamedTuple):
    """B's live entries in order of position."""

    position: Ints
    lba: Ints
    sequence: Ints
    generation: Ints
    crc: Ints
    volume: Ints


class Case:
    """The evidence with everything that is worked out once."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence, self.history = evidence, evidence.history

    @cached_property
    def register(self) -> Register:
        """What the history allows each block to hold."""
        return Register(self.history, self.evidence.baseline)

    @cached_property
    def map(self) -> Mapped:
        """Every entry of A's map."""
        rows = [row if row.position is not None else row._replace(position=-1) for row in self.evidence.map or ()]
        table = np.array(rows, np.int64).reshape(-1, len(MapRow._fields))
        first, blocks, position, generation, sequence = table.T
        step = np.arange(blocks.sum()) - np.repeat(np.cumsum(blocks) - blocks, blocks)
        lba, place = np.repeat(first, blocks) + step, np.repeat(position, blocks)
        order = np.argsort(lba, kind="stable")
        columns = (lba, np.where(place < 0, -1, place + step), np.repeat(generation, blocks), np.repeat(sequence, blocks))
        return Mapped(*(column[order] for column in columns))

    @cached_property
    def placed(self) -> Mapped:
        """The entries of A's map that name a position."""
        return Mapped(*(column[self.map.position >= 0] for column in self.map))

    @cached_property
    def ledger(self) -> Ledger:
        """B's ledger."""
        table = np.array(self.evidence.ledger or (), np.int64).reshape(-1, len(LedgerRow._fields))
        return Ledger(*table[np.argsort(table[:, 0], kind="stable")].T)

    @cached_property
    def stored(self) -> Survey | None:
        """What lies on the second disk at each of `placed`; None when that disk cannot be read.

        What lies outside the store is nobody's: it is not even looked at.
        """
        if self.evidence.second is None:
            return None
        position, blocks = self.placed.position, self.evidence.store_blocks
        inside = np.flatnonzero(position < (np.iinfo(np.int64).max if blocks is None else blocks))
        found = survey(self.evidence.second, position[inside], self.placed.lba[inside], self.history)
        if len(inside) == len(position):
            return found
        version, digest = np.full(len(position), FOREIGN), np.full(len(position), -1)
        version[inside], digest[inside] = found.version, found.digest
        strange = {int(index): Garbage("outside the store") for index in np.flatnonzero(digest < 0)}
        return Survey(version, digest, strange | {int(inside[at]): identity for at, identity in found.strange.items()})

    @cached_property
    def buried(self) -> Ints:
        """By block, the sequence of its newest tombstone, 0 where it has none."""
        newest = np.zeros(self.evidence.blocks, np.int64)
        for lba, blocks, sequence in self.evidence.tombstones or ():
            window = newest[lba : lba + blocks]
            np.maximum(window, sequence, out=window)
        return newest

    def ledger_rows(self, positions: Ints) -> tuple[Ints, Bools]:
        """For each position a row of the ledger, and whether it is that position's; if not, there is none."""
        if not len(self.ledger.position):
            return np.zeros(len(positions), np.int64), np.zeros(len(positions), np.bool_)
        row = np.minimum(np.searchsorted(self.ledger.position, positions), len(self.ledger.position) - 1)
        return row, self.ledger.position[row] == positions

    def owner(self, lba: int, version: int) -> Owner:
        """A block of this logical unit."""
        return Owner(self.history.volume, lba, version)

    def expected(self, lba: int) -> tuple[Owner, ...]:
        """Everything that the history allows the block to hold now."""
        return tuple(self.owner(lba, version) for version in self.register.allowed(lba))

    def seen_as(self, found: Survey, index: int, lba: int) -> tuple[Owner, str]:
        """Whose block was found, and that in words."""
        identity, version = found.strange.get(index), int(found.version[index])
        owner = self.owner(lba, version)
        if identity is None:
            return owner, owner.text()
        who = identity.id if isinstance(identity, Torn) else identity
        if isinstance(who, BlockId):
            owner = Owner(who.volume, who.lba, who.version)
        return owner, describe(identity)

    def map_entry(self, lba: int) -> dict[str, int | None] | None:
        """A's entry for a block."""
        at = int(np.searchsorted(self.map.lba, lba))
        if at == len(self.map.lba) or self.map.lba[at] != lba:
            return None
        position = int(self.map.position[at])
        return {
            "position": position if position >= 0 else None,
            "generation": int(self.map.generation[at]),
            "sequence": int(self.map.sequence[at]),
        }

    def ledger_entry(self, position: int) -> dict[str, int] | None:
        """B's entry for a position."""
        row, known = self.ledger_rows(np.array([position]))
        if not known[0]:
            return None
        return {name: int(column[row[0]]) for name, column in zip(Ledger._fields, self.ledger, strict=True)}

    def events(self, lba: int) -> tuple[str, ...]:
        """The last operations on a block."""
        return tuple(op.text() for op in self.history.touching(lba, _EVENTS_ON_A_CARD))


class Tally:
    """Collects what one property finds: counts every violation, makes cards of the first ones."""

    def __init__(self, case: Case, property_: Property) -> None:
        self._case, self._property = case, property_
        self._cards: list[Card] = []
        self._total = 0

    def each(self, violations: Ints) -> Iterator[int]:
        """Counts all of these; yields those that are still to get a card."""
        self._total += len(violations)
        yield from violations[: CARDS_KEPT - len(self._cards)].tolist()

    def card(
        self,
        kind: str,
        lba: int | None,
        detail: str,
        *,
        expected: tuple[Owner, ...] = (),
        found: Owner | None = None,
        position: int | None = None,
    ) -> None:
        """The card of one violation. `position` is that of the ledger's entry, where it is not the map's."""
        case = self._case
        entry = None if lba is None else case.map_entry(lba)
        if position is None and entry is not None:
            position = entry["position"]
        ledger_entry = None if position is None else case.ledger_entry(position)
        events = () if lba is None else case.events(lba)
        replay = case.evidence.replay
        self._cards.append(
            Card(self._property.value, kind, lba, detail, expected, found, entry, ledger_entry, events, replay)
        )

    def verdict(self, checked: int, nothing: str = "") -> Verdict:
        """The verdict after `checked` things; `nothing` says why there was nothing to check, if so."""
        if self._total:
            return Verdict(self._property, Outcome.BROKEN, checked, self._total, tuple(self._cards))
        if not checked:
            return Verdict(self._property, Outcome.NOT_CHECKED, 0, reason=nothing)
        return Verdict(self._property, Outcome.HELD, checked)

    def not_checked(self, reason: str) -> Verdict:
        """Nothing could be checked."""
        return self.verdict(0, reason)
