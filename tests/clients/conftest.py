from __future__ import annotations

from collections.abc import Iterator

import pytest

from .kit import ROOT, RigUp, rig_up


@pytest.fixture(scope="package")
def quickstart() -> Iterator[RigUp]:
    """rigs/quickstart.yaml, up. Its LUNs are left by each test as they happen to be."""
    with rig_up(ROOT / "rigs/quickstart.yaml") as up:
        yield up


@pytest.fixture
def redirecting(quickstart: RigUp) -> RigUp:
    """The same, and nothing of a/0 is redirected yet."""
    quickstart.begin_anew()
    return quickstart
