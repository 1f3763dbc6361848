"""Runs inside a kernel of the lab with a real udev and two scsi_debug disks. One question a line, one line of JSON each."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyudev

from hwvirt.disk.discovery.identity import DiskIdentity
from hwvirt.disk.discovery.listing import list_identities
from hwvirt.disk.guard.admit import admit
from hwvirt.disk.guard.arm import arm, disarm
from hwvirt.disk.guard.udev import udev_properties
from hwvirt.disk.guard.wanted import Wanted
from hwvirt.disk.passthrough import SgDisk
from hwvirt.errors import HwvirtError
from hwvirt.scsi.cdb import synchronize_cache_16, unmap, write_16, write_same_16_unmap
from hwvirt.scsi.command import Command
from hwvirt.scsi.volume import Extent
from hwvirt.units import Deadline
from tests.lab.guest_guard import DAY, first, name_of

NOBODY, GROUP = 65534, 900
LINK = "/dev/hwvirt-sg/desk/first"
HWVIRT = (sys.executable, "-m", "hwvirt")
RIG = """\
rig: desk
disks:
  first:  {{sg: {{wwn: {first.wwn}, size: {first.size_bytes}B, block: 512B, window: {{lba: 2048, blocks: 2048}}}}}}
  second: {{sg: {{wwn: {second.wwn}, size: {second.size_bytes}B, block: 512B, window: {{lba: 2048, blocks: 6144}}}}}}
controllers: {{a: {{disk: first, luns: {{0: redirect, 1: frozen}}}}, b: {{disk: second}}}}
scenarios:
  - name: whoever runs a rig needs no privilege
    steps:
      - fill: {{lun: 0}}
      - redirect: {{lun: 0}}
      - workload: {{lun: 0, ops: 200, depth: 8, blocks: 1..8, mix: {{write: 60, read: 30, flush: 5, unmap: 5}}}}
      - judge: all
    expect: {{acknowledged: ">= 100"}}
