"""Content: the block read directly from the second disk at its position is the newest acknowledged version."""

from __future__ import annotations

import numpy as np

from hwvirt.rig.judge.block import FOREIGN, MISDIRECTED, TORN, ZEROED
from hwvirt.rig.judge.case import Case, Tally
from hwvirt.rig.judge.evidence import BlockReader, State
from hwvirt.rig.judge.history import CHANGES, Fate
from hwvirt.rig.judge.survey import survey
from hwvirt.rig.judge.verdict import Property, Verdict

__all__ = ["content", "wrong_version"]

_STRANGE = {TORN: "torn", MISDIRECTED: "misdirected", FOREIGN: "foreign", ZEROED: "zeroes"}


def content(case: Case) -> Verdict:
    """Checks every mapped block: whole, this LBA's, of a version that a read may return now, with the ledger's CRC.

    Entries that no block of the volume can have are accused as such. Of a unit that has no map, every block that the history
    touched, on its own disk.
    """
    tally = Tally(case, Property.CONTENT)
    if case.evidence.map is None and case.evidence.state is State.OWN and case.evidence.first is not None:
        return _on_its_own_disk(case, tally, case.evidence.first)
    stored = case.stored
    if case.evidence.map is None or stored is None:
        return tally.not_checked("the map was not taken, or the second disk cannot be read")
    tally.strays(case.strays_of_map)
    placed = case.placed
    row, known = case.ledger_rows(placed.position)
    right = case.register.permits(placed.lba, stored.version) & (stored.version != FOREIGN)
    digest = np.where(known, case.ledger.crc[row], stored.digest) if len(case.ledger.crc) else stored.digest
    for index in tally.each(np.flatnonzero(~right | (digest != stored.digest))):
        lba, position, version = int(placed.lba[index]), int(placed.position[index]), int(stored.version[index])
        owner, words = case.seen_as(stored, index, lba)
        if right[index]:
            kind, words = "digest", f"CRC-32C {int(stored.digest[index]):08x}, the ledger has {int(digest[index]):08x}"
        else:
            kind = wrong_version(case, lba, version)
        detail = f"position {position} of the second disk holds {words}"
        tally.card(kind, lba, detail, expected=case.expected(lba), found=owner)
    return tally.verdict(len(placed.lba), "nothing is redirected")


def _on_its_own_disk(case: Case, tally: Tally, disk: BlockReader) -> Verdict:
    blocks = np.unique(case.register.finals.lba)
    found = survey(disk, blocks, blocks, case.history)
    for index in tally.each(np.flatnonzero(~case.register.permits(blocks, found.version))):
        lba = int(blocks[index])
        owner, words = case.seen_as(found, index, lba)
        kind = wrong_version(case, lba, int(found.version[index]))
        tally.card(kind, lba, f"the disk holds {words}", expected=case.expected(lba), found=owner)
    return tally.verdict(len(blocks), "no block was used")


def wrong_version(case: Case, lba: int, version: int) -> str:
    """The class of a version that block `lba` may not hold."""
    if version in _STRANGE:
        return _STRANGE[version]
    if version > len(case.history):
        return "unwritten"
    op = case.history.operation(version)
    if op.kind not in CHANGES or not op.lba <= lba < op.lba + op.blocks:
        return "unwritten"
    return "stale" if op.fate <= Fate.DURABLE else "late"
