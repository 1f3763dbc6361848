"""A bench in memory that does everything right: real blocks on two disks, a map, a ledger. Tests plant defects in it."""

from __future__ import annotations

import random
from array import array

from hwvirt.digest import block_digests, crc32c
from hwvirt.disk.witness import Record
from hwvirt.rig.judge.block import make_extent, versions_in
from hwvirt.rig.judge.evidence import BlockReader, Evidence, LedgerRow, MapRow, State, StoreCount, TombRow
from hwvirt.rig.judge.history import Fate, History, Kind, MarkKind
from hwvirt.rig.judge.judge import judge
from hwvirt.rig.judge.verdict import Property, Verdict

BLOCK = 512
REPLAY = "hwvirt run rigs/quickstart.yaml --seed 42"


class Bench:
    """One redirecting logical unit of `blocks` blocks, with a store of `capacity` blocks on the second disk."""

    def __init__(self, blocks: int = 64, capacity: int = 160) -> None:
        self.blocks, self.capacity = blocks, capacity
        self.first, self.second = bytearray(blocks * BLOCK), bytearray(capacity * BLOCK)
        self.frozen = bytearray(self.first)
        self.history = History(volume=7, seed=42, block_bytes=BLOCK)
        self.state = State.OWN
        self.map: dict[int, tuple[int | None, int, int]] = {}
        self.ledger: dict[int, LedgerRow] = {}
        self.tombstones: dict[int, int] = {}
        self.free = list(range(capacity))
        self.freed: list[int] = []
        self.generations = [0] * capacity
        self.sequence = 0
        self.witnessed: list[Record] = []
        self.baseline: array[int] | None = None
        self.stores: list[StoreCount] = []

    # What a host does.

    def write(self, lba: int, blocks: int = 1, *, fate: Fate = Fate.ACKNOWLEDGED, happens: bool = True) -> int:
        """Returns the version."""
        number = self.history.begin(Kind.WRITE, lba, blocks)
        if happens:
            self.apply(number, lba, blocks)
        self.history.end(number, fate)
        return number

    def apply(self, number: int, lba: int, blocks: int) -> None:
        """The write takes effect."""
        data = make_extent(7, lba, blocks, number, self.history.writer, 42, BLOCK)
        if self.state == State.OWN:
            self.first[lba * BLOCK : (lba + blocks) * BLOCK] = data
            self.frozen = bytearray(self.first)
            return
        self.sequence += 1
        for offset in range(blocks):
            self.drop(lba + offset)
            self.store(lba + offset, data[offset * BLOCK : (offset + 1) * BLOCK])

    def store(self, lba: int, block: bytes) -> None:
        """B keeps a block and A its position."""
        position = self.free.pop(0)
        self.generations[position] += 1
        generation = self.generations[position]
        self.second[position * BLOCK : (position + 1) * BLOCK] = block
        self.map[lba] = (position, generation, self.sequence)
        self.ledger[position] = LedgerRow(position, lba, self.sequence, generation, crc32c(block), 3)

    def drop(self, lba: int) -> None:
        """A forgets an entry and B frees its position."""
        position = self.map.pop(lba, (None, 0, 0))[0]
        if position is not None:
            del self.ledger[position]
            self.freed.append(position)

    def unmap(self, lba: int, blocks: int = 1) -> int:
        """Returns the operation's number."""
        number = self.history.begin(Kind.UNMAP, lba, blocks)
        self.sequence += 1
        for at in range(lba, lba + blocks):
            if self.state == State.OWN:
                self.first[at * BLOCK : (at + 1) * BLOCK] = bytes(BLOCK)
                self.frozen = bytearray(self.first)
            else:
                self.drop(at)
                self.map[at] = (None, 0, self.sequence)
                self.tombstones[at] = self.sequence
        self.history.end(number, Fate.ACKNOWLEDGED)
        return number

    def block(self, lba: int) -> bytes:
        """What the host path shows."""
        if lba not in self.map:
            return bytes(self.first[lba * BLOCK : (lba + 1) * BLOCK])
        position = self.map[lba][0]
        return bytes(BLOCK) if position is None else bytes(self.second[position * BLOCK : (position + 1) * BLOCK])

    def read(self, lba: int, blocks: int = 1) -> int:
        """Returns the operation's number."""
        number = self.history.begin(Kind.READ, lba, blocks)
        data = b"".join(self.block(at) for at in range(lba, lba + blocks))
        self.history.end(number, Fate.ACKNOWLEDGED, versions_in((data,), 7, 42, lba, BLOCK))
        return number

    def flush(self) -> None:
        """Freed positions may be used again; B's account is taken."""
        number = self.history.begin(Kind.FLUSH, 0, 0)
        self.free += self.freed
        self.freed.clear()
        self.history.end(number, Fate.ACKNOWLEDGED)
        self.count()

    def count(self) -> None:
        """A cut: B's account."""
        self.stores.append(StoreCount(self.capacity, len(self.free), len(self.ledger), len(self.freed)))

    # What the rig does.

    def fill(self) -> None:
        """Every block gets a version."""
        for lba in range(0, self.blocks, 16):
            self.write(lba, 16)

    def redirect(self) -> None:
        """Redirection begins: digests of the first disk are taken."""
        self.history.mark(MarkKind.REDIRECT)
        self.state = State.REDIRECTING
        self.baseline = block_digests((self.first,), BLOCK)

    def commit(self) -> None:
        """The redirected blocks go to the first disk."""
        for lba in sorted(self.map):
            self.first[lba * BLOCK : (lba + 1) * BLOCK] = self.block(lba)
            self.drop(lba)
        self._end(MarkKind.COMMIT)

    def discard(self) -> None:
        """The redirected blocks are dropped."""
        for lba in sorted(self.map):
            self.drop(lba)
        self._end(MarkKind.DISCARD)

    def _end(self, mark: MarkKind) -> None:
        self.history.mark(mark)
        self.state = State.OWN
        self.tombstones.clear()
        self.count()

    def busy(self, seed: int, operations: int = 60) -> None:
        """Random writes, reads, unmaps and flushes."""
        rng = random.Random(seed)
        for _ in range(operations):
            lba, blocks = rng.randrange(self.blocks - 4), rng.randrange(1, 5)
            match rng.choice(["write", "write", "read", "unmap", "flush"]):
                case "write":
                    self.write(lba, blocks)
                case "read":
                    self.read(lba, blocks)
                case "unmap":
                    self.unmap(lba, blocks)
                case "flush":
                    self.flush()
        self.flush()

    # What the judge gets.

    def evidence(self) -> Evidence:
        """Everything as it is now."""
        rows = [MapRow(lba, 1, *entry) for lba, entry in sorted(self.map.items())]
        return Evidence(
            history=self.history,
            blocks=self.blocks,
            volume=3,
            state=self.state,
            map=rows,
            ledger=list(self.ledger.values()),
            tombstones=[TombRow(lba, 1, sequence, 3) for lba, sequence in self.tombstones.items()],
            volumes=frozenset({3, 9}),
            store_blocks=self.capacity,
            stores=self.stores,
            baseline=self.baseline,
            witnessed=self.witnessed,
            first=reader(self.first),
            second=reader(self.second),
            frozen=reader(self.frozen),
            replay=REPLAY,
        )

    def verdict(self, property_: Property) -> Verdict:
        """The judge's."""
        return judge(self.evidence(), [property_])[0]


def reader(disk: bytearray) -> BlockReader:
    """Reads a disk in memory."""
    return lambda lba, blocks: bytes(disk[lba * BLOCK : (lba + blocks) * BLOCK])


def redirecting(seed: int = 1) -> Bench:
    """A bench that was filled, redirects and has been busy."""
    bench = Bench()
    bench.fill()
    bench.redirect()
    bench.busy(seed)
    return bench
