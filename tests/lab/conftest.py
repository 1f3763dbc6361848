"""What tests of the lab share. They run wherever user-mode Linux is installed, root or not."""

import shutil
from collections.abc import Iterator

import pytest

from hwvirt.lab.kernel import Kernel
from hwvirt.lab.process import lab_missing


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests that boot kernels need one."""
    if item.get_closest_marker("lab") is not None and shutil.which("linux.uml") is None:
        pytest.skip(lab_missing())


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel for the tests of a module that leave it as it was."""
    with Kernel("a", tmp_path_factory.mktemp("a")) as kernel:
        yield kernel
