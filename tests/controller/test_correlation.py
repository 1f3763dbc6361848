from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwvirt.controller.correlation import CHANGE, CorrelationMap, Run
from hwvirt.controller.position import MAPPED, NEXT_BLOCK, ZERO, pack
from hwvirt.link.messages import Placement, Slice
from hwvirt.scsi.volume import Extent, Residency


def test_an_unmapped_range_is_one_run_on_the_first_volume() -> None:
    runs = CorrelationMap(100).lookup(Extent(10, 50))
    assert [(run.lba, run.blocks, run.residency, run.placement) for run in runs] == [(10, 50, Residency.FIRST, None)]


def test_blocks_behind_each_other_on_both_volumes_are_one_run() -> None:
    correlation = CorrelationMap(100)
    correlation.bind([Slice(10, 3, 1), Slice(13, 2, 2)], [Placement(70, 4, 5)])
    (run,) = correlation.lookup(Extent(10, 5))
    assert run.placement == Placement(70, 4, 5)


def test_neighbours_of_another_generation_are_another_run() -> None:
    correlation = CorrelationMap(100)
    correlation.bind([Slice(0, 1, 1)], [Placement(5, 1, 1)])
    correlation.bind([Slice(1, 1, 2)], [Placement(6, 2, 1)])
    assert [run.placement for run in correlation.lookup(Extent(0, 2))] == [Placement(5, 1, 1), Placement(6, 2, 1)]


def test_a_newer_write_supersedes_and_hands_back_the_old_position() -> None:
    correlation = CorrelationMap(100)
    assert correlation.bind([Slice(10, 4, 1)], [Placement(50, 1, 4)]) == []
    assert correlation.bind([Slice(11, 2, 2)], [Placement(80, 1, 2)]) == [Placement(51, 1, 2)]
    assert correlation.mapped_blocks == 4


def test_a_late_position_is_handed_back_and_changes_nothing() -> None:
    correlation = CorrelationMap(100)
    correlation.bind([Slice(10, 1, 7)], [Placement(50, 1, 1)])
    assert correlation.bind([Slice(10, 1, 3)], [Placement(60, 1, 1)]) == [Placement(60, 1, 1)]
    assert correlation.lookup(Extent(10, 1))[0].placement == Placement(50, 1, 1)


@pytest.mark.parametrize("blocks", [1, 3, 30])
def test_placements_that_do_not_cover_the_slices_change_nothing(blocks: int) -> None:
    correlation = CorrelationMap(100)
    for wrong in ([], [Placement(5, 1, blocks + 1)], [Placement(5, 1, blocks), Placement(50, 1, 1)]):
        with pytest.raises(ValueError, match="cover"):
            correlation.bind([Slice(10, blocks, 1)], wrong)
        with pytest.raises(ValueError, match="cover"):
            correlation.bind([Slice(10, blocks, 1), Slice(60, 2, 2)], wrong)
    assert correlation.is_empty(Extent(0, 100))


def test_an_unmapped_block_reads_zero_and_gives_its_position_up() -> None:
    correlation = CorrelationMap(100)
    correlation.bind([Slice(0, 2, 1)], [Placement(9, 1, 2)])
    assert correlation.unmap([Slice(1, 3, 2)]) == [Placement(10, 1, 1)]
    assert [(run.blocks, run.residency) for run in correlation.lookup(Extent(0, 5))] == [
        (1, Residency.REDIRECTED),
        (3, Residency.ZERO),
        (1, Residency.FIRST),
    ]
    assert (correlation.mapped_blocks, correlation.zero_blocks) == (1, 3)


def test_changes_taken_and_applied_elsewhere_give_the_same_map() -> None:
    source, copy = CorrelationMap(1000), CorrelationMap(1000)
    random_ = random.Random(1)
    position = 0
    for sequence in range(1, 300):
        blocks = random_.randint(1, 9)
        one = Slice(random_.randrange(990), blocks, sequence)
        if random_.random() < 0.2:
            source.unmap([one])
        else:
            source.bind([one], [Placement(position, 3, blocks)])
            position += blocks
        if sequence % 7 == 0:
            copy.apply(source.take_changes())
    copy.apply(source.take_changes())
    assert np.array_equal(source.rows(), copy.rows())
    assert (source.mapped_blocks, source.zero_blocks) == (copy.mapped_blocks, copy.zero_blocks)
    assert len(source.take_changes()) == 0


