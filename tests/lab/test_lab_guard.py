"""The guard before real SCSI disks: every way to name the wrong one is refused in exact words and with exit code 3.

By the programs, `hwvirt run` and `hwvirt arm`, and without that a byte of any disk changes.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from hwvirt.lab.attach import AttachedDisks, attach
from hwvirt.lab.disks import ScsiDebug
from hwvirt.lab.kernel import Kernel, ProgramFailed
from hwvirt.units import Deadline

pytestmark = pytest.mark.lab

Ask: TypeAlias = Callable[[str], Any]
MIB = 1 << 20
ROOT = Path(__file__).parents[2]
DISK = "refusing /dev/sda (2000, 4.2 MB) as disk first of rig desk: "
NO_DISK = "refusing disk first of rig desk: "
COMPARE = "Compare the rig file with `hwvirt scan`."
OVERWRITE = "If nothing on it is needed, overwrite the label: dd if=/dev/zero of=/dev/sda bs=4096 count=1."
WIPE = "If nothing on it is needed, run wipefs --all /dev/sda; else name another disk."

REFUSALS = {
    "mounted": DISK + "/dev/sda is mounted on /tmp/point. Unmount it (umount /tmp/point), or name another disk.",
    "mounted out of sight": DISK
    + "somebody holds it exclusively. Find out who (fuser -v /dev/sda), or name another disk.",
    "partition mounted": DISK + "/dev/sda1 is mounted on /tmp/point. Unmount it (umount /tmp/point), or name another disk.",
    "root disk": DISK + "the root file system of this machine lies on it (/dev/sda). Name another disk.",
    "swap": DISK + "/dev/sda is swap space. Switch it off (swapoff /dev/sda), or name another disk.",
    "LVM volume": DISK + "the LVM volume vg-home lies on it. Take it down (dmsetup remove vg-home), or name another disk.",
    "volume mounted": DISK
    + "/dev/mapper/vg-home is mounted on /tmp/point. Unmount it (umount /tmp/point), or name another disk.",
    "array": DISK + "the array /dev/md9 lies on it. Stop it (mdadm --stop /dev/md9), or name another disk.",
    "loop device": DISK + "/dev/loop3 shows /dev/sda. Detach it (losetup -d /dev/loop3), or name another disk.",
    "partition table": DISK + "there is something on it: dos partition table, at byte 510. " + WIPE,
    "file system": DISK + "there is something on it: ext4 file system, at byte 1080. " + WIPE,
    "label damaged": DISK + "its label is damaged (the CRC-32C is wrong). " + OVERWRITE,
    "not armed": DISK + "it is not armed. Arm it: hwvirt arm, with the rig file.",
    "armed for another rig": DISK
    + "it is armed for rig cellar since 2026-01-31. Disarm it with the rig file of cellar: hwvirt disarm.",
    "armed as another disk": DISK
    + "it is armed as disk second of that rig. Correct the rig file, or disarm it with the old one.",
    "copy of an armed disk": DISK
    + "its label was made for another disk, serial 4000: this is a copy. "
    + OVERWRITE,
    "wwn differs": DISK + "it has wwn naa.33333330000007d0, and the rig says naa.3333333000000000. " + COMPARE,
    "serial differs": DISK + "it has serial 2000, and the rig says 4000. " + COMPARE,
    "size differs": DISK + "it has 4194304 bytes, and the rig says 8388608. " + COMPARE,
    "block size differs": DISK + "its blocks have 512 bytes, and the rig says 4096. " + COMPARE,
    "not there": NO_DISK + "no disk here has wwn naa.3333333000000000. Plug it in; `hwvirt scan` shows what is here.",
    "window over the label": DISK
    + "the window begins at LBA 0, where the label lies (LBA 0 to 7). Let the window begin at LBA 8 or later.",
}

REFUSED_AS_READ = {
    "node only": "2:27: disks.first.sg.wwn: '/dev/sda' is a node, and may be another disk tomorrow. "
    "Name the disk by its wwn or serial, as `hwvirt scan --yaml` prints it.",
    "window beyond the end": "2:104: disks.first.sg.window: ends 2048 blocks behind the end of the disk",
}


def soon() -> Deadline:
    return Deadline.after(30)


@pytest.fixture(scope="module")
def attached(kernel: Kernel) -> Iterator[AttachedDisks]:
    yield attach(kernel, [ScsiDebug(4 * MIB), ScsiDebug(4 * MIB)], soon())


@pytest.fixture(scope="module")
def ask(kernel: Kernel, attached: AttachedDisks) -> Iterator[Ask]:
    kernel.run(["sh", "-ec", "modprobe dm-mod; mkdir -p /run/lock"], soon())
    job = kernel.start([sys.executable, "-m", "tests.lab.guest_guard"])

    def ask(question: str) -> Any:
        job.send(f"{question}\n".encode(), soon())
        answer = job.line(soon())
        assert answer is not None, kernel.console.read_text()[-3000:]
        return json.loads(answer)

    yield ask


@pytest.mark.parametrize("way", [way for way in REFUSALS if way != "not armed"])
def test_wrong_disk_is_refused_and_no_byte_changes(way: str, ask: Ask) -> None:
    ran, armed, same_bytes = ask(way)
    assert ran == [3, REFUSALS[way]]
    assert armed == [3, "", f"hwvirt: {REFUSALS[way]}\n"]
    assert same_bytes


def test_run_on_a_disk_that_is_not_armed_is_refused_and_to_arm_it_is_not(ask: Ask) -> None:
    ran, armed, same_bytes = ask("not armed")
    assert ran == [3, REFUSALS["not armed"]]
    assert armed == [0, "armed /dev/sda (2000, 4.2 MB) as disk first of rig desk\n", ""]
    assert not same_bytes


@pytest.mark.parametrize("way", REFUSED_AS_READ)
def test_wrong_disk_that_the_rig_file_shows_is_refused_with_its_place(way: str, ask: Ask) -> None:
    ran, armed, same_bytes = ask(way)
    said = f"hwvirt: /tmp/desk.yaml:{REFUSED_AS_READ[way]}\n"
    assert (ran, armed) == ([3, said], [3, "", said])
    assert same_bytes


@pytest.mark.parametrize("command", ["run", "arm"])
def test_refusal_is_the_exit_code_of_a_process(command: str, kernel: Kernel, ask: Ask) -> None:
    assert ask("write the rig of a disk that is not there")
    hwvirt = [sys.executable, "-m", "hwvirt", command, "/tmp/desk.yaml"]
    with pytest.raises(ProgramFailed) as caught:
        kernel.run(hwvirt, soon())
    assert caught.value.status == 3


def test_disk_of_another_run_is_refused_with_its_process(ask: Ask) -> None:
    ran, armed, same_bytes = ask("claimed by another run")
    code, told = ran
    assert (code, armed) == (3, [3, "", f"hwvirt: {told}\n"])
    assert told.startswith(DISK + "it is claimed by process ")
    assert re.search(
        r"process [0-9]+ \(.*python.* -c .*admit\(.*\)\. Wait until that run has ended, or stop it\.$", told, re.S
    )
    assert same_bytes


def test_armed_disk_is_had_and_only_its_label_area_ever_changed(ask: Ask) -> None:
    changed, said, had, excluded, same_again = ask("whole life")
    assert (changed, excluded, same_again) == ([0], True, True)
    assert said == [["/dev/sda (2000, 4.2 MB)", "armed"], ["/dev/sdb (4000, 4.2 MB)", "not armed"]]
    assert had == ["/dev/sg0", "/dev/sda", [2048, 4096]]


def test_pulled_disk_is_refused_and_found_again_under_other_nodes(ask: Ask) -> None:
    gone, gone_again, back = ask("replugged")
    assert (
        gone
        == gone_again
        == f"REFUSED: {NO_DISK}no disk here has wwn naa.33333330000007d0. Plug it in; `hwvirt scan` shows what is here."
    )
    assert back == ["2000", True]
