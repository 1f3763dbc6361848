"""Mends a redirected volume after a restart of either side: the newest sequence number decides, block by block."""

from __future__ import annotations

import numpy as np

from hwvirt.controller.correlation import Rows
from hwvirt.controller.ledger import Kind
from hwvirt.controller.position import MAPPED, NEXT_BLOCK, Columns
from hwvirt.controller.redirect import RedirectVolume
from hwvirt.controller.states import State
from hwvirt.controller.store import Store
from hwvirt.errors import StateError
from hwvirt.link.messages import Placement, Slice

__all__ = ["reconcile", "send_again"]


async def send_again(volume: RedirectVolume, store: Store) -> None:
    """The store has restarted: what it answered and no flush has covered is sent once more, in order.

    Sequence numbers stay, so blocks that were written again since keep their newer position.
    """
    for one in volume.unflushed:
        # They stay unflushed: when this is cut short, the next session sends all of them again.
        if one.data:
            placements = await store.write(volume.number, one.slices, one.data, one.digests)
            volume.superseded += volume.map.bind(one.slices, placements)
        else:
            await store.unmap(volume.number, one.slices)
            volume.superseded += volume.map.unmap(one.slices)


async def reconcile(volume: RedirectVolume, store: Store) -> None:
    """Makes the map and the store's ledger one-to-one. No write of the volume may be under way.

    A row that is newer than the map's entry is adopted: the store had it, the host may have been told. Rows that nothing
    names are given up with the next flush, when the map is durable. Raises StateError when the map names a position that
    the ledger does not have.
    """
    rows = await store.ledger(volume.number)
    live, tombs = rows[rows["kind"] == Kind.LIVE], rows[rows["kind"] == Kind.TOMBSTONE]
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
