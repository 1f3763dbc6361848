"""After a restart of either side the newest sequence number decides, block by block: against a model that is a dict."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import pytest

from hwvirt.buffers import Pieces
from hwvirt.controller.correlation import CHANGE, CorrelationMap, Rows
from hwvirt.controller.ledger import ROW, Kind, tomb_rows
from hwvirt.controller.position import UNMAPPED, ZERO, pack
from hwvirt.controller.recovery import durable_ledger, reconcile, send_again
from hwvirt.controller.redirect import RedirectVolume
from hwvirt.controller.states import State
from hwvirt.controller.store import Store
from hwvirt.controller.tombstones import Tombstone
from hwvirt.errors import StateError
from hwvirt.link.messages import Placement, Slice
from hwvirt.scsi.volume import Write

from .desk import BLOCK, Desk, on_desk

BLOCKS = 60


class Entry(NamedTuple):
    """What the map says of a block; `position` is packed, as in the map."""

    sequence: int
    position: int


class Mended:
    """The parts of a volume that mending looks at."""

    def __init__(self, blocks: int = BLOCKS) -> None:
        self.number, self.blocks = 0, blocks
        self.map = CorrelationMap(blocks)
        self.state, self.committed_below = State.REDIRECTING, 0
        self.superseded: list[Placement] = []
        self.sequence = self.reconciled = 0

    def entries(self) -> dict[int, Entry]:
        every = np.arange(self.blocks, dtype=np.uint64)
        columns = zip(self.map.sequences_at(every).tolist(), self.map.positions_at(every).tolist(), strict=True)
        return {lba: Entry(*pair) for lba, pair in enumerate(columns) if pair[0]}

    def reconcile(self, rows: Rows) -> None:
        reconcile(cast("RedirectVolume", self), rows)


def live_rows(rows: Sequence[tuple[int, int, Placement]]) -> Rows:
    """Rows of the ledger from (LBA, sequence number, position of one block)."""
    return np.array(
        [(place.lba, place.generation, 0, lba, sequence, 0, Kind.LIVE) for lba, sequence, place in rows], ROW
    )


@pytest.mark.parametrize("portion", [7, 1 << 18])
@pytest.mark.parametrize("committed_below", [0, 25])
def test_newest_change_of_each_block_is_what_the_map_says(
    monkeypatch: pytest.MonkeyPatch, portion: int, committed_below: int
) -> None:
    monkeypatch.setattr("hwvirt.controller.recovery._PORTION", portion)
    monkeypatch.setattr("hwvirt.controller.correlation._WINDOW_BLOCKS", portion)
    for seed in range(60):
        chance, volume = random.Random(seed), Mended()
        if committed_below:
            volume.state, volume.committed_below = State.COMMITTING, committed_below
        live: list[tuple[int, int, Placement]] = []
        tombs: list[Tombstone] = []
        expected: dict[int, Entry] = {}
        positions = iter(chance.sample(range(400), 400))

        def heard(lba: int, entry: Entry, expected: dict[int, Entry] = expected) -> None:
            if lba >= committed_below and entry >= expected.get(lba, Entry(0, 0)):
                expected[lba] = entry

        for sequence in range(1, 40):
            lba, blocks = chance.randrange(BLOCKS - 10), chance.randint(1, 10)
            if chance.random() < 0.25:
                tombs.append(Tombstone(lba, blocks, sequence))
                for at in range(lba, lba + blocks):
                    heard(at, Entry(sequence, ZERO))
                continue
            for at in range(lba, lba + blocks if chance.random() < 0.5 else lba + 1):
                for _ in range(chance.choice([1, 1, 1, 2])):  # twice: it was sent again, and both are there
                    place = Placement(next(positions), chance.randint(1, 3), 1)
                    live.append((at, sequence, place))
                by_age = sorted((row for row in live if row[:2] == (at, sequence)), key=lambda row: row[2][1::-1])
                heard(at, Entry(sequence, pack(by_age[-1][2])))
        chance.shuffle(tombs)
        live.sort(key=lambda row: row[2].lba)
        for lba in range(BLOCKS):  # what A knows already: some of it newer than the ledger, some of it written back
            mine = [row for row in live if row[0] == lba]
            if mine and chance.random() < 0.4:
                _, sequence, place = chance.choice(mine)
                volume.map.apply(np.array([(lba, 1, pack(place), sequence)], CHANGE))
                if Entry(sequence, 0) > expected.get(lba, Entry(0, 0)) or lba < committed_below:
                    expected[lba] = Entry(sequence, pack(place))
            elif chance.random() < 0.2:
                volume.map.apply(np.array([(lba, 1, UNMAPPED, 1000 + lba)], CHANGE))
                expected[lba] = Entry(1000 + lba, UNMAPPED)
        known = CorrelationMap(BLOCKS)
        known.apply(volume.map.rows())
        volume.reconcile(np.concatenate((live_rows(live), tomb_rows((0, tomb) for tomb in tombs))))
        assert volume.entries() == expected
        named = {entry.position for entry in expected.values()}
        given_up = {place[:2] for _, _, place in live if pack(place) not in named}
        told = [(place.lba + index, place.generation) for place in volume.superseded for index in range(place.blocks)]
        assert (len(told), set(told)) == (len(given_up), given_up)
        assert volume.sequence >= max(entry.sequence for entry in expected.values())
        assert volume.sequence >= max(row[1] for row in live)
        known.apply(volume.map.take_changes())
        assert np.array_equal(known.rows(), volume.map.rows()), "what was taken over is a change that must become durable"
        assert volume.reconciled == 1


def test_number_that_only_a_replaced_row_has_is_not_used_again() -> None:
    volume = Mended()
    volume.state, volume.committed_below = State.COMMITTING, 30
    volume.reconcile(live_rows([(3, 77, Placement(5, 1, 1))]))
    assert (volume.sequence, volume.entries()) == (77, {})
    assert volume.superseded == [Placement(5, 1, 1)]


def test_map_whose_positions_the_ledger_lacks_is_refused() -> None:
    volume = Mended()
    volume.map.bind([Slice(3, 4, 1), Slice(50, 1, 2)], [Placement(5, 1, 5)])
    with pytest.raises(StateError) as caught:
        volume.reconcile(live_rows([(3, 1, Placement(5, 1, 1)), (5, 1, Placement(7, 2, 1)), (6, 1, Placement(8, 1, 1))]))
    assert str(caught.value) == (
        "volume 0: the ledger of the second controller lacks 2 positions that the map names, first at LBA 4. "
        "Restore the second controller's state directory; or give up what was redirected: discard it, or, where this "
            "controller does not start, remove its own state directory."
    )


class Kept:
    """A store that has a ledger, and nothing else."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    async def flush(self, _volume: int) -> int:
        return 1

    async def ledger(self, _volume: int) -> Rows:
        return self._rows


