"""Exact: A's map and B's ledger are one-to-one."""

from __future__ import annotations

import numpy as np

from hwvirt.rig.judge.case import Case, Tally
from hwvirt.rig.judge.history import Ints
from hwvirt.rig.judge.tables import Bools
from hwvirt.rig.judge.verdict import Property, Verdict

__all__ = ["exact"]


def exact(case: Case) -> Verdict:
    """Checks every entry of the map and every entry of this volume in the ledger; each gets the first class that fits.

    Of the map: dangling (no live ledger entry), foreign (another volume's), alias (the position is another block's too, or
    the block has two entries), misdirected (another LBA's), stale (another generation or sequence), torn (the bytes at the
    position do not have the ledger's CRC). Of the ledger: orphan (no map entry names the position, or nobody is its volume).
    An entry that says zeroes has its tombstone: there is none (dangling), or it is another one's (stale). A tombstone that
    is newer than what the map says of its block is stale, too: a map that is made again from the ledger would lose data. One
    whose volume nobody is, is an orphan. Rows of either that name blocks beyond the volume, or numbers that nothing has, are
    beyond or impossible, and nothing else is said of them.
    """
    evidence, tally = case.evidence, Tally(case, Property.EXACT)
    if evidence.map is None or evidence.ledger is None:
        return tally.not_checked("map or ledger was not taken")
    for strays in (case.strays_of_map, case.strays_of_ledger, case.strays_of_tombstones):
        tally.strays(strays)
    placed, ledger = case.placed, case.ledger
    row, known = case.ledger_rows(placed.position)
    twice, zero = _shared(case.map.lba), case.map.position < 0
    if not len(ledger.position):
        classes: list[tuple[str, Bools]] = [("dangling", ~known)]
    else:
        named = known & (ledger.volume[row] == evidence.volume) & (ledger.lba[row] == placed.lba)
        fresh = (ledger.generation[row] == placed.generation) & (ledger.sequence[row] == placed.sequence)
        crc = ledger.crc[row] if case.stored is None else case.stored.digest
        classes = [
            ("dangling", ~known),
            ("foreign", ledger.volume[row] != evidence.volume),
            ("alias", ~named & _shared(placed.position) | twice[~zero]),
            ("misdirected", ~named),
            ("stale", ~fresh),
            ("torn", crc != ledger.crc[row]),
        ]
    sound = np.ones(len(placed.lba), np.bool_)
    for kind, wrong in classes:
        for index in tally.each(np.flatnonzero(sound & wrong)):
            lba, position = int(placed.lba[index]), int(placed.position[index])
            tally.card(kind, lba, _DETAILS[kind].format(position=position), expected=case.expected(lba), position=position)
        sound &= ~wrong

    zeroes_twice = np.setdiff1d(case.map.lba[twice & zero], placed.lba)
    for lba in tally.each(zeroes_twice):
        tally.card("alias", lba, "the map says more than once that the block reads as zeroes", expected=case.expected(lba))
    for kind, blocks in _unlike_tombstones(case).items():
        for lba in tally.each(blocks):
            tally.card(kind, lba, f"{_TOMBSTONES[kind]}, whose sequence is {case.buried[lba]}", expected=case.expected(lba))

    mine = ledger.volume == evidence.volume
    for index in tally.each(np.flatnonzero(mine & ~np.isin(ledger.position, placed.position))):
        lba, position = int(ledger.lba[index]), int(ledger.position[index])
        tally.card("orphan", lba, _DETAILS["orphan"].format(position=position), position=position)
    if evidence.volumes is not None:
        for row_ in tally.each(np.flatnonzero(~np.isin(ledger.volume, list(evidence.volumes)))):
            detail = f"position {ledger.position[row_]} is live for volume {ledger.volume[row_]}, which no logical unit is"
            tally.card("orphan", None, detail, position=int(ledger.position[row_]))
    compared = placed if evidence.tombstones is None else case.map
    return tally.verdict(len(compared.lba) + int(np.count_nonzero(mine)), "map and ledger are empty")


_DETAILS = {
    "dangling": "the map names position {position}, where the ledger has no live entry",
    "foreign": "the map names position {position}, which the ledger holds for another volume",
    "alias": "the map names position {position} for more than one block, or says several things of this block",
    "misdirected": "the map names position {position}, which the ledger holds for another LBA",
    "stale": "the map's generation or sequence at position {position} is not the ledger's",
    "torn": "the data at position {position} does not have the CRC-32C of the ledger",
    "orphan": "position {position} is live, but no map entry names it",
}


_TOMBSTONES = {
    "dangling": "the map says that the block reads as zeroes, and the ledger has no tombstone for it",
    "stale": "what the map says of the block does not go with the ledger's tombstone",
}


def _unlike_tombstones(case: Case) -> dict[str, Ints]:
    """Blocks of which map and tombstones say different things, by class."""
    if case.evidence.tombstones is None:
        return {}
    sequence, zero = np.zeros(case.evidence.blocks, np.int64), np.zeros(case.evidence.blocks, np.bool_)
    sequence[case.map.lba], zero[case.map.lba] = case.map.sequence, case.map.position < 0
    unlike = (case.buried > sequence) | zero & (case.buried < sequence)
    none = case.buried == 0
    return {"dangling": np.flatnonzero(unlike & none), "stale": np.flatnonzero(unlike & ~none)}


def _shared(values: Ints) -> Bools:
    """Which of the values occur more than once."""
    _, back, counts = np.unique(values, return_inverse=True, return_counts=True)
    shared: Bools = counts[back] > 1
    return shared
