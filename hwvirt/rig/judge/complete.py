"""Complete: every acknowledged write of new data has a live correlation."""

from __future__ import annotations

import numpy as np

from hwvirt.digest import crc32c
from hwvirt.rig.judge.block import FOREIGN, ZEROED
from hwvirt.rig.judge.case import Case, Tally
from hwvirt.rig.judge.evidence import State
from hwvirt.rig.judge.history import CHANGES, Fate, Ints
from hwvirt.rig.judge.tables import Bools, spread
from hwvirt.rig.judge.verdict import Property, Verdict

__all__ = ["complete"]


def complete(case: Case) -> Verdict:
    """Checks the map's entry of every block with an acknowledged write, unmap or write of zeroes since redirection began.

    missing: there is no entry, though no read may return what the first disk holds. zeroed: the entry says zeroes, though no
    read may return them. An entry with a position is complete; whether the right data lies there is `content`.
    """
    tally, moment = Tally(case, Property.COMPLETE), case.history.redirected_at
    if case.evidence.map is None or case.evidence.state != State.REDIRECTING or moment is None:
        return tally.not_checked("the volume is not redirecting")
    blocks = _changed_since(case, moment)
    at = np.minimum(np.searchsorted(case.map.lba, blocks), max(0, len(case.map.lba) - 1))
    mapped = case.map.lba[at] == blocks if len(case.map.lba) else np.zeros(len(blocks), np.bool_)
    position = case.map.position[at] if len(case.map.lba) else at
    zeroed = mapped & (position < 0)

    finals, began = case.register.finals, case.history.columns().began
    older = (finals.version > 0) & (began[np.maximum(finals.version - 1, 0)] < moment) if len(began) else finals.version < 0
    original = np.isin(blocks, finals.lba[older | (finals.version == FOREIGN)])
    zero = np.isin(blocks, finals.lba[finals.version == ZEROED])
    if case.evidence.baseline is not None:  # what the first disk holds may be zeroes as well
        original |= zero & (np.asarray(case.evidence.baseline)[blocks] == crc32c(bytes(case.history.block_bytes)))
    wrong: dict[str, Bools] = {"missing": ~mapped & ~original, "zeroed": zeroed & ~zero}
    for kind, violations in wrong.items():
        for index in tally.each(np.flatnonzero(violations)):
            lba = int(blocks[index])
            tally.card(kind, lba, _DETAILS[kind], expected=case.expected(lba))
    return tally.verdict(len(blocks), "no write was acknowledged since redirection began")


_DETAILS = {
    "missing": "A's map has no entry for an acknowledged write",
    "zeroed": "A's map says that the block reads as zeroes",
}


def _changed_since(case: Case, moment: int) -> Ints:
    """The blocks that an acknowledged operation changed since then, in order."""
    columns = case.history.columns()
    mine = np.isin(columns.kind, CHANGES) & (columns.fate <= Fate.DURABLE) & (columns.began > moment)
    return np.unique(spread(columns, mine, 0, case.evidence.blocks)[1])
