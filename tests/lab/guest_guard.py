"""Runs inside a kernel of the lab, with two scsi_debug disks of 4 MiB, and tries to have the first of them.

One question a line on standard input, the name of a way to name the wrong disk; one JSON answer a line on standard output:
exit code and words of `hwvirt run` and of `hwvirt arm`, and whether every byte of both disks is as it was.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from hwvirt.disk.discovery.found import discover
from hwvirt.disk.discovery.identity import DiskIdentity
from hwvirt.disk.discovery.listing import list_identities
from hwvirt.disk.guard.admit import admit
from hwvirt.disk.guard.arm import arm, disarm
from hwvirt.disk.guard.wanted import Wanted
from hwvirt.errors import DiskError, SafetyRefusal
from hwvirt.scsi.volume import Extent
from tests.lab.guest_program import program

DAY = datetime(2026, 1, 31, 12, tzinfo=UTC)
WINDOW = Extent(2048, 4096)
POINT = "/tmp/point"
SIZE = 4 << 20
READ, ZEROES = mmap.mmap(-1, SIZE), mmap.mmap(-1, SIZE)  # made once: new memory costs more than what is done with it


@dataclass(frozen=True)
class Name:
    """As in a rig file."""

    wwn: str | None
    serial: str | None
    size_bytes: int
    block_bytes: int
    window: Extent = WINDOW


def name_of(disk: DiskIdentity) -> Name:
    return Name(disk.wwn, disk.serial, disk.size_bytes, disk.block_bytes)


def first() -> DiskIdentity:
    return next(disk for disk in list_identities() if disk.serial == "2000")


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"DM_DISABLE_UDEV": "1"})
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr}")


def put(block: str, offset: int, data: bytes) -> None:
    with open(block, "r+b", buffering=0) as node:
        start = offset // 4096 * 4096
        node.seek(start)
        whole = bytearray(node.read(4096))
        whole[offset - start : offset - start + len(data)] = data
        node.seek(start)
        node.write(whole)
        os.fsync(node.fileno())


@contextmanager
def mounted(node: str, point: str = POINT) -> Iterator[None]:
    run("mkfs.ext4", "-qF", node)
    Path(POINT).mkdir(exist_ok=True)
    run("mount", "-o", "ro", node, point)
    try:
        yield
    finally:
        run("umount", node)


@contextmanager
def mounted_out_of_sight(node: str) -> Iterator[None]:
    """In another mount namespace: our /proc/self/mountinfo does not have it."""
    run("mkfs.ext4", "-qF", node)
    Path(POINT).mkdir(exist_ok=True)
    hide = f"mount --make-rprivate / && mount -o ro {node} {POINT} && echo done && read end"
    with subprocess.Popen(["unshare", "-m", "sh", "-ec", hide], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        yield
        process.stdin.close()


@contextmanager
def partitioned(block: str) -> Iterator[str]:
    """With an MBR and one partition of it."""
    entry = struct.pack("<B3sB3sII", 0, b"\0\0\0", 0x83, b"\0\0\0", 2048, 4096)
    put(block, 446, entry + bytes(48) + b"\x55\xaa")
    run("blockdev", "--rereadpt", block)
    try:
        yield f"{block}1"
    finally:
        put(block, 0, bytes(512))
        run("blockdev", "--rereadpt", block)


@contextmanager
def mapped(node: str, name: str, uuid: str) -> Iterator[str]:
    run("dmsetup", "create", name, "--uuid", uuid, "--table", f"0 4096 linear {node} 0")
    try:
        yield f"/dev/mapper/{name}"
    finally:
        run("dmsetup", "remove", name)


@contextmanager
def array_over(block: str) -> Iterator[None]:
    run("modprobe", "md-mod")
    Path("/sys/module/md_mod/parameters/new_array").write_text("md9")
    md = Path("/sys/block/md9/md")
    (md / "metadata_version").write_text("none")
    (md / "new_dev").write_text((Path("/sys/class/block") / Path(block).name / "dev").read_text())
    try:
        yield
    finally:
        (md / "array_state").write_text("clear")


@contextmanager
def swapped(block: str) -> Iterator[None]:
    run("mkswap", block)
    run("swapon", block)
    try:
        yield
    finally:
        run("swapoff", block)


@contextmanager
def looped(block: str) -> Iterator[None]:
    run("modprobe", "loop")
    run("losetup", "--read-only", "/dev/loop3", block)
    try:
        yield
    finally:
        run("losetup", "-d", "/dev/loop3")


@contextmanager
def held_by_another_run(block: str) -> Iterator[None]:
    """Another process has the disk, as a run has it."""
    arm([Wanted("desk", "first", name_of(first()))], DAY)
    hold = "from tests.lab.guest_guard import *\nwith admit(name_of(first()), 'desk', 'first'):\n print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.stdin.write(b"\n")
        process.stdin.close()


def set_up(way: str, stack: ExitStack) -> Name:
    """Makes it so; returns how the rig names its disk."""
    disk = first()
    block, name = disk.block, name_of(disk)
    enter: Callable[..., object] = stack.enter_context
    match way:
        case "mounted":
            enter(mounted(block))
        case "mounted out of sight":
            enter(mounted_out_of_sight(block))
        case "partition mounted":
            enter(mounted(enter(partitioned(block))))  # type: ignore[arg-type]  # it is the partition's node
        case "root disk":
            enter(mounted(block, "/"))
        case "swap":
            enter(swapped(block))
        case "LVM volume":
            enter(mapped(block, "vg-home", "LVM-1"))
        case "volume mounted":
            enter(mounted(enter(mapped(block, "vg-home", "LVM-1"))))  # type: ignore[arg-type]  # the volume's node
        case "array":
            enter(array_over(block))
        case "loop device":
            enter(looped(block))
        case "partition table":
            enter(partitioned(block))
        case "file system":
            run("mkfs.ext4", "-qF", block)
        case "label damaged":
            arm([Wanted("desk", "first", name)], DAY)
            put(block, 3000, b"?")
        case "armed for another rig":
            arm([Wanted("cellar", "first", name)], DAY)
        case "armed as another disk":
            arm([Wanted("desk", "second", name)], DAY)
        case "claimed by another run":
            enter(held_by_another_run(block))
        case "copy of an armed disk":
            other = next(found for found in list_identities() if found.serial != disk.serial)
            arm([Wanted("desk", "first", name_of(other))], DAY)
            run("dd", f"if={other.block}", f"of={block}", "bs=4096", "count=1", "conv=fsync")
        case "node only":
            return replace(name, wwn=block, serial=None)
        case "wwn differs":
            return replace(name, wwn="naa.3333333000000000")
        case "serial differs":
            return replace(name, serial="4000")
        case "size differs":
            return replace(name, size_bytes=name.size_bytes * 2)
        case "block size differs":
            return replace(name, block_bytes=4096, window=Extent(256, 256))
        case "not there":
            return replace(name, wwn="naa.3333333000000000", serial=None)
        case "window over the label":
            return replace(name, window=Extent(0, 4096))
        case "window beyond the end":
            return replace(name, window=Extent(2048, 8192))
        case "not armed" | "twice":
            pass
        case _:
            raise RuntimeError(f"no such way: {way}")
    return name


def digests() -> list[str]:
    """Of each disk's label area, and of all bytes behind it, as the medium has them."""
    found = []
    for disk in list_identities():
        transfer(disk, os.O_RDONLY, lambda fd: os.preadv(fd, [READ], 0))
        found += [hashlib.sha256(part).hexdigest() for part in (memoryview(READ)[:4096], memoryview(READ)[4096:])]
    return found