@pytest.mark.parametrize("kind", ["live", "unmapped"])
def test_ledger_of_a_larger_volume_is_refused_and_nothing_is_changed(kind: str) -> None:
    volume = Mended()
    beyond = live_rows([(70, 2, Placement(6, 1, 1))]) if kind == "live" else tomb_rows([(0, Tombstone(55, 16, 2))])
    store = Kept(np.concatenate((live_rows([(3, 1, Placement(5, 1, 1))]), beyond)))
    with pytest.raises(StateError) as caught:
        asyncio.run(durable_ledger(cast("RedirectVolume", volume), cast("Store", store)))
    assert str(caught.value) == (
        "volume 0: it has 60 blocks, and the ledger of the second controller knows 71. "
        "Correct `blocks` of the LUN: a volume that is redirected cannot shrink."
    )
    assert volume.entries() == {}


def test_mending_costs_no_object_for_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a hundred million blocks that would be minutes and gigabytes."""
    monkeypatch.setattr("hwvirt.controller.recovery._PORTION", 1 << 12)
    monkeypatch.setattr("hwvirt.controller.correlation._WINDOW_BLOCKS", 1 << 12)
    count = 1 << 16
    chance = np.random.default_rng(1)
    rows = np.zeros(count, ROW)
    rows["position"], rows["lba"] = np.arange(count), chance.permutation(count)
    rows["sequence"], rows["generation"], rows["kind"] = chance.permutation(count) + 1, 1, Kind.LIVE
    volume = Mended(count)
    tracemalloc.start()
    try:
        volume.reconcile(rows)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert volume.map.mapped_blocks == count
    assert most_bytes < 100 * count


class Asked:
    """A store that has restarted, and writes down what is sent to it once more."""

    def __init__(self) -> None:
        self.slices: list[list[Slice]] = []

    async def write(self, _volume: int, slices: Sequence[Slice], _data: Pieces, digests: array[int]) -> list[Placement]:
        self.slices.append([*slices])
        return [Placement(80, 9, len(digests))]

    async def unmap(self, _volume: int, slices: Sequence[Slice]) -> None:
        self.slices.append([*slices])


@pytest.mark.parametrize(
    ("lacks", "sent"),
    [
        ([], []),
        ([10], [[Slice(10, 2, 1)]]),
        ([11], [[Slice(10, 2, 1)]]),
        ([20], [[Slice(20, 1, 2), Slice(30, 1, 3)]]),
        ([30], [[Slice(20, 1, 2), Slice(30, 1, 3)]]),
        ([40], [[Slice(40, 3, 4)]]),
        ([11, 30, 40], [[Slice(10, 2, 1)], [Slice(20, 1, 2), Slice(30, 1, 3)], [Slice(40, 3, 4)]]),
    ],
    ids=str,
)
def test_request_of_which_the_ledger_lacks_any_block_is_sent_again_whole(
    tmp_path: Path, lacks: list[int], sent: list[list[Slice]]
) -> None:
    async def story(desk: Desk) -> None:
        await desk.write(10, 1, 2)
        await desk.volume.write([Write(lba, [bytes(BLOCK)]) for lba in (20, 30)])
        await desk.unmap(40, 3)
        await desk.write(41, 5)  # newer than the unmapped run: there is nothing to send for it
        rows, store = await desk.store.ledger(0), Asked()
        there = rows[~np.isin(rows["lba"], lacks)]
        told = await send_again(desk.volume, cast("Store", store), there)
        assert store.slices == sent
        every = {one.lba + index for slices in sent for one in slices for index in range(one.blocks)}
        assert {*told["lba"].tolist()} | {41, 42} == {*there["lba"].tolist(), *every} | {41, 42}

    on_desk(tmp_path, story)
