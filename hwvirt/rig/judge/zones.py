"""One stretch of history between two marks: is every block an atomic register, and what may it hold at the end?

Ref: P. B. Gibbons, E. Korach, "Testing shared memories", SIAM J. Comput. 26 (1997): with unique values, the operations on
one value (a write and its reads) form a cluster. f is the earliest end in it, s the latest start. A cluster X must come
before Y where f(X) < s(Y); a register is atomic exactly when no two clusters must each come before the other.

Zero is the one value that several operations write. A read of zeroes is held against every unmap that could have caused it;
where only one could, it joins that one's cluster, else it stands alone. This accuses no correct register and lets few wrong
ones pass. All blocks are examined at once: a key is rank(block) * span + moment, so blocks never mix.
"""

from __future__ import annotations

import numpy as np

from hwvirt.rig.judge.block import FOREIGN, MISDIRECTED, TORN, ZEROED
from hwvirt.rig.judge.history import Ints
from hwvirt.rig.judge.tables import Accusations, Bools, Pairs, Reads, Rule, Writes, distinct, select

__all__ = ["Zones"]

_NOTHING = int(np.iinfo(np.int64).min)
_STRANGE = {TORN: Rule.TORN, MISDIRECTED: Rule.MISDIRECTED, FOREIGN: Rule.FOREIGN}


class _Reach:
    """How far the items reach that lie before a moment, and which of them reaches furthest."""

    def __init__(self, at: Ints, to: Ints) -> None:
        order = np.argsort(at, kind="stable")
        to = to[order]
        self._at, self._far = at[order], np.maximum.accumulate(to)
        self._who = order[np.maximum.accumulate(np.where(to == self._far, np.arange(len(to)), 0))]

    def before(self, moments: Ints) -> tuple[Ints, Ints]:
        """For each moment the furthest `to` of the items with `at` before it, and that item; else _NOTHING."""
        if not len(self._at):
            return np.full(len(moments), _NOTHING), np.zeros(len(moments), np.int64)
        last = np.searchsorted(self._at, moments) - 1
        return np.where(last >= 0, self._far[last], _NOTHING), self._who[last]


