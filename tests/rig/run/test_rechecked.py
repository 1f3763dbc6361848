"""A real disk is looked at again each time that a controller is started on it: it may have changed hands meanwhile."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hwvirt.disk.discovery.label import encode_label, make_label
from hwvirt.disk.guard.admit import Admitted, admit
from hwvirt.errors import ExitCode
from hwvirt.rig import bench
from hwvirt.rig.disks import BenchDisk, prepare_disk
from hwvirt.rig.file.model import Rig
from hwvirt.rig.steps import Performance
from tests.disk.guard.machine import GOOD, Machine, Name
from tests.rig.run.kit import RESTART_B, Do, rig_of, run

DAY = datetime(2026, 1, 31, 12, tzinfo=UTC)

_recheck = Admitted.recheck


class Armed(Machine):
    """A machine whose first disk is the second one of the rig."""

    def arm(self, armed_at: datetime) -> None:
        """Writes a label, as somebody does who does not ask the guard."""
        self.disks[0].start[:] = encode_label(make_label("small", "second", GOOD, armed_at))


@pytest.fixture
def machine() -> Armed:
    machine = Armed()
    machine.arm(DAY)
    return machine


@pytest.fixture
def rechecks(machine: Armed, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rig's second disk is an image that the guard takes for a disk of the machine. When it was looked at again."""
    looked: list[str] = []

    def prepared(rig: Rig, name: str, folder: Path, stack: ExitStack) -> BenchDisk:
        disk = prepare_disk(rig, name, folder, stack)
        if name != "second":
            return disk
        return replace(disk, admitted=stack.enter_context(admit(Name(), rig.name, name, machine)))

    def recheck(admitted: Admitted) -> None:
        looked.append(admitted.wanted.role)
        _recheck(admitted)

    monkeypatch.setattr(bench, "prepare_disk", prepared)
    monkeypatch.setattr(Admitted, "recheck", recheck)
    return looked


def test_controller_is_not_started_again_on_a_disk_that_was_armed_anew(
    machine: Armed, rechecks: list[str], tmp_path: Path
) -> None:
    async def arm_anew(_: Performance) -> None:
        assert rechecks == ["second"]  # before the first start
        machine.arm(DAY + timedelta(days=1))

    ran = run(rig_of(RESTART_B), tmp_path, insert=[(0, Do(arm_anew))])
    assert (ran.code, ran.reason) == (
        ExitCode.REFUSED,
        "refusing /dev/sdc (ZL2001, 500.1 GB) as disk second of rig small: its label has changed since the run began. "
        "Run it again.",
    )
    assert rechecks == ["second"] * 2
    assert machine.disks[0].claims == []
