"""Where volumes and stores lie on the disks."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwvirt.rig.file.layout import LayoutError, lay_out
from hwvirt.rig.file.model import (
    ControllerSpec,
    DiskSpec,
    Forward,
    Frozen,
    LoopSpec,
    LunSpec,
    Overcommit,
    Own,
    Placement,
    Redirect,
    SgSpec,
    StoreSpec,
)
from hwvirt.scsi.volume import Extent

BLOCK = 4096


def first(luns: Mapping[int, LunSpec]) -> ControllerSpec:
    return ControllerSpec("a", "first", luns, None)


def second(luns: Mapping[int, LunSpec], store: StoreSpec | None) -> ControllerSpec:
    return ControllerSpec("b", "second", luns, store)


def lay(a: ControllerSpec, b: ControllerSpec, first_blocks: int, second_blocks: int) -> dict[str, Placement]:
    disks = {"first": LoopSpec(first_blocks * BLOCK, BLOCK), "second": LoopSpec(second_blocks * BLOCK, BLOCK)}
    return lay_out({"a": a, "b": b}, disks)


def test_units_follow_each_other_in_the_order_of_their_numbers() -> None:
    luns: dict[int, LunSpec] = {0: Own(10 * BLOCK), 1: Own(), 2: Frozen(5), 5: Own(20 * BLOCK), 7: Forward("b", 0)}
    layout = lay(first(luns), second({0: Own()}, None), 100, 50)
    assert layout["a"] == Placement({0: Extent(0, 10), 1: Extent(10, 70), 5: Extent(80, 20)}, None)
    assert layout["b"] == Placement({0: Extent(0, 50)}, None)


def test_store_takes_what_the_units_leave() -> None:
    layout = lay(first({0: Redirect("b")}), second({0: Own(30 * BLOCK)}, StoreSpec()), 40, 100)
    assert layout["b"] == Placement({0: Extent(0, 30)}, Extent(30, 70))


def test_unit_without_a_size_beside_such_a_store_takes_a_quarter() -> None:
    layout = lay(first({0: Redirect("b")}), second({0: Own()}, StoreSpec()), 40, 101)
    assert layout["b"] == Placement({0: Extent(0, 25)}, Extent(25, 76))


def test_unit_without_a_size_takes_what_a_sized_store_leaves() -> None:
    layout = lay(first({0: Redirect("b")}), second({0: Own()}, StoreSpec(45 * BLOCK)), 40, 100)
    assert layout["b"] == Placement({0: Extent(0, 55)}, Extent(55, 45))


def test_two_controllers_may_redirect_to_each_other() -> None:
    a = ControllerSpec("a", "first", {0: Redirect("b")}, StoreSpec())
    b = ControllerSpec("b", "second", {0: Redirect("a")}, StoreSpec())
    layout = lay(a, b, 100, 100)
    assert layout["a"] == layout["b"] == Placement({0: Extent(0, 25)}, Extent(25, 75))


def test_volumes_of_a_real_disk_stay_in_its_window() -> None:
    disks: dict[str, DiskSpec] = {"first": SgSpec("naa.5", None, 1 << 30, 512, Extent(2048, 100))}
    layout = lay_out({"a": first({0: Own(51200 // 2), 1: Own()})}, disks)
    assert layout["a"].luns == {0: Extent(2048, 50), 1: Extent(2098, 50)}


@pytest.mark.parametrize(("redirected", "store", "fits"), [(80, 90, True), (80, 89, False), (81, 92, True), (81, 91, False)])
def test_store_holds_all_redirected_blocks_and_an_eighth(redirected: int, store: int, fits: bool) -> None:
    a, b = first({0: Redirect("b", 30 * BLOCK), 3: Redirect("b")}), second({}, StoreSpec())
    if fits:
        assert lay(a, b, redirected, store)["b"].store == Extent(0, store)
        return
    with pytest.raises(LayoutError, match="second disk too small") as caught:
        lay(a, b, redirected, store)
    assert (caught.value.controller, caught.value.lun) == ("b", None)


def test_overcommitted_store_may_be_as_small_as_one_likes() -> None:
    layout = lay(first({0: Redirect("b")}), second({}, StoreSpec(BLOCK, Overcommit.ALLOW)), 100, 100)
    assert layout["b"].store == Extent(0, 1)


def test_store_without_a_block_left_is_refused_even_overcommitted() -> None:
    with pytest.raises(LayoutError, match="0 blocks of disk second"):
        lay(first({0: Redirect("b")}), second({0: Own(100 * BLOCK)}, StoreSpec(None, Overcommit.ALLOW)), 10, 100)


def test_store_bigger_than_what_is_left_is_refused() -> None:
    with pytest.raises(LayoutError, match=r"20 blocks of disk second .* are left for the store, it wants 30"):
        lay(first({0: Redirect("b")}), second({0: Own(80 * BLOCK)}, StoreSpec(30 * BLOCK)), 10, 100)


@given(
    sizes=st.lists(st.one_of(st.none(), st.integers(1, 40)), max_size=6),
    store=st.one_of(st.none(), st.just(0), st.integers(1, 60)),
    disk_blocks=st.integers(1, 200),
)
def test_volumes_never_overlap_nor_leave_the_disk(sizes: list[int | None], store: int | None, disk_blocks: int) -> None:
    luns: dict[int, LunSpec] = {number: Own(None if size is None else size * BLOCK) for number, size in enumerate(sizes)}
    spec = None if store is None else StoreSpec(store * BLOCK or None, Overcommit.ALLOW)
    try:
        placement = lay_out({"b": second(luns, spec)}, {"second": LoopSpec(disk_blocks * BLOCK, BLOCK)})["b"]
    except LayoutError:
        return
    extents = [*placement.luns.values(), *([placement.store] if placement.store else [])]
    end = 0
    for extent in extents:
        assert extent.lba == end
        assert extent.blocks >= 1
        end += extent.blocks
    assert end <= disk_blocks
    assert list(placement.luns) == list(luns)
    for number, size in enumerate(sizes):
        assert size is None or placement.luns[number].blocks == size
