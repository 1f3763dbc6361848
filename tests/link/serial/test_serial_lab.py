"""The line between two kernels of the lab, whose serial lines die for good when more than 3.9 KB lie unread."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hwvirt.lab.cables import SerialCable
from hwvirt.lab.jobs import Job
from hwvirt.lab.kernel import Kernel
from hwvirt.units import Deadline
from tests.lab.conftest import pytest_runtest_setup

__all__ = ["pytest_runtest_setup"]

BAUD = 115_200
ROOT = str(Path(__file__).parents[3])

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Kernel, Kernel]]:
    with ExitStack() as stack:
        cable = stack.enter_context(SerialCable(BAUD))
        a, b = (
            stack.enter_context(
                Kernel(name, tmp_path_factory.mktemp(name), cables=[cable.ends[end]], environment={"PYTHONPATH": ROOT})
            )
            for end, name in enumerate("ab")
        )
        yield a, b


def start(kernel: Kernel, task: str) -> Job:
    """One end of the line, with its device open."""
    job = kernel.start([sys.executable, "-m", "tests.link.serial.guest_line", str(BAUD), task])
    await_line(job, "ready")
    return job


def await_line(job: Job, text: str) -> None:
    deadline = Deadline.after(60)
    while (line := job.line(deadline)) != text:
        assert line is not None


def test_two_kernels_work_over_their_line(kernels: tuple[Kernel, Kernel]) -> None:
    a, b = kernels
    start(b, "answer")
    line = start(a, "measure").line(Deadline.after(90))
    assert line is not None
    found = json.loads(line)
    assert found["zeros"] > found["deep"], found
    assert found["reconnects"] == 0, found
    if "HWVIRT_MEASURE" in os.environ:  # speed is judged on a machine that does nothing else; in virtual time always
        assert found["deep"] >= 0.93, found
        assert found["alone"] <= 1.10, found
        assert found["zeros"] >= 10, found


def test_power_cuts_in_the_middle_of_writes_heal(kernels: tuple[Kernel, Kernel]) -> None:
    a, b = kernels
    for end in (a, b):
        end.power_cut()
        end.power_on()
    start(b, "answer")
    writer = start(a, "write")
    for _ in range(2):
        await_line(writer, "answered")
        b.power_cut()
        await_line(writer, "down")  # by now as much lies unread as may
        b.power_on()
        start(b, "answer")
        await_line(writer, "answered")
    a.power_cut()
    a.power_on()
    await_line(start(a, "write"), "answered")
