"""Every way to use a disk is seen, on the disk itself, its partitions and whatever is stacked on them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hwvirt.disk.discovery.uses import Use, claimant, find_uses


class Tree:
    """/proc and /sys of a machine with the disks sda (8:0) and sdb (8:16)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n")
        self.write("proc/self/mountinfo", "")
        self.device("sda", "8:0")
        self.device("sdb", "8:16")

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def device(self, path: str, number: str) -> None:
        """`path` is a disk ("sda") or a partition ("sda/sda1")."""
        folder = self.root / "sys/devices" / path
        self.write(f"sys/devices/{path}/dev", number)
        if "/" in path:
            (folder / "partition").write_text("1")
        link = self.root / "sys/class/block" / folder.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder)

    def holder(self, below: str, name: str, number: str) -> None:
        if not (self.root / "sys/devices" / name).exists():
            self.device(name, number)
        holders = self.root / "sys/devices" / below / "holders"
        holders.mkdir(exist_ok=True)
        (holders / name).symlink_to(self.root / "sys/devices" / name)

    def mapped(self, name: str, mapped: str, uuid: str) -> None:
        self.write(f"sys/devices/{name}/dm/name", f"{mapped}\n")
        self.write(f"sys/devices/{name}/dm/uuid", f"{uuid}\n")

    def mount(self, number: str, point: str, source: str) -> None:
        file = self.root / "proc/self/mountinfo"
        line = f"36 35 {number} / {point} rw,noatime shared:1 - ext4 {source} rw,errors=continue\n"
        file.write_text(file.read_text() + line)

    def uses(self, block: str = "/dev/sda") -> list[tuple[str, str]]:
        return [(use.reason, use.remedy) for use in find_uses(block, self.root)]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_nobody_uses_an_idle_disk(tree: Tree) -> None:
    tree.device("sda/sda1", "8:1")
    tree.mount("8:16", "/srv", "/dev/sdb")
    assert tree.uses() == []


def test_mounted_disk(tree: Tree) -> None:
    tree.mount("8:0", "/mnt/my\\040disk", "/dev/sda")
    assert tree.uses() == [
        ("/dev/sda is mounted on /mnt/my disk", "Unmount it (umount /mnt/my disk), or name another disk.")
    ]


def test_mounted_partition(tree: Tree) -> None:
    tree.device("sda/sda1", "8:1")
    tree.device("sda/sda2", "8:2")
    tree.mount("8:2", "/srv", "/dev/sda2")
    assert tree.uses() == [("/dev/sda2 is mounted on /srv", "Unmount it (umount /srv), or name another disk.")]


def test_root_disk_comes_before_all_else(tree: Tree) -> None:
    tree.device("sda/sda1", "8:1")
    tree.mount("8:1", "/boot", "/dev/sda1")
    tree.mount("8:0", "/", "/dev/sda")
    assert tree.uses()[0] == ("the root file system of this machine lies on it (/dev/sda)", "Name another disk.")
    assert len(tree.uses()) == 2


def test_root_on_a_volume_of_an_array_of_a_partition(tree: Tree) -> None:
    tree.device("sda/sda1", "8:1")
    tree.holder("sda/sda1", "md0", "9:0")
    tree.write("sys/devices/md0/md/level", "raid1")
    tree.holder("md0", "dm-0", "253:0")
    tree.mapped("dm-0", "vg-root", "LVM-abc")
    tree.mount("253:0", "/", "/dev/mapper/vg-root")
    assert tree.uses() == [
        ("the root file system of this machine lies on it (/dev/mapper/vg-root)", "Name another disk."),
        ("the array /dev/md0 lies on it", "Stop it (mdadm --stop /dev/md0), or name another disk."),
        ("the LVM volume vg-root lies on it", "Take it down (dmsetup remove vg-root), or name another disk."),
    ]


@pytest.mark.parametrize("line", ["/dev/sda1 partition 1048572 0 -2", "/dev/sda1\tpartition\t1048572\t0\t-2"])
def test_swap(tree: Tree, line: str) -> None:
    tree.device("sda/sda1", "8:1")
    tree.write("proc/swaps", f"Filename Type Size Used Priority\n{line}\n")
    assert tree.uses() == [("/dev/sda1 is swap space", "Switch it off (swapoff /dev/sda1), or name another disk.")]
    assert tree.uses("/dev/sdb") == []


@pytest.mark.parametrize(
    ("uuid", "kind"),
    [
        ("LVM-7Rc", "LVM volume"),
        ("CRYPT-LUKS2-11", "encrypted volume"),
        ("mpath-35000", "multipath device"),
        ("", "device-mapper device"),
    ],
)
def test_device_mapper(tree: Tree, uuid: str, kind: str) -> None:
    tree.holder("sda", "dm-3", "253:3")
    tree.mapped("dm-3", "it", uuid)
    assert tree.uses() == [
        (f"the {kind} it lies on it", "Take it down (dmsetup remove it), or name another disk."),
    ]


