"""Conserved: on B, free + freed + live = capacity at every cut, and what is live is what the ledger lists."""

from __future__ import annotations

import numpy as np

from hwvirt.rig.judge.case import Case, Tally
from hwvirt.rig.judge.claims import numbers
from hwvirt.rig.judge.evidence import StoreCount
from hwvirt.rig.judge.verdict import Property, Verdict

__all__ = ["conserved"]


def conserved(case: Case) -> Verdict:
    """Checks B's account at each cut, the last one also against the ledger, and its capacity against the rig."""
    evidence, tally = case.evidence, Tally(case, Property.CONSERVED)
    stores, possible = numbers(evidence.stores, len(StoreCount._fields))
    capacity, free, live, freed = stores.T
    leaking = np.flatnonzero((free + live + freed != capacity) | ~possible)
    for cut in tally.each(leaking):
        count = evidence.stores[cut]
        detail = f"free {count.free} + freed {count.freed} + live {count.live} is not capacity {count.capacity}"
        tally.card("leak", None, f"cut {cut + 1}: {detail}")
    blocks = evidence.store_blocks if evidence.store_blocks is not None else int(capacity[-1]) if len(stores) else 0
    if len(stores) and capacity[-1] != blocks:
        for _ in tally.each(np.zeros(1, np.int64)):
            told = evidence.stores[-1].capacity
            tally.card("miscount", None, f"B counts {told} blocks, the rig has given the store {blocks}")
    if len(stores) and evidence.ledger is not None:
        tally.strays(case.strays_of_ledger)
        position, listed = case.ledger.position, len(evidence.ledger)
        if listed != live[-1]:
            for _ in tally.each(np.zeros(1, np.int64)):
                detail = f"the ledger lists {listed} live positions, B counts {evidence.stores[-1].live}"
                tally.card("miscount", None, detail)
        doubled = position == np.append(position[1:], -1)
        for row in tally.each(np.flatnonzero(doubled | (position < 0) | (position >= blocks))):
            what = "listed twice" if doubled[row] else f"outside the capacity of {blocks}"
            lba, place = int(case.ledger.lba[row]), int(position[row])
            tally.card("misplaced", lba, f"position {place} is {what}", position=place)
    return tally.verdict(len(stores), "B's account was never taken")
