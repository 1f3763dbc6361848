"""The guard on real block devices: claims, mounts, swap, content. Loop devices have no identity: one is lent to them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from hwvirt.disk.discovery.identity import DiskIdentity
from hwvirt.disk.discovery.label import NO_LABEL, decode_label
from hwvirt.disk.guard.admit import admit
from hwvirt.disk.guard.arm import Effect, arm, disarm
from hwvirt.disk.guard.linux import LinuxProbe
from hwvirt.disk.guard.wanted import Wanted, WrongDisk
from hwvirt.disk.loopdev import LoopDevice
from hwvirt.errors import DiskError
from hwvirt.scsi.volume import Access, Extent
from tests.disk.guard.machine import GOOD, Name
from tests.disk.guard.test_guard_refusals import DAY

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="loop devices need root and /dev/loop-control"
    ),
]

SIZE = 2 << 20
HOLD = """
import fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY | os.O_EXCL * ("claim" in sys.argv))
if "lock" in sys.argv:
    fcntl.flock(fd, fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""


class LoopProbe(LinuxProbe):
    """This machine, with one loop device for a SCSI disk."""

    def __init__(self, block: str, block_bytes: int) -> None:
        self.disk = replace(GOOD, block=block, size_bytes=SIZE, block_bytes=block_bytes)

    def identities(self) -> Sequence[DiskIdentity]:
        return [self.disk]

    def asked(self, disk: DiskIdentity) -> DiskIdentity:
        return disk


class Bench:
    """One loop device, what a rig says of it, and what to undo."""

    def __init__(self, image: Path, block_bytes: int, stack: ExitStack) -> None:
        self.image, self.stack = image, stack
        self.block = stack.enter_context(LoopDevice(str(image), block_bytes)).path
        self.probe = LoopProbe(self.block, block_bytes)
        self.name = Name(size_bytes=SIZE, block_bytes=block_bytes, window=Extent(8, 400))
        self.wanted = Wanted("desk", "first", self.name)

    def arm(self) -> None:
        arm([self.wanted], DAY, probe=self.probe)

    def openings(self) -> set[str]:
        """File descriptors of this process on the disk, those of who attached it among them."""
        return {number.name for number in Path("/proc/self/fd").iterdir() if number.resolve() == Path(self.block)}

    def refusal(self) -> str:
        """The words of the run, which are those of arming too; neither may change a byte."""
        before = self.image.read_bytes()
        with pytest.raises(WrongDisk) as of_run, admit(self.name, "desk", "first", self.probe):
            pytest.fail("admitted")
        with pytest.raises(WrongDisk) as of_arming:
            self.arm()
        assert str(of_run.value) == str(of_arming.value)
        os.sync()
        assert self.image.read_bytes() == before
        start = f"refusing {self.block} (ZL2001, 2.1 MB) as disk first of rig desk: "
        assert str(of_run.value).startswith(start)
        return str(of_run.value).removeprefix(start)

    def run(self, *command: str) -> None:
        subprocess.run(command, check=True, capture_output=True)

    def hold(self, *how: str) -> int:
        """Another process that holds the device: "claim", "lock" or both."""
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, self.block, *how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.stack.callback(process.wait, 10)
        assert process.stdin is not None
        assert process.stdout is not None
        self.stack.callback(process.stdin.close)
        self.stack.callback(process.stdout.close)
        process.stdout.readline()
        return process.pid


@pytest.fixture(params=[512, 4096])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    image = tmp_path / "disk"
    image.write_bytes(bytes(NO_LABEL) + b"data" * ((SIZE - len(NO_LABEL)) // 4))
    with ExitStack() as stack:
        yield Bench(image, request.param, stack)


def test_arming_changes_the_label_area_and_nothing_else_and_disarming_puts_it_back(bench: Bench) -> None:
    before = bench.image.read_bytes()
    assert arm([bench.wanted], DAY, Effect.DRY_RUN, bench.probe) == [bench.probe.disk]
    assert bench.image.read_bytes() == before
    bench.arm()
    armed = bench.image.read_bytes()
    label = decode_label(armed[:4096])
    assert label is not None
    assert (label.rig, label.role, label.serial) == ("desk", "first", "ZL2001")
    assert armed[4096:] == before[4096:]
    with admit(bench.name, "desk", "first", bench.probe) as admitted:
        admitted.recheck()
    assert bench.image.read_bytes() == armed
    assert disarm([bench.wanted], probe=bench.probe) == [bench.probe.disk]
    assert bench.image.read_bytes() == before


def test_admitted_disk_cannot_be_claimed_mounted_or_armed_by_others(bench: Bench) -> None:
    bench.arm()
    with admit(bench.name, "desk", "first", bench.probe):
        with pytest.raises(OSError, match="busy"):
            os.close(os.open(bench.block, os.O_RDONLY | os.O_EXCL))
        mount = subprocess.run(
            ["mount", "-t", "ext4", bench.block, str(bench.image.parent)], capture_output=True, check=False
        )
        assert mount.returncode != 0
        assert bench.refusal() == (
            "it is another disk of the same rig already. Name another disk; `hwvirt scan` shows what is here."
        )
    os.close(os.open(bench.block, os.O_RDONLY | os.O_EXCL))


def test_claim_of_a_run_cannot_write(bench: Bench) -> None:
    bench.arm()
    before = bench.openings()
    with admit(bench.name, "desk", "first", bench.probe):
        (fd,) = bench.openings() - before
        assert fcntl.fcntl(int(fd), fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY


def test_label_is_on_the_medium_before_arming_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    monkeypatch.setattr("hwvirt.disk.guard.linux.os.fsync", lambda fd: synced.append(os.pread(fd, 19, 0)))
    bench.arm()
    assert synced == [b"hwvirt disk label 1"]


def test_another_run_is_named(bench: Bench) -> None:
    pid = bench.hold("claim", "lock")
    refusal = bench.refusal()
    assert refusal.startswith(f"it is claimed by process {pid} ({sys.executable} -c ")
    assert refusal.endswith("). Wait until that run has ended, or stop it.")


def test_run_that_begins_between_two_rungs_is_named_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwvirt.disk.guard.linux.find_uses", lambda _: [])
    pid = bench.hold("claim", "lock")
    refusal = bench.refusal()
    assert refusal.startswith(f"it is claimed by process {pid} (")
    assert refusal.endswith(f"). Find out who (fuser -v {bench.block}), or name another disk.")


def test_silent_holder_is_refused_by_the_kernel_s_claim(bench: Bench) -> None:
    bench.hold("claim")
    assert bench.refusal() == (
        f"somebody holds it exclusively. Find out who (fuser -v {bench.block}), or name another disk."
    )


def test_lock_alone_is_a_claim_too(bench: Bench) -> None:
    pid = bench.hold("lock")
    assert f"it is claimed by process {pid} (" in bench.refusal()


def test_udev_s_short_look_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.arm()
    udev = os.open(bench.block, os.O_RDONLY)
    fcntl.flock(udev, fcntl.LOCK_SH)
    monkeypatch.setattr("hwvirt.disk.guard.linux.time.sleep", lambda _: fcntl.flock(udev, fcntl.LOCK_UN))
    try:
        with admit(bench.name, "desk", "first", bench.probe):
            pass
    finally:
        os.close(udev)


def test_who_locks_for_ever_is_not_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwvirt.disk.guard.linux._LOCK_S", 0.0)
    locked = os.open(bench.block, os.O_RDONLY)
    fcntl.flock(locked, fcntl.LOCK_SH)
    try:
        assert bench.refusal() == (
            f"it is claimed by a process that locks it. Find out who (fuser -v {bench.block}), or name another disk."
        )
    finally:
        os.close(locked)


def test_mounted_file_system(bench: Bench, tmp_path: Path) -> None:
    bench.run("mkfs.ext4", "-qF", bench.block)
    point = tmp_path / "mount point"
    point.mkdir()
    bench.run("mount", "-o", "ro", bench.block, str(point))
    bench.stack.callback(bench.run, "umount", str(point))
    assert bench.refusal() == (f"{bench.block} is mounted on {point}. Unmount it (umount {point}), or name another disk.")


def test_armed_disk_that_was_formatted_since(bench: Bench) -> None:
    bench.arm()
    bench.run("mkfs.ext4", "-qF", bench.block)
    assert bench.refusal() == (
        "there is something on it: ext4 file system, at byte 1080. "
        f"If nothing on it is needed, run wipefs --all {bench.block}; else name another disk."
    )


def test_file_system_in_the_window_is_the_rig_s_own(bench: Bench) -> None:
    bench.arm()
    with bench.image.open("r+b") as image:  # an ext4 of a host that lies so that its magic is that of a btrfs
        image.seek((64 << 10) + 64)
        image.write(b"_BHRfS_M")
    with admit(replace(bench.name, window=Extent(4096 // bench.name.block_bytes, 400)), "desk", "first", bench.probe):
        pass


def test_swap_space(bench: Bench) -> None:
    bench.run("mkswap", bench.block)
    if subprocess.run(["swapon", bench.block], capture_output=True, check=False).returncode:
        pytest.skip("this kernel has no swap")
    bench.stack.callback(bench.run, "swapoff", bench.block)
    assert bench.refusal() == (f"{bench.block} is swap space. Switch it off (swapoff {bench.block}), or name another disk.")


def test_loop_device_over_it(bench: Bench) -> None:
    upper = bench.stack.enter_context(LoopDevice(bench.block, 4096, access=Access.READ_ONLY)).path
    assert bench.refusal() == f"{upper} shows {bench.block}. Detach it (losetup -d {upper}), or name another disk."


def test_what_was_written_past_the_page_cache_is_seen(bench: Bench) -> None:
    bench.arm()
    bystander = os.open(bench.block, os.O_RDONLY)  # keeps the page cache of the node
    try:
        os.pread(bystander, 1 << 16, 0)
        with admit(bench.name, "desk", "first", bench.probe) as admitted:
            with bench.image.open("r+b") as image:
                image.seek(1080)
                image.write(b"\x53\xef")
            with pytest.raises(WrongDisk, match="its label is damaged"):
                admitted.recheck()
    finally:
        os.close(bystander)


def test_label_that_did_not_stay_is_an_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwvirt.disk.guard.linux.read_label_bytes", lambda _: NO_LABEL)
    with pytest.raises(DiskError) as caught:
        bench.arm()
    assert str(caught.value) == f"{bench.block} did not keep its label. Do not trust this disk."


def as_nobody(act: Callable[[], None]) -> str:
    """What happens to somebody who may not open the node."""
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresuid(65534, 65534, 65534)
        try:
            act()
        except DiskError:
            os._exit(4)
        os._exit(0)
    return {0: "allowed", 4: "DiskError"}[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]


@pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="e2fsprogs is missing")
def test_who_may_not_open_the_node_gets_nowhere(bench: Bench) -> None:
    bench.arm()

    def run() -> None:
        with admit(bench.name, "desk", "first", bench.probe):
            pass

    assert as_nobody(run) == "DiskError"