def test_volume_over_two_partitions_is_told_once(tree: Tree) -> None:
    for number in (1, 2):
        tree.device(f"sda/sda{number}", f"8:{number}")
        tree.holder(f"sda/sda{number}", "dm-3", "253:3")
    tree.mapped("dm-3", "it", "LVM-1")
    assert len(tree.uses()) == 1


def test_other_holder(tree: Tree) -> None:
    tree.holder("sda", "bcache0", "252:0")
    assert tree.uses() == [("/dev/bcache0 lies on it", "Take /dev/bcache0 off it, or name another disk.")]


def test_loop_device_over_a_partition(tree: Tree) -> None:
    tree.device("sda/sda1", "8:1")
    tree.write("sys/block/loop7/loop/backing_file", "/dev/sda1\n")
    tree.write("sys/block/loop8/loop/backing_file", "/srv/image\n")
    assert tree.uses() == [("/dev/loop7 shows /dev/sda1", "Detach it (losetup -d /dev/loop7), or name another disk.")]


def test_disk_that_is_gone_has_no_uses(tree: Tree) -> None:
    tree.mount("0:45", "/run", "tmpfs")
    assert tree.uses("/dev/sdz") == []


class TestNamedByAnotherNode:
    """What mountinfo, swaps and loop devices call by another path is known by its number."""

    @pytest.fixture
    def other(self, tree: Tree) -> Tree:
        real = next((node for node in sorted(Path("/dev").iterdir()) if node.is_block_device()), None)
        if real is None:
            pytest.skip("this machine shows no block device")
        number = real.stat().st_rdev
        tree.device("sdc", f"{os.major(number)}:{os.minor(number)}")
        (tree.root / "dev").mkdir()
        (tree.root / "dev/other").symlink_to(real)
        (tree.root / "dev/file").touch()
        return tree

    def test_mount_of_a_file_system_with_a_number_of_its_own(self, other: Tree) -> None:
        other.mount("0:45", "/srv", "/dev/other")
        other.mount("0:46", "/run", "/dev/file")
        assert other.uses("/dev/sdc") == [("/dev/sdc is mounted on /srv", "Unmount it (umount /srv), or name another disk.")]

    def test_swap(self, other: Tree) -> None:
        other.write("proc/swaps", "Filename Type Size Used Priority\n/dev/other partition 1048572 0 -2\n")
        assert [reason for reason, _ in other.uses("/dev/sdc")] == ["/dev/sdc is swap space"]

    def test_loop_device(self, other: Tree) -> None:
        other.write("sys/block/loop7/loop/backing_file", "/dev/other\n")
        assert [reason for reason, _ in other.uses("/dev/sdc")] == ["/dev/loop7 shows /dev/sdc"]


class TestClaimant:
    @pytest.fixture
    def locks(self, tree: Tree) -> Tree:
        tree.write("dev/sda", "")
        node = (tree.root / "dev/sda").stat()
        place = f"{node.st_dev >> 8 & 0xFFF:02x}:{node.st_dev & 0xFF:02x}:{node.st_ino}"
        tree.write("template", f"1: POSIX  ADVISORY  WRITE 7 00:01:2 0 EOF\n2: FLOCK  ADVISORY  MODE 812 {place} 0 EOF\n")
        tree.write("proc/812/cmdline", "hwvirt\0run\0desk.yaml\0")
        return tree

    def test_run_is_named(self, locks: Tree) -> None:
        locks.write("proc/locks", (locks.root / "template").read_text().replace("MODE", "WRITE"))
        assert find_uses("/dev/sda", locks.root) == [
            Use("it is claimed by process 812 (hwvirt run desk.yaml)", "Wait until that run has ended, or stop it.")
        ]

    def test_disk_that_this_process_has_is_another_disk_of_its_rig(self, locks: Tree) -> None:
        text = (locks.root / "template").read_text().replace("MODE 812", f"WRITE {os.getpid()}")
        locks.write("proc/locks", text)
        assert find_uses("/dev/sda", locks.root) == [
            Use("it is another disk of the same rig already", "Name another disk; `hwvirt scan` shows what is here.")
        ]

    def test_process_of_another_user_has_its_number_only(self, locks: Tree) -> None:
        locks.write("proc/locks", (locks.root / "template").read_text().replace("MODE", "WRITE"))
        (locks.root / "proc/812/cmdline").unlink()
        assert claimant("/dev/sda", locks.root) == "process 812"

    def test_udev_s_short_look_is_no_claim(self, locks: Tree) -> None:
        locks.write("proc/locks", (locks.root / "template").read_text().replace("MODE", "READ"))
        assert claimant("/dev/sda", locks.root) == ""

    def test_nobody(self, tree: Tree) -> None:
        assert claimant("/dev/sda", tree.root) == ""
