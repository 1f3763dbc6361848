"""Consistent, durable, fenced: what the reads of the history say about the order of things."""

from __future__ import annotations

import numpy as np

from hwvirt.rig.judge.block import FOREIGN
from hwvirt.rig.judge.case import Case, Tally
from hwvirt.rig.judge.content import wrong_version
from hwvirt.rig.judge.tables import Bools, Rule
from hwvirt.rig.judge.verdict import Property, Verdict

__all__ = ["consistent", "durable", "fenced"]

_SENTENCES = {
    Rule.ORDER: "no order of the overlapping requests explains it",
    Rule.EARLY: "that write had not begun",
    Rule.LATE: "that write had failed before a newer one began and was acknowledged",
    Rule.LOST: "a flush had covered newer data before the power cut",
    Rule.UNWRITTEN: "no write gave the block this version",
    Rule.TORN: "the block is not whole",
    Rule.MISDIRECTED: "the block is another one's",
    Rule.FOREIGN: "this history never wrote it",
}


def consistent(case: Case) -> Verdict:
    """Checks every block of every answered read: some order of the overlapping requests must allow its version."""
    tally = Tally(case, Property.CONSISTENT)
    _accuse_reads(case, tally, case.register.accusations.rule >= 0)
    return tally.verdict(case.register.reads, "no read was answered")


def durable(case: Case) -> Verdict:
    """Checks every block that was read after a power cut and not written since: what a completed flush covered is there."""
    tally = Tally(case, Property.DURABLE)
    _accuse_reads(case, tally, case.register.accusations.rule == Rule.LOST)
    return tally.verdict(case.register.after_cut, "nothing of before a power cut was read after one")


def fenced(case: Case) -> Verdict:
    """Checks every block write that failed or was in doubt before a newer one was acknowledged: it must not land later."""
    tally = Tally(case, Property.FENCED)
    _accuse_reads(case, tally, case.register.accusations.rule == Rule.LATE)
    if case.stored is not None:
        wrong = np.flatnonzero(~case.register.permits(case.placed.lba, case.stored.version) & (case.stored.version > 0))
        pairs = zip(case.placed.lba[wrong].tolist(), case.stored.version[wrong].tolist(), strict=True)
        late = np.array([wrong_version(case, lba, version) == "late" for lba, version in pairs], np.bool_)
        for index in tally.each(wrong[late]):
            lba = int(case.placed.lba[index])
            owner, words = case.seen_as(case.stored, index, lba)
            detail = f"the second disk holds {words}: {_SENTENCES[Rule.LATE]}"
            tally.card("late", lba, detail, expected=case.expected(lba), found=owner)
    return tally.verdict(case.register.doubted, "no write without success was followed by an acknowledged one")


def _accuse_reads(case: Case, tally: Tally, wanted: Bools) -> None:
    found = case.register.accusations
    for row in tally.each(np.flatnonzero(wanted)):
        rule, lba, number = Rule(int(found.rule[row])), int(found.lba[row]), int(found.number[row])
        owner, expected = case.owner(lba, int(found.found[row])), int(found.expected[row])
        words = case.history.strange.get((number, lba), owner.text())
        detail = f"read #{number} returned {words}: {_SENTENCES[rule]}"
        right = () if expected == FOREIGN else (case.owner(lba, expected),)
        tally.card(rule.name.lower(), lba, detail, expected=right, found=owner)