class Zones:
    """The clusters of one stretch, a row for each block of a write. No moment reaches `span - 1`."""

    def __init__(self, writes: Writes, reads: Reads, span: int) -> None:
        self.writes, self.reads, self._span = writes, reads, span
        self._blocks = np.unique(np.concatenate((writes.lba, reads.lba)))
        self._base = self._base_of(writes.lba)
        self._f, self._s = self._base + writes.end, self._base + writes.start
        self._last_read = np.maximum(writes.version, 0)
        self._observed = np.zeros(len(writes.lba), np.bool_)
        self._data = writes.version != ZEROED
        self._lone = np.empty(0, np.int64)
        self._found: list[Accusations] = []
        self._join_reads(select(reads, reads.version != ZEROED))
        self._join_zeroes(select(reads, reads.version == ZEROED))
        self._compare()
        self._catch_late()
        newest = np.zeros(len(self._blocks), np.int64)
        np.maximum.at(newest, (self._base // span)[writes.sure], writes.start[writes.sure])
        self.fenced: Bools = ~writes.sure & (writes.told < newest[self._base // span])
        """Rows without success that a newer acknowledged write of the block fences off."""

    def accusations(self) -> Accusations:
        """Every wrong read, once per block and read, in order of the reads."""
        found = Accusations(*(np.concatenate(column) for column in zip(*self._found, strict=True)))
        order = np.lexsort((found.rule, found.lba, found.number))
        number, lba = found.number[order], found.lba[order]
        fresh = np.ones(len(order), np.bool_)
        fresh[1:] = (np.diff(number) != 0) | (np.diff(lba) != 0)
        return select(found, order[fresh])

    def allowed(self) -> Pairs:
        """What a read that begins after everything else may return."""
        ended = self.writes.end < self._span - 1
        zoned = self._last(self._s, self._f, self._f - self._base < self._span - 1, ~self.fenced, self._lone)
        plain = self._last(self._base + self.writes.start, self._base + self.writes.end, ended, ~self.fenced, self._lone[:0])
        return self._where_explained(zoned, plain)

    def survivors(self) -> Pairs:
        """What may be there after a power cut at the end, none older than what is durable.

        Writes without success, too, where a newer acknowledged one fenced them off: they may have come before it.
        """
        writes, candidates, fence = self.writes, self.writes.sure | self.fenced, -self._newer()[0]
        start, end = self._base + writes.start, self._base + writes.end
        zoned = self._last(self._s, np.where(writes.sure, self._f, fence), writes.durable, candidates, self._lone[:0])
        plain = self._last(start, np.where(writes.sure, end, fence), writes.durable, candidates, self._lone[:0])
        return self._where_explained(zoned, plain)

    def _where_explained(self, zoned: Pairs, plain: Pairs) -> Pairs:
        """Reads say more about the order of writes than the writes alone, but not where no order explains the reads."""
        accused = [found.lba[(found.rule == Rule.ORDER) | (found.rule == Rule.LATE)] for found in self._found]
        unexplained = np.concatenate(accused)
        good, poor = ~np.isin(zoned.lba, unexplained), np.isin(plain.lba, unexplained)
        return distinct(np.append(zoned.lba[good], plain.lba[poor]), np.append(zoned.version[good], plain.version[poor]))

    def _base_of(self, lba: Ints) -> Ints:
        return np.searchsorted(self._blocks, lba) * self._span

    def _accuse(self, rule: Ints | Rule, lba: Ints, found: Ints | int, expected: Ints | int, number: Ints) -> None:
        columns = np.broadcast_arrays(np.int64(rule), lba, found, expected, number)
        self._found.append(Accusations(*columns))

    def _join_reads(self, reads: Reads) -> None:
        """Reads of data join the cluster of their write."""
        version, codes = self.writes.version, int(self.writes.version.max(initial=0)) + 1 - TORN
        keys = np.where(self._data, self._base // self._span * codes + version - TORN, -1)
        order = np.argsort(keys)
        code = np.minimum(reads.version - TORN, codes)  # a version beyond all others is one that nobody wrote
        wanted = self._base_of(reads.lba) // self._span * codes + code
        at = np.searchsorted(keys, wanted, sorter=order)
        row = order[np.minimum(at, len(order) - 1)] if len(order) else np.zeros(len(at), np.int64)
        written = (keys[row] == wanted) & (code < codes) if len(order) else np.zeros(len(at), np.bool_)

        strangers = select(reads, ~written)
        rules = np.full(len(strangers.lba), Rule.UNWRITTEN, np.int64)
        for strange, rule in _STRANGE.items():
            rules[strangers.version == strange] = rule
        self._accuse(rules, strangers.lba, strangers.version, self._newest(strangers), strangers.number)

        reads, row = select(reads, written), row[written]
        early = reads.end < self.writes.start[row]
        hasty = select(reads, early)
        self._accuse(Rule.EARLY, hasty.lba, hasty.version, self._newest(hasty), hasty.number)
        self._extend(row[~early], select(reads, ~early))

    def _extend(self, row: Ints, reads: Reads) -> None:
        """Each read belongs to the cluster of its row."""
        start = self._base[row] + reads.start
        np.minimum.at(self._f, row, self._base[row] + reads.end)
        np.maximum.at(self._s, row, start)
        last = start == self._s[row]
        self._last_read[row[last]] = reads.number[last]
        self._observed[row] = True

    def _join_zeroes(self, reads: Reads) -> None:
        """A read of zeroes joins an unmap's cluster where only one can have caused it."""
        base, zero, data = self._base_of(reads.lba), np.flatnonzero(~self._data), np.flatnonzero(self._data)
        behind = _Reach(self._f[data], self._s[data])
        barrier = np.maximum(behind.before(base + reads.start)[0], base)  # an unmap that ended before it is overwritten
        begins, ends = self._base[zero] + self.writes.start[zero], self._base[zero] + self.writes.end[zero]
        latest, cause = _Reach(begins, ends).before(base + reads.end)
        possible = latest >= barrier
        begins.sort()
        ends.sort()
        begun = np.searchsorted(begins, base + reads.end) - np.searchsorted(begins, base)
        over = np.searchsorted(ends, barrier) - np.searchsorted(ends, base)

        orphans = select(reads, ~possible)
        rules = np.where(begun[~possible] > 0, Rule.ORDER, Rule.UNWRITTEN)
        self._accuse(rules, orphans.lba, orphans.version, self._newest(orphans), orphans.number)

        single = possible & (begun - over == 1)
        self._extend(zero[cause[single]], select(reads, single))

        # The others stand alone; none of them may lie between two operations of a data cluster.
        base, reads = base[possible & ~single], select(reads, possible & ~single)
        self._lone = base + reads.start
        far, who = behind.before(self._lone)
        inside = far > base + reads.end
        row = data[who[inside]] if len(data) else who[:0]
        self._accuse(Rule.ORDER, reads.lba[inside], self.writes.version[row], ZEROED, self._last_read[row])

    def _compare(self) -> None:
        """No two clusters may each have to come before the other."""
        far, who = _Reach(self._f, self._s).before(np.minimum(self._f, self._s))
        one = np.flatnonzero(far > self._f)
        # Only what a stretch began with can have equal ends: a block that showed two such versions began with neither.
        shown = np.flatnonzero(self._s > self._f)
        shown = shown[np.argsort(self._f[shown], kind="stable")]
        equal = np.flatnonzero(np.diff(self._f[shown]) == 0)
        one, other = np.concatenate((one, shown[equal])), np.concatenate((who[one], shown[equal + 1]))
        later = np.where(self._s[one] > self._s[other], one, other)
        sooner = one + other - later
        version = self.writes.version
        self._accuse(Rule.ORDER, self.writes.lba[one], version[later], version[sooner], self._last_read[later])

    def _catch_late(self) -> None:
        """A write without success must come before each acknowledged write that began after its failure was told."""
        writes, (far, who) = self.writes, self._newer()
        sure = np.flatnonzero(writes.sure)
        late = np.flatnonzero(~writes.sure & self._data & self._observed & (far > -self._s))
        expected = writes.version[sure[who[late]]] if len(sure) else who[:0]
        self._accuse(Rule.LATE, writes.lba[late], writes.version[late], expected, self._last_read[late])

    def _newer(self) -> tuple[Ints, Ints]:
        """For each row the earliest end, negated, of acknowledged writes begun after its failure was told, and whose."""
        sure = self.writes.sure
        newer = _Reach(-(self._base + self.writes.start)[sure], -self._f[sure])
        return newer.before(-(self._base + self.writes.told))

    def _newest(self, reads: Reads) -> Ints:
        """What the last acknowledged write before each read gave its block, for the card; FOREIGN where there was none."""
        sure, base = np.flatnonzero(self.writes.sure), self._base_of(reads.lba)
        if not len(sure):
            return np.full(len(base), FOREIGN)
        at = (self._base + self.writes.end)[sure]
        far, who = _Reach(at, at).before(base + reads.start)
        return np.where(far >= base, self.writes.version[sure[who]], FOREIGN)

    def _last(self, s: Ints, f: Ints, counted: Bools, candidates: Bools, lone: Ints) -> Pairs:
        """The candidates that need not come before any counted cluster of another version: none starts after their end."""
        rows = np.flatnonzero(counted)
        data_rows = rows[self._data[rows]]
        everything, owners = np.concatenate((s[rows], lone)), np.concatenate((rows, np.full(len(lone), -1)))
        beaten = self._furthest_other(everything, owners) > f
        beaten_zero = self._furthest_other(s[data_rows], data_rows) > f
        keep = np.flatnonzero(candidates & ~np.where(self._data, beaten, beaten_zero))
        return distinct(self.writes.lba[keep], self.writes.version[keep])

    def _furthest_other(self, keys: Ints, owners: Ints) -> Ints:
        """For each row the greatest key of its block that another row owns, or _NOTHING."""
        order = np.argsort(keys)
        keys, owners = np.append(keys[order], _NOTHING), np.append(owners[order], -1)  # index -1 is "none"
        last = np.searchsorted(keys[:-1], self._base + self._span) - 1
        last -= owners[last] == np.arange(len(last))
        return np.where(keys[last] >= self._base, keys[last], _NOTHING)
