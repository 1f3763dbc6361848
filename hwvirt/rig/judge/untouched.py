"""Untouched: while redirecting, no write CDB reached the first disk and its digest is unchanged."""

from __future__ import annotations

import numpy as np

from hwvirt.rig.judge.case import Case, Tally
from hwvirt.rig.judge.evidence import State
from hwvirt.rig.judge.survey import read_digests
from hwvirt.rig.judge.verdict import Property, Verdict

__all__ = ["untouched"]


def untouched(case: Case) -> Verdict:
    """Checks every block of the first volume against its digest, and that nobody sent a medium-changing command."""
    evidence, tally = case.evidence, Tally(case, Property.UNTOUCHED)
    if evidence.state != State.REDIRECTING:
        return tally.not_checked("the volume is not redirecting")
    if evidence.baseline is None or evidence.first is None or evidence.witnessed is None:
        return tally.not_checked("the first disk was not observed when redirection began")
    for index in tally.each(np.arange(len(evidence.witnessed))):
        record = evidence.witnessed[index]
        detail = f"command {record.opcode:02x}h for {record.blocks} blocks was sent to the first disk"
        tally.card("written", record.lba, detail)
    now = read_digests(evidence.first, evidence.blocks, case.history.block_bytes)
    before, after = np.asarray(evidence.baseline), np.asarray(now)
    for lba in tally.each(np.flatnonzero(before != after)):
        tally.card("changed", lba, f"CRC-32C was {before[lba]:08x} when redirection began and is {after[lba]:08x}")
    return tally.verdict(len(now), "the first volume has no blocks")
