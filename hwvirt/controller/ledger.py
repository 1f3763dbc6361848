"""B's ledger: what lies at each position of the second volume, and for whom.

One row a block: position → (volume, first LBA, sequence, generation, CRC-32C of the data). Runs of blocks that a volume
has unmapped leave a tombstone, so that a lost map is rebuilt with its zeroes. Pure: the journal is somebody else's.
"""

from __future__ import annotations

import mmap
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from hwvirt.controller.allocator import Allocator
from hwvirt.controller.correlation import Rows
from hwvirt.controller.position import Columns, distinct, lbas_of, stretches
from hwvirt.controller.tombstones import Tombstone, Tombstones
from hwvirt.link.messages import Placement, Slice

__all__ = ["REGION_BLOCKS", "ROW", "Kind", "Ledger", "tomb_rows"]

ROW = np.dtype(
    [
        ("position", "<u8"),  # B's LBA; of a tombstone: how many blocks were unmapped
        ("generation", "<u4"),
        ("crc", "<u4"),
        ("lba", "<u8"),
        ("sequence", "<u8"),
        ("volume", "<u4"),
        ("kind", "<u4"),
    ]
)
"""One row of the ledger on the wire and in the journal: 40 bytes."""


class Kind:
    """What a row says."""

    FREED = 0
    LIVE = 1
    TOMBSTONE = 2


REGION_BLOCKS = 1024
"""Live blocks are counted by regions of so many LBAs: who drops whole regions that are empty need not be kept waiting."""
_REGION_BITS = 48
_TOMB = 1 << 62
_LBA_BITS = 40  # of keys in the listing: small enough for who reads JSON numbers as floating point
_WINDOW = 1 << 18
_FEW = 8
"""Up to so many blocks are recorded one by one, which takes less time than to record them as columns."""


class _Cells:
    """The columns of a ledger again, for one block at a time: as an array each would cost its conversion."""

    def __init__(self, memory: mmap.mmap, capacity: int) -> None:
        wide = memoryview(memory)[: capacity * 16].cast("Q")
        narrow = memoryview(memory)[capacity * 16 : capacity * 28].cast("I")
        self.lbas, self.sequences = wide[:capacity], wide[capacity:]
        self.generations, self.crcs, self.volumes = (narrow[at * capacity : (at + 1) * capacity] for at in range(3))


