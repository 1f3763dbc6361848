"""Frozen: while redirecting, the frozen LU still shows the original, byte for byte."""

from __future__ import annotations

import numpy as np

from hwvirt.rig.judge.case import Case, Tally
from hwvirt.rig.judge.evidence import State
from hwvirt.rig.judge.survey import read_digests
from hwvirt.rig.judge.verdict import Property, Verdict

__all__ = ["frozen"]


def frozen(case: Case) -> Verdict:
    """Checks every block that the frozen LU shows against its digest of when redirection began."""
    evidence, tally = case.evidence, Tally(case, Property.FROZEN)
    if evidence.state != State.REDIRECTING:
        return tally.not_checked("the volume is not redirecting")
    if evidence.frozen is None or evidence.baseline is None:
        return tally.not_checked("there is no frozen LU, or redirection never began")
    shown = read_digests(evidence.frozen, evidence.blocks, case.history.block_bytes)
    before, after = np.asarray(evidence.baseline), np.asarray(shown)
    for lba in tally.each(np.flatnonzero(before != after)):
        tally.card("changed", lba, f"CRC-32C was {before[lba]:08x} when redirection began, and {after[lba]:08x} is shown")
    return tally.verdict(len(shown), "the frozen LU has no blocks")
