"""Settled: after commit the first volume is the merged image and the map is empty; after discard it is the original."""

from __future__ import annotations

import numpy as np

from hwvirt.rig.judge.block import FOREIGN
from hwvirt.rig.judge.case import Case, Tally
from hwvirt.rig.judge.content import wrong_version
from hwvirt.rig.judge.evidence import State
from hwvirt.rig.judge.history import MarkKind
from hwvirt.rig.judge.survey import survey
from hwvirt.rig.judge.verdict import Property, Verdict

__all__ = ["settled"]

_ENDINGS = (MarkKind.COMMIT, MarkKind.DISCARD)


def settled(case: Case) -> Verdict:
    """Checks every block of the first volume, and that neither map nor ledger has anything left of it.

    A block that the history touched must hold a version that a read may return now; any other one its digest of when
    redirection began.
    """
    evidence, tally = case.evidence, Tally(case, Property.SETTLED)
    if not any(mark.kind in _ENDINGS for mark in case.history.marks) or evidence.state != State.OWN:
        return tally.not_checked("redirection has not ended")
    if evidence.first is None or evidence.baseline is None or evidence.map is None or evidence.ledger is None:
        return tally.not_checked("first disk, map or ledger was not taken")
    told = case.strays_of_map + case.strays_of_ledger + case.strays_of_tombstones
    tally.strays([stray for stray in told if stray.volume in (None, evidence.volume)])
    for index in tally.each(np.arange(len(case.map.lba))):
        tally.card("left", int(case.map.lba[index]), "the map still has an entry")
    for row in tally.each(np.flatnonzero(case.ledger.volume == evidence.volume)):
        position = int(case.ledger.position[row])
        tally.card("left", int(case.ledger.lba[row]), f"position {position} is still live", position=position)
    for lba in tally.each(np.flatnonzero(case.buried)):
        tally.card("left", lba, f"the ledger still has a tombstone of it, with sequence {case.buried[lba]}")

    blocks = np.arange(evidence.blocks)
    found = survey(evidence.first, blocks, blocks, case.history)
    allowed = case.register.permits(blocks, found.version)
    unknown = ~np.isin(blocks, case.register.finals.lba) | case.register.permits(blocks, np.full(len(blocks), FOREIGN))
    original = found.digest == np.asarray(evidence.baseline)
    for lba in tally.each(np.flatnonzero(~np.where(unknown, original, allowed))):
        owner, words = case.seen_as(found, lba, lba)
        kind = "changed" if unknown[lba] else wrong_version(case, lba, int(found.version[lba]))
        tally.card(kind, lba, f"the first disk holds {words}", expected=case.expected(lba), found=owner)
    return tally.verdict(len(blocks), "the first volume has no blocks")
