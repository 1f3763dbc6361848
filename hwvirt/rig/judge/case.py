"""One case before the judge: the evidence, and what several properties derive from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from hwvirt.rig.judge.block import FOREIGN, BlockId, Garbage, Torn, describe
from hwvirt.rig.judge.card import Card, Owner
from hwvirt.rig.judge.claims import Ledger, Mapped, Stray, ledger_of, map_of, tombs_of
from hwvirt.rig.judge.evidence import Evidence, TombRow
from hwvirt.rig.judge.history import Ints
from hwvirt.rig.judge.register import Register
from hwvirt.rig.judge.survey import Survey, survey
from hwvirt.rig.judge.tables import Bools
from hwvirt.rig.judge.verdict import CARDS_KEPT, Outcome, Property, Verdict

__all__ = ["Case", "Tally"]

_EVENTS_ON_A_CARD = 5


class Case:
    """The evidence with everything that is worked out once."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence, self.history = evidence, evidence.history

    @cached_property
    def register(self) -> Register:
        """What the history allows each block to hold."""
        return Register(self.history, self.evidence.baseline)

    @cached_property
    def _map(self) -> tuple[Mapped, list[Stray]]:
        return map_of(self.evidence.map or (), self.evidence.blocks)

    @cached_property
    def _ledger(self) -> tuple[Ledger, list[Stray]]:
        return ledger_of(self.evidence.ledger or ())

    @cached_property
    def _tombs(self) -> tuple[list[TombRow], list[Stray]]:
        evidence = self.evidence
        return tombs_of(evidence.tombstones or (), evidence.volume, evidence.volumes, evidence.blocks)

    @property
    def map(self) -> Mapped:
        """Every entry of A's map, for blocks that the volume has."""
        return self._map[0]

    @cached_property
    def placed(self) -> Mapped:
        """The entries of A's map that name a position."""
        return Mapped(*(column[self.map.position >= 0] for column in self.map))

    @property
    def ledger(self) -> Ledger:
        """B's ledger, whatever in it is possible."""
        return self._ledger[0]

    @property
    def strays_of_map(self) -> list[Stray]:
        """What `map` leaves out."""
        return self._map[1]

    @property
    def strays_of_ledger(self) -> list[Stray]:
        """What `ledger` leaves out."""
        return self._ledger[1]

    @property
    def strays_of_tombstones(self) -> list[Stray]:
        """What `buried` leaves out, and tombstones of nobody."""
        return self._tombs[1]

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
        for lba, blocks, sequence, _ in self._tombs[0]:
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
        return owner, describe(identity, self.history.writer)

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

    def strays(self, found: Sequence[Stray]) -> None:
        """Counts all of these, with cards."""
        for index in self.each(np.arange(len(found))):
            self.card(found[index].kind, found[index].lba, found[index].detail)

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