class Ledger:
    """The rows of a second volume of `capacity` blocks. Live means: the allocator says so."""

    def __init__(self, capacity: int, allocator: Allocator) -> None:
        self.capacity = capacity
        self._allocator = allocator
        memory = mmap.mmap(-1, max(1, capacity) * 28)
        self._lbas: Columns = np.frombuffer(memory, np.uint64, capacity)
        self._sequences: Columns = np.frombuffer(memory, np.uint64, capacity, capacity * 8)
        self._generations = np.frombuffer(memory, np.uint32, capacity, capacity * 16)
        self._crcs = np.frombuffer(memory, np.uint32, capacity, capacity * 20)
        self._volumes = np.frombuffer(memory, np.uint32, capacity, capacity * 24)  # 0: not live; else volume + 1
        self._cells = _Cells(memory, capacity)
        self._tombstones: dict[int, Tombstones] = {}
        self._changed: list[Columns] = []
        self._changed_blocks: list[int] = []
        self._regions: Counter[tuple[int, int]] = Counter()  # live blocks by volume and region of its LBAs
        self._buried: list[tuple[int, Tombstone]] = []  # in order, with their volumes; sequence 0: dropped
        self._doubtful: Columns = np.empty(0, np.uint64)  # live positions, in order
        self.last_sequence = 0

    def record(self, volume: int, slices: Sequence[Slice], placements: Sequence[Placement], digests: array[int]) -> None:
        """The slices' blocks, in order, lie at the placements' blocks with these digests."""
        cells, done = self._cells, 0
        for lba, blocks, sequence, at, generation in stretches(slices, placements):
            self._count(volume, lba, blocks)
            if blocks <= _FEW:
                for index in range(blocks):
                    cells.lbas[at + index] = lba + index
                    cells.sequences[at + index] = sequence
                    cells.generations[at + index] = generation
                    cells.crcs[at + index] = digests[done + index]
                    cells.volumes[at + index] = volume + 1
                    self._changed_blocks.append(at + index)
            else:
                window = slice(at, at + blocks)
                self._lbas[window] = np.arange(lba, lba + blocks, dtype=np.uint64)
                self._sequences[window] = sequence
                self._generations[window] = generation
                self._crcs[window] = digests[done : done + blocks]
                self._volumes[window] = volume + 1
                self._changed.append(np.arange(at, at + blocks, dtype=np.uint64))
            done += blocks
            self.last_sequence = max(self.last_sequence, sequence)

    def _count(self, volume: int, lba: int, blocks: int) -> None:
        while blocks:
            region = lba // REGION_BLOCKS
            part = min(blocks, (region + 1) * REGION_BLOCKS - lba)
            self._regions[volume, region] += part
            lba += part
            blocks -= part

    def bury(self, volume: int, slices: Sequence[Slice]) -> None:
        """The slices' blocks read as zeroes as of their sequence numbers."""
        tombs = self._tombstones.setdefault(volume, Tombstones())
        for one in slices:
            tombs.bury(*one)
            self._buried.append((volume, Tombstone(*one)))
            self.last_sequence = max(self.last_sequence, one.sequence)

    def holds(self, place: Placement) -> bool:
        """Whether every block of the placement is live in the placement's generation."""
        lba, generation, blocks = place
        if blocks == 1 and lba < self.capacity:
            return bool(self._cells.volumes[lba]) and self._cells.generations[lba] == generation
        window = slice(lba, lba + blocks)
        volumes = self._volumes[window]
        return bool(len(volumes) == blocks and volumes.all() and (self._generations[window] == generation).all())

    def digests(self, place: Placement) -> array[int]:
        """The digests of the placement's blocks."""
        return array("I", self._cells.crcs[place.lba : place.lba + place.blocks])

    def free(self, volume: int, placements: Sequence[Placement]) -> int:
        """The volume names these positions no longer. Returns how many blocks were not the volume's to free; they stay.

        What is free already is no matter: the answer to the first request may have been lost.
        """
        if not placements:
            return 0
        at, generations = _unrolled(placements)
        owners, same = self._volumes[at], self._generations[at] == generations
        mine = (owners == volume + 1) & same
        self._release(distinct(at[mine]))
        return len(at) - int(np.count_nonzero(mine | (owners == 0) & same))

    def drop(self, volume: int, lba: int, blocks: int) -> None:
        """Nothing is left of the volume's blocks `lba` to `lba + blocks`: neither rows nor tombstones."""
        if self._may_hold(volume, lba, blocks):
            mine = (self._volumes == volume + 1) & (self._lbas >= lba) & (self._lbas < lba + blocks)
            self._release(np.flatnonzero(mine).astype(np.uint64))
        if tombs := self._tombstones.get(volume):
            tombs.drop(lba, blocks)
            self._buried.append((volume, Tombstone(lba, blocks, 0)))

    def _may_hold(self, volume: int, lba: int, blocks: int) -> bool:
        """Whether there are rows of the volume in the regions of these blocks: to look for them takes a look at all rows."""
        regions = range(lba // REGION_BLOCKS, -(-(lba + blocks) // REGION_BLOCKS))
        if len(regions) < len(self._regions):
            return any((volume, region) in self._regions for region in regions)
        return any(of == volume and region in regions for of, region in self._regions)

    def _release(self, at: Columns) -> None:
        if len(at):
            starts = np.concatenate(([0], np.flatnonzero(np.diff(at) != 1) + 1))
            counts = np.diff(np.append(starts, len(at)))
            runs = zip(at[starts].tolist(), self._generations[at[starts]].tolist(), counts.tolist(), strict=True)
            self._allocator.give_back([Placement(*run) for run in runs])
            for region, count in self._counts_of(at).items():
                self._regions[region] -= count
                if not self._regions[region]:
                    del self._regions[region]
            self._volumes[at] = 0
            self._changed.append(at)
            if len(self._doubtful):
                self._doubtful = np.setdiff1d(self._doubtful, at, assume_unique=True)

    def _counts_of(self, at: Columns) -> dict[tuple[int, int], int]:
        """The live positions, by volume and region."""
        volumes = self._volumes[at].astype(np.uint64) - np.uint64(1)
        keys = volumes << np.uint64(_REGION_BITS) | self._lbas[at] // np.uint64(REGION_BLOCKS)
        found, counts = np.unique(keys, return_counts=True)
        pairs = zip(found.tolist(), counts.tolist(), strict=True)
        return {(key >> _REGION_BITS, key & ((1 << _REGION_BITS) - 1)): count for key, count in pairs}

    def doubt_changes(self) -> None:
        """What lies at the live positions among the changes may be lost: they are no changes any more, they wait.

        Until they are freed, or `give_up_doubtful`, they can be read, and do not become durable.
        """
        at = self._changed_positions()
        self._doubtful = distinct(np.concatenate((self._doubtful, at[self._volumes[at] > 0])))

    def give_up_doubtful(self) -> bool:
        """Frees what is in doubt. Returns whether there was anything."""
        at = self._doubtful
        self._release(at)
        return len(at) > 0

    def _changed_positions(self) -> Columns:
        return distinct(np.concatenate((*self._changed, np.array(self._changed_blocks, np.uint64))))

    def take_changes(self) -> Rows:
        """Rows that changed since the last call, with their present values."""
        at = self._changed_positions()
        if len(self._doubtful):
            at = np.setdiff1d(at, self._doubtful, assume_unique=True)
        rows = np.concatenate((self._live_rows(at), tomb_rows(self._buried)))
        self._changed.clear()
        self._changed_blocks.clear()
        self._buried.clear()
        return rows

    def put_back(self, rows: Rows) -> None:
        """Taken changes that did not become durable are changes again."""
        tombs = rows["kind"] == Kind.TOMBSTONE
        self._changed.append(rows["position"][~tombs])
        self._buried[:0] = _tombs_of(rows[tombs])  # what came since comes after them

    def rows(self) -> Rows:
        """Every live row in order of position, then every tombstone."""
        live = self._live_rows(np.flatnonzero(self._volumes).astype(np.uint64))
        tombs = tomb_rows((volume, tomb) for volume, of in self._tombstones.items() for tomb in of.since(0))
        return np.concatenate((live, tombs))

    def rows_of(self, volume: int) -> Rows:
        """The rows of one volume, live ones by position, then tombstones by LBA: in the order of their keys."""
        return self.page(volume, None, self.capacity + len(self._tombstones.get(volume, ())))[0]

    def page(self, volume: int, after: int | None, limit: int) -> tuple[Rows, int | None]:
        """At most `limit` rows of a volume behind the key `after`, and the key to go on from, None at the end."""
        start = 0 if after is None else after + 1
        rows = self._live_rows(self._positions_from(start, limit + 1, volume))
        tombs = self._tombstones.get(volume)
        if tombs and len(rows) <= limit:
            behind = islice(tombs.since(max(0, start - _TOMB)), limit + 1 - len(rows))
            rows = np.concatenate((rows, tomb_rows((volume, tomb) for tomb in behind)))
        page = rows[:limit]
        return page, _key(page[-1]) if len(rows) > limit else None

    def listing(self, start: int, limit: int) -> tuple[Rows, int | None]:
        """At most `limit` rows of all volumes, those of `rows()` from the key `start` on, and the key to go on from."""
        at = self._positions_from(start, limit + 1)
        tombs = list(islice(self._tombs_from(start), limit + 1 - len(at)))
        rows = np.concatenate((self._live_rows(at), tomb_rows((volume, tomb) for _, volume, tomb in tombs)))
        if len(rows) <= limit:
            return rows, None
        return rows[:limit], int(at[limit]) if len(at) > limit else tombs[limit - len(at)][0]

    def _tombs_from(self, start: int) -> Iterator[tuple[int, int, Tombstone]]:
        """Tombstones from the key `start` on with their keys and volumes. A volume keeps its place among them."""
        for place, (volume, tombs) in enumerate(self._tombstones.items()):
            first = self.capacity + (place << _LBA_BITS)
            for tomb in tombs.since(max(0, start - first)):
                yield first + tomb.lba, volume, tomb

    def _positions_from(self, start: int, most: int, volume: int | None = None) -> Columns:
        """The first live positions from `start` on; of one volume, or of all."""
        found = [np.empty(0, np.uint64)]
        count = 0
        for at in range(start, self.capacity, _WINDOW):
            owners = self._volumes[at : at + _WINDOW]
            found.append((np.flatnonzero(owners if volume is None else owners == volume + 1) + at).astype(np.uint64))
            count += len(found[-1])
            if count >= most:
                break
        positions: Columns = np.concatenate(found)[:most]
        return positions

    def apply(self, rows: Rows) -> None:
        """Sets rows as the journal says: recovery. The allocator learns of them from `recovered()`."""
        tombs = rows["kind"] == Kind.TOMBSTONE
        blocks, at = rows[~tombs], rows["position"][~tombs]
        self._lbas[at], self._sequences[at] = blocks["lba"], blocks["sequence"]
        self._generations[at], self._crcs[at] = blocks["generation"], blocks["crc"]
        self._volumes[at] = np.where(blocks["kind"] == Kind.LIVE, blocks["volume"] + 1, 0)
        for volume, tomb in _tombs_of(rows[tombs]):
            known = self._tombstones.setdefault(volume, Tombstones())
            if tomb.sequence:
                known.bury(*tomb)
            else:
                known.drop(tomb.lba, tomb.blocks)
        self.last_sequence = max(self.last_sequence, int(rows["sequence"].max(initial=0)))

    def recovered(self) -> None:
        """Recovery is over: the allocator takes what is live."""
        live = np.flatnonzero(self._volumes).astype(np.uint64)
        self._allocator.mark_live(live)
        self._regions = Counter(self._counts_of(live))

    def _live_rows(self, at: Columns) -> Rows:
        rows = np.zeros(len(at), ROW)
        rows["position"], rows["lba"], rows["sequence"] = at, self._lbas[at], self._sequences[at]
        rows["generation"], rows["crc"] = self._generations[at], self._crcs[at]
        live = self._volumes[at] > 0
        rows["volume"] = np.where(live, self._volumes[at] - 1, 0)
        rows["kind"] = np.where(live, Kind.LIVE, Kind.FREED)
        return rows


def _unrolled(placements: Sequence[Placement]) -> tuple[Columns, Columns]:
    """The LBA and the generation of every block of the placements."""
    generations = np.array([place.generation for place in placements], np.uint64)
    at = lbas_of([(place.lba, place.blocks) for place in placements])
    return at, np.repeat(generations, [place.blocks for place in placements])


def _key(row: np.void) -> int:
    """A number for each row that does not change while the row lives: a position, or a mark and a tombstone's LBA."""
    return int(row["lba"]) + _TOMB if row["kind"] == Kind.TOMBSTONE else int(row["position"])


def tomb_rows(tombs: Iterable[tuple[int, Tombstone]]) -> Rows:
    """The rows of tombstones, given with their volumes."""
    rows = [(blocks, 0, 0, lba, sequence, volume, Kind.TOMBSTONE) for volume, (lba, blocks, sequence) in tombs]
    return np.array(rows, ROW)


def _tombs_of(rows: Rows) -> Iterator[tuple[int, Tombstone]]:
    for blocks, _, _, lba, sequence, volume, _ in rows.tolist():
        yield volume, Tombstone(lba, blocks, sequence)