"""
CHANGING = {
    "WRITE(16)": Command(write_16(2048, 1), (bytes(512),)),
    "SYNCHRONIZE CACHE(16)": Command(synchronize_cache_16()),
    "UNMAP": unmap([Extent(2048, 8)]),
    "WRITE SAME(16)": write_same_16_unmap(2048, 8),
}


def settle() -> None:
    subprocess.run(["udevadm", "settle", "--timeout=60"], check=True)


def nodes() -> list[list[object]]:
    """Node, group and mode of every disk, then what each link leads to."""
    found: list[list[object]] = []
    for disk in list_identities():
        for node in (disk.block, disk.sg):
            status = os.stat(node)
            found.append([node, status.st_gid, oct(stat.S_IMODE(status.st_mode))])
    links: list[Path] = [link for top in ("hwvirt", "hwvirt-sg") for link in sorted(Path("/dev").glob(f"{top}/*/*"))]
    found += [[str(link), str(link.resolve())] for link in links]
    return found


def as_member(act: Callable[[], object]) -> object:
    """What `act` returns to a user without any privilege, who is in the group hwvirt."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setgroups([])
        os.setresgid(GROUP, GROUP, GROUP)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        os.write(writer, json.dumps(act()).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer: object = json.loads(pipe.read())
    os.wait()
    return answer


def as_member_run(*command: str) -> list[object]:
    """Exit code and words of a program that a member of the group hwvirt runs, who has no other privilege."""
    done = subprocess.run(
        command, user=NOBODY, group=GROUP, extra_groups=[], cwd="/tmp", capture_output=True, text=True, check=False
    )
    return [done.returncode, done.stdout + done.stderr]


def rig_of_a_member(first_disk: DiskIdentity, second: DiskIdentity) -> object:
    """`hwvirt run` with the second disk not armed, then with both: how it ended, what the judge held, who it was."""
    Path("/tmp/desk.yaml").write_text(RIG.format(first=first_disk, second=second))
    run = [*HWVIRT, "run", "--no-live", "--runs", "/tmp/member", "/tmp/desk.yaml"]
    denied = as_member_run(*run)
    armed_by_member = as_member_run(*HWVIRT, "arm", "/tmp/desk.yaml")
    wanted = Wanted("desk", "second", replace(name_of(second), window=Extent(2048, 6144)))
    arm([wanted], DAY)
    settle()
    links = sorted(str(link.resolve()) for link in Path("/dev/hwvirt-sg/desk").iterdir())
    ran = as_member_run(*run)
    report = json.loads(Path("/tmp/member/latest/report.json").read_text())
    held = {name: found["verdict"] for name, found in report["properties"].items() if found["checked"]}
    owner = os.stat("/tmp/member/latest/report.json").st_uid
    disarm([wanted])
    return [denied, armed_by_member, links, ran, held, owner]


def controller_of_a_member(disk: DiskIdentity) -> list[object]:
    """`hwvirt controller` on the link that udev has made, from its start to its end: exit code, and what it said."""
    window = {"lba": 2048, "blocks": 2048}
    guard = {"rig": "desk", "role": "first", "wwn": disk.wwn, "size_bytes": disk.size_bytes, "window": window}
    config = {
        "name": "a",
        "state_dir": "/tmp/a.state",
        "control": "/tmp/a.sock",
        "disk": {"name": "first", "path": LINK, "kind": "sg", "block_bytes": 512, "guard": guard},
        "luns": [{"lun": 0, "mode": "own", **window}],
    }
    Path("/tmp/a.json").write_text(json.dumps(config))
    with subprocess.Popen(
        [*HWVIRT, "controller", "/tmp/a.json", "--until-eof"],
        user=NOBODY, group=GROUP, extra_groups=[], cwd="/tmp", text=True, stdin=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line.strip())
            if "controller.started" in line:
                process.stdin.close()
    return [process.returncode, said]


def words(act: Callable[[], object]) -> str:
    try:
        return str(act())
    except HwvirtError as error:
        return str(error)


def run_first() -> str:
    """A run has its disk, and everything that it sends to it is executed."""
    with admit(name_of(first()), "desk", "first") as admitted:
        disk = SgDisk(admitted.sg)
        return ", ".join(
            f"{name} {disk.execute(command, Deadline.after(10)).status.name}" for name, command in CHANGING.items()
        )


def flush_by_block_node() -> str:
    return SgDisk(first().block).execute(CHANGING["SYNCHRONIZE CACHE(16)"], Deadline.after(10)).status.name


def format_and_wait(block: str) -> None:
    """Nobody announces this change: udev notices that the node was written to."""
    monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="udev")
    monitor.filter_by("block")
    monitor.start()
    subprocess.run(["mkfs.ext4", "-qF", block], check=True)
    while os.stat(block).st_gid == GROUP:
        assert monitor.poll(timeout=60) is not None, "udev did not notice"


def answer(question: str) -> object:
    disk = first()
    wanted = Wanted("desk", "first", name_of(disk))
    other = next(found for found in list_identities() if found.serial != disk.serial)
    match question:
        case "arm":
            if not udev_properties(disk.sg):
                arm([wanted], DAY)
        case "disarm":
            disarm([wanted])
        case "format":
            format_and_wait(disk.block)
        case "pull and plug":
            Path(f"/sys/bus/scsi/devices/{disk.address}/delete").write_text("1")
            settle()
            gone = nodes()
            Path(f"/sys/class/scsi_host/host{disk.address.split(':')[0]}/scan").write_text("- - -")
            device = f"/sys/bus/scsi/devices/{disk.address}"
            waiting = f"while ! [ -e {device}/block/*/dev ]; do sleep 0.05; done"
            subprocess.run(["sh", "-c", waiting], check=True)
            settle()
            return [gone, nodes()]
        case "member":
            return as_member(lambda: [words(run_first), words(lambda: SgDisk(other.sg)), words(lambda: SgDisk(other.block))])
        case "member runs a rig":
            return rig_of_a_member(disk, other)
        case "member runs a controller":
            return controller_of_a_member(disk)
        case "member by block node":
            return as_member(lambda: words(flush_by_block_node))
        case "probe":
            return [udev_properties(node) for found in list_identities() for node in (found.block, found.sg)]
        case _:
            raise RuntimeError(f"no such question: {question}")
    settle()
    return nodes()


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answer(line.strip())), flush=True)
