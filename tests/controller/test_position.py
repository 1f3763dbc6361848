"""Columns of addresses."""

from __future__ import annotations

import numpy as np
import pytest

from hwvirt.controller.position import distinct

LISTS = [[], [7], [7, 7], [3, 1, 2], [5, 1, 5, 5, 0, 1], [2**64 - 1, 0, 2**63, 2**64 - 1]]


@pytest.mark.parametrize("numbers", LISTS, ids=str)
def test_distinct_numbers_are_in_order_and_each_is_there_once(numbers: list[int]) -> None:
    column = np.array(numbers, np.uint64)
    assert distinct(column).tolist() == sorted(set(numbers))
    assert column.tolist() == numbers
    assert distinct(column).dtype == np.uint64
