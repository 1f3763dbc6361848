"""Mends a redirected volume after a restart of either side: the newest sequence number decides, block by block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hwvirt.controller.correlation import CHANGE, Rows
from hwvirt.controller.ledger import ROW, Kind, tomb_rows
from hwvirt.controller.map_journal import refuse_beyond
from hwvirt.controller.position import MAPPED, NEXT_BLOCK, ZERO, Columns, lbas_of, portions, runs_of
from hwvirt.controller.redirect import RedirectVolume
from hwvirt.controller.states import State
from hwvirt.controller.store import Store
from hwvirt.controller.tombstones import Tombstone
from hwvirt.controller.unflushed import Sent
from hwvirt.errors import StateError
from hwvirt.link.messages import Placement

__all__ = ["RESTORE_IT", "durable_ledger", "reconcile", "send_again"]

RESTORE_IT = (
    "Restore the second controller's state directory; or give up what was redirected: discard it, or, where this controller "
    "does not start, remove its own state directory."
)
_PORTION = 1 << 18


async def durable_ledger(volume: RedirectVolume, store: Store) -> Rows:
    """The ledger's rows of the volume, all of them durable: what is taken over from them cannot be lost once more.

    No write of the volume may be under way. Raises StateError for rows beyond its end.
    """
    await store.flush(volume.number)
    rows = await store.ledger(volume.number)
    blocks = np.where(rows["kind"] == Kind.TOMBSTONE, rows["position"], np.uint64(1))
    refuse_beyond(volume.number, volume.blocks, rows["lba"] + blocks, "the ledger of the second controller")
    return rows


async def send_again(volume: RedirectVolume, store: Store, rows: Rows) -> Rows:
    """The store has restarted: what it answered and no flush has covered is sent once more, in order.

    `rows`: its `durable_ledger`. What stands there, or is older than what stands there, is not sent: there might be no room
    for it twice. Returns the rows with those of what was sent.
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
    return np.concatenate(sent) if len(sent) > 1 else rows


def reconcile(volume: RedirectVolume, rows: Rows) -> None:
    """Makes the map and the store's ledger one-to-one. `rows` are the `durable_ledger`, and what was sent again.

    A row that is newer than the map's entry is adopted: the store had it, the host may have been told. Rows that nothing
    names are given up with the next flush, when the map is durable. Raises StateError when the map names a position that
    the ledger does not have.
    """
    live, tombs = _by_kind(rows)
    # Blocks that are back on the first disk may have been written there since.
    first = volume.committed_below if volume.state is State.COMMITTING else 0
    newest = _newest_of_each_block(volume.blocks, _those(live, live["lba"] >= first))
    for start in range(0, len(newest), _PORTION):
        volume.map.adopt(_changes(newest[start : start + _PORTION]))
    volume.map.adopt(_unmapped(tombs, first))
    named = volume.map.positions_at(live["lba"]) == _packed(live)
    _refuse_dangling(volume, live["lba"][named])
    # The ledger decides what there is to give up: whatever was waiting for a flush is among its orphans.
    volume.superseded = runs_of(_packed(live[~named]))
    volume.reconciled += 1
    volume.sequence = max(volume.sequence, volume.map.last_sequence(), int(rows["sequence"].max(initial=0)))


def _by_kind(rows: Rows) -> tuple[Rows, Rows]:
    return _those(rows, rows["kind"] == Kind.LIVE), rows[rows["kind"] == Kind.TOMBSTONE]


def _those(rows: Rows, which: npt.NDArray[np.bool_]) -> Rows:
    """A ledger is large, and mostly it is all of them: not copied then."""
    return rows if which.all() else rows[which]


def _newest_sequences(blocks: int, rows: Rows) -> Columns:
    """By block, the newest sequence number in the ledger, 0 where it has none."""
    live, tombs = _by_kind(rows)
    known: Columns = np.zeros(blocks, np.uint64)
    newest = _newest_of_each_block(blocks, live)
    known[newest["lba"]] = newest["sequence"]
    unmapped = _unmapped(tombs, 0)
    for lbas, _, run in portions(unmapped["lba"], unmapped["blocks"], _PORTION):
        np.maximum.at(known, lbas, unmapped["sequence"][run])
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


def _newest_of_each_block(blocks: int, rows: Rows) -> Rows:
    """One row for each block that has any; `blocks` are the volume's."""
    lbas = rows["lba"]
    one = np.empty(blocks, np.int64)  # some row of each block that has any
    one[lbas] = np.arange(len(rows))
    others = one[lbas] != np.arange(len(rows))
    if not others.any():
        return rows
    several = np.zeros(blocks, np.bool_)
    several[lbas[others]] = True
    among = several[lbas]
    rivals = rows[among]
    # What was sent twice has two rows with one number: the map names the one that was taken last.
    rivals = rivals[np.lexsort((rivals["position"], rivals["generation"], rivals["sequence"], rivals["lba"]))]
    last = np.append(np.diff(rivals["lba"]) != 0, True)
    return np.concatenate((rows[~among], rivals[last]))


def _refuse_dangling(volume: RedirectVolume, named: Columns) -> None:
    """`named`: blocks whose entries in the map are in the ledger."""
    lost = volume.map.redirected()
    lost[named] = False
    if count := np.count_nonzero(lost):
        raise StateError(
            f"volume {volume.number}: the ledger of the second controller lacks {count} positions that the map names, "
            f"first at LBA {np.argmax(lost)}.",
            next_step=RESTORE_IT,
        )


def _packed(live: Rows) -> Columns:
    packed: Columns = np.uint64(MAPPED) + live["position"] * np.uint64(NEXT_BLOCK) + live["generation"]
    return packed


def _changes(live: Rows) -> Rows:
    """The entries that live rows call for."""
    changes = np.empty(len(live), CHANGE)
    changes["lba"], changes["blocks"], changes["position"] = live["lba"], 1, _packed(live)
    changes["sequence"] = live["sequence"]
    return changes


def _unmapped(tombs: Rows, first: int) -> Rows:
    """The entries that tombstones call for from the block `first` on, newer ones behind older ones."""
    tombs = tombs[np.argsort(tombs["sequence"], kind="stable")]
    ends = tombs["lba"] + tombs["position"]
    changes = np.empty(len(tombs), CHANGE)
    changes["lba"] = np.maximum(tombs["lba"], np.uint64(first))
    changes["blocks"] = ends - np.minimum(changes["lba"], ends)
    changes["position"], changes["sequence"] = ZERO, tombs["sequence"]
    return changes[changes["blocks"] > 0]