def blank() -> None:
    for disk in list_identities():
        transfer(disk, os.O_RDWR, lambda fd: os.pwritev(fd, [ZEROES], 0))


def transfer(disk: DiskIdentity, mode: int, move: Callable[[int], int]) -> None:
    """The whole disk at once, past the page cache."""
    fd = os.open(disk.block, mode | os.O_DIRECT)
    try:
        assert move(fd) == disk.size_bytes
    finally:
        os.close(fd)


def attempt(act: Callable[[], object]) -> str:
    try:
        act()
    except DiskError as error:
        return f"DiskError: {error}"
    except SafetyRefusal as refusal:
        return f"{refusal.exit_code.name}: {refusal}"
    return "allowed"


def write_rig(name: Name) -> None:
    """desk.yaml, with the disk named so."""
    names = "".join(f"{key}: {json.dumps(value)}, " for key, value in (("wwn", name.wwn), ("serial", name.serial)) if value)
    window = f"{{lba: {name.window.lba}, blocks: {name.window.blocks}}}"
    sg = f"{names}size: {name.size_bytes}B, block: {name.block_bytes}B, window: {window}"
    Path("/tmp/desk.yaml").write_text(
        f"rig: desk\ndisks: {{first: {{sg: {{{sg}}}}}}}\n"
        "controllers: {a: {disk: first, luns: {0: {own: {size: 1MiB}}}}}\n"
        "scenarios: [{name: it is written, steps: [{fill: {lun: 0}}, {flush: {lun: 0}}]}]\n"
    )


