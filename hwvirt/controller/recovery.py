"""Mends a redirected volume after a restart of either side: the newest sequence number decides, block by block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwvirt.controller.correlation import Rows
from hwvirt.controller.ledger import ROW, Kind, tomb_rows
from hwvirt.controller.position import MAPPED, NEXT_BLOCK, Columns, lbas_of
from hwvirt.controller.redirect import RedirectVolume
from hwvirt.controller.states import State
from hwvirt.controller.store import Store
from hwvirt.controller.tombstones import Tombstone
from hwvirt.controller.unflushed import Sent
from hwvirt.errors import StateError
from hwvirt.link.messages import Placement, Slice

__all__ = ["durable_ledger", "reconcile", "send_again"]


async def durable_ledger(volume: RedirectVolume, store: Store) -> Rows:
    """The ledger's rows of the volume, all of them durable: what is taken over from them cannot be lost once more.

    No write of the volume may be under way.
    """
    await store.flush(volume.number)
    return await store.ledger(volume.number)


async def send_again(volume: RedirectVolume, store: Store, rows: Rows) -> Rows:
    """The store has restarted: what it answered and no flush has covered is sent once more, in order.

    `rows`: its ledger. What stands there, or is older than what stands there, is not sent: there might be no room for it
    twice. Returns the rows with those of what was sent.
    """
    known = _newest_sequences(volume.blocks, rows)
    sent = [rows]
    for one in volume.unflushed:
        # They stay unflushed: when this is cut short, the next session sends what is missing then.
        if not any((known[lba : lba + blocks] < sequence).any() for lba, blocks, sequence in one.slices):
            continue
        if one.data:
            placements = await store.write(volume.number, one.slices, one.data, one.digests)
            sent.append(_live_rows(volume.number, one, placements))
        else:
            await store.unmap(volume.number, one.slices)
            sent.append(tomb_rows((volume.number, Tombstone(*unmapped)) for unmapped in one.slices))
    return np.concatenate(sent)


def reconcile(volume: RedirectVolume, rows: Rows) -> None:
    """Makes the map and the store's ledger one-to-one. `rows` are the ledger as it is now.

    A row that is newer than the map's entry is adopted: the store had it, the host may have been told. Rows that nothing
    names are given up with the next flush, when the map is durable. Raises StateError when the map names a position that
    the ledger does not have.
    """
    live, tombs = _by_kind(rows)
    # Blocks that are back on the first disk may have been written there since.
    first = volume.committed_below if volume.state is State.COMMITTING else 0
    newest = _newest_of_each_block(live[live["lba"] >= first])
    volume.map.bind(_slices(newest), _placements(newest))
    volume.map.unmap(_unmapped(tombs, first))
    _refuse_dangling(volume, live)
    orphans = live[volume.map.positions_at(live["lba"]) != _packed(live)]
    # The ledger decides what there is to give up: whatever was waiting for a flush is among its orphans.
    volume.superseded = _placements(orphans)
    volume.reconciled += 1
    volume.sequence = max(volume.sequence, volume.map.last_sequence(), int(rows["sequence"].max(initial=0)))


def _by_kind(rows: Rows) -> tuple[Rows, Rows]:
    return rows[rows["kind"] == Kind.LIVE], rows[rows["kind"] == Kind.TOMBSTONE]


def _newest_sequences(blocks: int, rows: Rows) -> Columns:
    """By block, the newest sequence number in the ledger, 0 where it has none."""
    live, tombs = _by_kind(rows)
    known: Columns = np.zeros(blocks, np.uint64)
    newest = _newest_of_each_block(live)
    known[newest["lba"]] = newest["sequence"]
    for lba, of, sequence in _unmapped(tombs, 0):
        window = known[lba : lba + of]
        np.maximum(window, np.uint64(sequence), out=window)
    return known


def _live_rows(volume: int, sent: Sent, placements: Sequence[Placement]) -> Rows:
    blocks = [one.blocks for one in sent.slices]
    rows = np.zeros(sum(blocks), ROW)
    rows["lba"] = lbas_of([(one.lba, one.blocks) for one in sent.slices])
    rows["sequence"] = np.repeat([one.sequence for one in sent.slices], blocks)
    rows["position"] = lbas_of([(place.lba, place.blocks) for place in placements])
    rows["generation"] = np.repeat([place.generation for place in placements], [place.blocks for place in placements])
    rows["volume"], rows["kind"], rows["crc"] = volume, Kind.LIVE, sent.digests
    return rows


def _newest_of_each_block(rows: Rows) -> Rows:
    # What was sent twice has two rows with one number: the map names the one that was taken last.
    order = np.lexsort((rows["position"], rows["generation"], rows["sequence"], rows["lba"]))
    rows = rows[order]
    last = np.append(np.diff(rows["lba"]) != 0, True)[: len(rows)]
    newest: Rows = rows[last]
    return newest


def _refuse_dangling(volume: RedirectVolume, live: Rows) -> None:
    mapped = volume.map.rows()
    mapped = mapped[mapped["position"] >= MAPPED]
    named = _unrolled(mapped, "position", NEXT_BLOCK)
    lost = np.flatnonzero(~np.isin(named, _packed(live)))
    if len(lost):
        raise StateError(
            f"volume {volume.number}: the ledger of the second controller lacks {len(lost)} positions that the map names, "
            f"first at LBA {int(_unrolled(mapped, 'lba', 1)[lost[0]])}.",
            next_step="Restore the second controller's state directory, or discard the redirection.",
        )


def _unrolled(rows: Rows, column: str, step: int) -> Columns:
    counts = rows["blocks"].astype(np.int64)
    ends = np.cumsum(rows["blocks"], dtype=np.uint64)
    within = np.arange(counts.sum(), dtype=np.uint64) - np.repeat(ends - rows["blocks"], counts)
    unrolled: Columns = np.repeat(rows[column], counts) + within * np.uint64(step)
    return unrolled


def _packed(rows: Rows) -> Columns:
    packed: Columns = (
        np.uint64(MAPPED) + rows["position"] * np.uint64(NEXT_BLOCK) + rows["generation"]
    )
    return packed


def _slices(rows: Rows) -> list[Slice]:
    return [Slice(lba, 1, sequence) for lba, sequence in zip(rows["lba"].tolist(), rows["sequence"].tolist(), strict=True)]


def _unmapped(tombs: Rows, first: int) -> list[Slice]:
    """What the tombstones say of the blocks from `first` on."""
    runs = ((int(row["lba"]), int(row["position"]), int(row["sequence"])) for row in tombs)
    return [
        Slice(max(lba, first), lba + blocks - max(lba, first), sequence)
        for lba, blocks, sequence in runs
        if lba + blocks > first
    ]


def _placements(rows: Rows) -> list[Placement]:
    pairs = zip(rows["position"].tolist(), rows["generation"].tolist(), strict=True)
    return [Placement(lba, generation, 1) for lba, generation in pairs]