@pytest.mark.parametrize("window", [2, 1 << 18])
def test_changes_put_back_are_taken_again(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwvirt.controller.correlation._WINDOW_BLOCKS", window)
    correlation = CorrelationMap(40)
    correlation.bind([Slice(3, 2, 1), Slice(10, 20, 2), Slice(35, 1, 3)], [Placement(0, 1, 23)])
    taken = correlation.take_changes()
    assert taken["blocks"].sum() == 23
    correlation.put_back(taken)
    again = CorrelationMap(40)
    again.apply(correlation.take_changes())  # perhaps in another order, and cut elsewhere
    assert np.array_equal(again.rows(), correlation.rows())
    assert not len(correlation.take_changes())


def test_a_released_block_lies_on_the_first_volume_and_keeps_its_sequence_number() -> None:
    correlation = CorrelationMap(10)
    correlation.bind([Slice(3, 1, 5)], [Placement(0, 1, 1)])
    correlation.release([Slice(3, 1, 6)])
    assert correlation.is_empty(Extent(0, 10))
    assert correlation.bind([Slice(3, 1, 5)], [Placement(0, 1, 1)]) == [Placement(0, 1, 1)]
    assert correlation.is_empty(Extent(0, 10))


def test_clear_forgets_everything() -> None:
    correlation = CorrelationMap(10)
    correlation.bind([Slice(3, 1, 5)], [Placement(0, 1, 1)])
    correlation.clear()
    assert correlation.is_empty(Extent(0, 10))
    assert (correlation.mapped_blocks, correlation.last_sequence(), len(correlation.take_changes())) == (0, 0, 0)


def test_of_a_large_run_only_the_parts_that_are_newer_are_taken() -> None:
    correlation = CorrelationMap(64)
    correlation.unmap([Slice(10, 4, 7), Slice(30, 20, 9)])
    late = correlation.bind([Slice(0, 64, 8)], [Placement(100, 3, 64)])
    assert late == [Placement(130, 3, 20)]
    assert correlation.lookup(Extent(0, 64)) == [
        Run(0, 30, Residency.REDIRECTED, Placement(100, 3, 30)),
        Run(30, 20, Residency.ZERO, None),
        Run(50, 14, Residency.REDIRECTED, Placement(150, 3, 14)),
    ]
    assert (correlation.mapped_blocks, correlation.zero_blocks) == (44, 20)
    assert correlation.unmap([Slice(0, 64, 6)]) == []
    assert (correlation.mapped_blocks, correlation.zero_blocks) == (44, 20)


def test_of_a_large_volume_the_strip_looks_at_evenly_spaced_blocks() -> None:
    correlation = CorrelationMap(1 << 20)
    correlation.unmap([Slice(1 << 19, 1 << 18, 1)])
    assert correlation.strip(4) == [0.0, 0.0, 1.0, 0.0]
    assert correlation.strip(1) == [0.25]


def test_the_strip_tells_which_parts_are_redirected() -> None:
    correlation = CorrelationMap(64)
    correlation.bind([Slice(16, 16, 1)], [Placement(0, 1, 16)])
    assert correlation.strip(4) == [0.0, 1.0, 0.0, 0.0]
    assert len(CorrelationMap(3).strip(64)) == 64


BLOCKS = 40


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, BLOCKS - 1), st.integers(1, 20), st.integers(1, 30), st.booleans()), min_size=1, max_size=40
    )
)
def test_the_map_agrees_with_a_dict(changes: list[tuple[int, int, int, bool]]) -> None:
    correlation = CorrelationMap(BLOCKS)
    model: dict[int, tuple[int, int | None]] = {}
    given_out, returned, position = set(), set(), 0
    for lba, length, sequence, zero in changes:
        blocks = min(length, BLOCKS - lba)
        one = Slice(lba, blocks, sequence)
        gone = correlation.unmap([one]) if zero else correlation.bind([one], [Placement(position, 1, blocks)])
        for index in range(blocks):
            if not zero:
                given_out.add(position + index)
            if sequence >= model.get(lba + index, (0, None))[0]:
                model[lba + index] = (sequence, None if zero else position + index)
        if not zero:
            position += blocks
        returned |= {place.lba + index for place in gone for index in range(place.blocks)}
    live = {place for _, place in model.values() if place is not None}
    assert given_out == live | returned
    assert not live & returned
    found: dict[int, int | None] = {}
    for run in correlation.lookup(Extent(0, BLOCKS)):
        for index in range(run.blocks):
            if run.residency is not Residency.FIRST:
                found[run.lba + index] = run.placement.lba + index if run.placement else None
    assert found == {lba: place for lba, (_, place) in model.items()}
    assert correlation.mapped_blocks == len(live)