def try_the_programs() -> list[list[object]]:
    """What `hwvirt run` and `hwvirt arm` make of desk.yaml."""
    code, _, err = program(["run", "--no-live", "--runs", "/tmp/runs", "/tmp/desk.yaml"])
    ran = code == 3 and not err.startswith("hwvirt: /tmp/desk.yaml:")  # else the file was refused when it was read
    told = json.loads(Path("/tmp/runs/latest/report.json").read_text())["reasons"] if ran else [err]
    return [[code, *told], list(program(["arm", "/tmp/desk.yaml"]))]


def try_to_run(name: Name) -> None:
    with admit(name, "desk", "first"):
        pass


def answer(way: str) -> object:
    match way:
        case "scan":
            return [[str(disk.identity), disk.armed.value, *disk.reasons] for disk in discover()]
        case "whole life":
            return whole_life()
        case "replugged":
            return replugged()
        case "write the rig of a disk that is not there":
            write_rig(replace(name_of(first()), serial="4000"))
            return True
    with ExitStack() as stack:
        stack.callback(blank)
        write_rig(set_up(way, stack))
        before = digests()
        ran, armed = try_the_programs()
        return [ran, armed, digests() == before]


def whole_life() -> object:
    """Armed, had by a run, disarmed: which digests changed, what scan said, what the run got."""
    wanted = Wanted("desk", "first", name_of(first()))
    blank()
    before = digests()
    arm([wanted], DAY)
    armed = digests()
    said = answer("scan")
    with admit(wanted.name, "desk", "first") as admitted:
        admitted.recheck()
        had = [admitted.sg, admitted.block, list(admitted.window)]
        excluded = subprocess.run(["mount", admitted.block, "/mnt"], capture_output=True, check=False).returncode != 0
    disarm([wanted])
    changed = [index for index, (one, other) in enumerate(zip(before, armed, strict=True)) if one != other]
    return [changed, said, had, excluded, digests() == before]


def replugged() -> object:
    """The disk of a run is pulled, and comes back with other nodes."""
    disk = first()
    wanted = Wanted("desk", "first", name_of(disk))
    arm([wanted], DAY)
    host = disk.address.split(":")[0]
    stay = os.open(disk.sg, os.O_RDONLY | os.O_NONBLOCK)  # so that the old node's number is not free again
    with admit(wanted.name, "desk", "first") as admitted:
        Path(f"/sys/bus/scsi/devices/{disk.address}/delete").write_text("1")
        gone = attempt(admitted.recheck)
        gone_again = attempt(lambda: try_to_run(name_of(disk)))
    Path(f"/sys/class/scsi_host/host{host}/scan").write_text("- - -")
    run("sh", "-c", f"while ! [ -e /sys/bus/scsi/devices/{disk.address}/block/*/dev ]; do sleep 0.05; done")
    os.close(stay)
    with admit(wanted.name, "desk", "first") as admitted:
        back = [admitted.identity.serial, admitted.sg != disk.sg]
    disarm([wanted])
    return [gone, gone_again, back]


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(answer(line.strip())), flush=True)


if __name__ == "__main__":
    main()
