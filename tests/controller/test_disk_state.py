"""What the control socket says of a disk that may be pulled."""

from __future__ import annotations

from pathlib import Path

from hwvirt.controller.verbs import disk_state
from hwvirt.disk.discovery.removable import RemovableDisk
from hwvirt.disk.loop import LoopDisk, create_image


def test_disk_is_present_until_it_is_pulled(tmp_path: Path) -> None:
    create_image(tmp_path / "disk", 1 << 20)
    inner = LoopDisk(str(tmp_path / "disk"), 512)
    there = [True]
    try:
        disk = RemovableDisk(inner, lambda: there[0])
        assert (disk_state(inner), disk_state(disk)) == ("present", "present")
        there[0] = False
        assert (disk_state(inner), disk_state(disk)) == ("present", "removed")
        there[0] = True
        assert disk_state(disk) == "removed"
    finally:
        inner.close()