@pytest.mark.parametrize("window", [4, 16, 1 << 18])
def test_what_was_taken_makes_the_same_map(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwvirt.controller.correlation._WINDOW_BLOCKS", window)
    random_ = random.Random(7)
    correlation, journaled = CorrelationMap(BLOCKS), CorrelationMap(BLOCKS)
    for sequence in range(1, 300):
        lba = random_.randrange(BLOCKS)
        one = Slice(lba, random_.randint(1, BLOCKS - lba), sequence)
        if random_.random() < 0.5:
            correlation.unmap([one])
        else:
            correlation.bind([one], [Placement(sequence * 50, 1, one.blocks)])
        if random_.random() < 0.3:
            taken = correlation.take_changes()
            if random_.random() < 0.5:
                correlation.put_back(taken)
            else:
                journaled.apply(taken)
    journaled.apply(correlation.take_changes())
    assert not len(correlation.take_changes())
    checkpointed = CorrelationMap(BLOCKS)
    checkpointed.apply(correlation.rows())
    every = np.arange(BLOCKS, dtype=np.uint64)
    for again in (journaled, checkpointed):
        assert (again.positions_at(every) == correlation.positions_at(every)).all()
        assert (again.sequences_at(every) == correlation.sequences_at(every)).all()
        assert (again.mapped_blocks, again.zero_blocks) == (correlation.mapped_blocks, correlation.zero_blocks)


def resident_bytes() -> int:
    """What this process holds in memory now (proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_a_map_costs_sixteen_bytes_a_mapped_block_and_nothing_for_the_others() -> None:
    def grown(volume_blocks: int, mapped_blocks: int) -> int:
        before = resident_bytes()
        correlation = CorrelationMap(volume_blocks)
        for lba in range(0, mapped_blocks, 4096):
            correlation.bind([Slice(lba, 4096, lba + 1)], [Placement(lba, 1, 4096)])
            correlation.take_changes()
        assert correlation.mapped_blocks == mapped_blocks
        return resident_bytes() - before

    spare = 2 << 20  # the interpreter's own coming and going
    grown(1 << 16, 1 << 16)
    assert grown(1 << 24, 4096) < spare
    assert grown(1 << 20, 1 << 20) < 16 * (1 << 20) + spare


@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
@pytest.mark.parametrize("window", [4, 16, 1 << 18])
def test_pages_of_any_size_are_all_that_is_off_the_first_volume(
    window: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwvirt.controller.correlation._WINDOW_BLOCKS", window)
    correlation = CorrelationMap(BLOCKS)
    correlation.bind([Slice(3, 9, 1), Slice(20, 1, 2)], [Placement(5, 1, 10)])
    correlation.unmap([Slice(30, 4, 3), Slice(39, 1, 4)])
    correlation.release([Slice(5, 2, 5)])
    rows = correlation.rows()
    told = [np.empty(0, rows.dtype)]
    after: int | None = 0
    while after is not None:
        page, after = correlation.page(after, limit)
        assert len(page) <= limit
        told.append(page)
    off = rows[rows["position"] != 0]
    assert np.array_equal(np.concatenate(told), off)
    assert {*off["lba"].tolist()} >= {3, 7, 20, 30, 39}


def test_a_page_looks_no_further_than_its_rows_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a large map costs the square of its size to whoever lists it."""
    monkeypatch.setattr("hwvirt.controller.correlation._WINDOW_BLOCKS", 64)
    correlation = CorrelationMap(64 * 100)
    for lba in range(0, correlation.blocks, 4):
        correlation.bind([Slice(lba, 1, lba + 1)], [Placement(lba, 1, 1)])
    looked: list[int] = []
    rows_of = correlation._rows
    monkeypatch.setattr(correlation, "_rows", lambda lbas: looked.extend(lbas.tolist()) or rows_of(lbas))  # type: ignore[func-returns-value]
    page, after = correlation.page(64 * 90, 8)
    assert ([*page["lba"]], after) == ([*range(64 * 90, 64 * 90 + 32, 4)], 64 * 90 + 32)
    assert len(looked) <= 16


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, BLOCKS - 1), st.integers(1, 20), st.sampled_from([0, 1 << 62, 1]), st.integers(1, 30)),
        max_size=30,
    ),
    st.sampled_from([1, 3, 1 << 18]),
)
def test_rows_applied_at_once_say_the_same_as_one_by_one(rows: list[tuple[int, int, int, int]], window: int) -> None:
    cut = [
        (lba, min(blocks, BLOCKS - lba), kind if kind != 1 else pack(Placement(number * 50, 1, 1)), sequence)
        for number, (lba, blocks, kind, sequence) in enumerate(rows)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hwvirt.controller.correlation._WINDOW_BLOCKS", window)
        at_once, one_by_one = CorrelationMap(BLOCKS), CorrelationMap(BLOCKS)
        at_once.apply(np.array(cut, CHANGE))
        for row in cut:
            one_by_one.apply(np.array([row], CHANGE))
        assert not len(at_once.take_changes())
        every = np.arange(BLOCKS, dtype=np.uint64)
        model = {lba + index: (row[2:], index) for row in cut for lba in [row[0]] for index in range(row[1])}
        for lba in range(BLOCKS):
            (position, sequence), index = model.get(lba, ((0, 0), 0))
            where = position + index * NEXT_BLOCK if position >= MAPPED else position
            assert (int(at_once.positions_at(every)[lba]), int(at_once.sequences_at(every)[lba])) == (where, sequence)
        for one in (at_once, one_by_one):
            assert one.mapped_blocks == np.count_nonzero(one.positions_at(every) >= MAPPED) == one.redirected().sum()
            assert one.zero_blocks == np.count_nonzero(one.positions_at(every) == ZERO)
        assert (at_once.positions_at(every) == one_by_one.positions_at(every)).all()
        assert at_once.last_stored_sequence() == max(
            [sequence for (position, sequence), _ in model.values() if position], default=0
        )
