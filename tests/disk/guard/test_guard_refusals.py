"""Every way to name the wrong disk is refused in these words, and changes no byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import NamedTuple

import pytest

from hwvirt.disk.discovery.identity import DiskIdentity
from hwvirt.disk.discovery.label import encode_label, make_label
from hwvirt.disk.discovery.signatures import Signature
from hwvirt.disk.discovery.uses import Use
from hwvirt.disk.guard.admit import admit
from hwvirt.disk.guard.arm import arm, disarm
from hwvirt.disk.guard.wanted import Wanted, WrongDisk
from hwvirt.errors import ExitCode
from hwvirt.scsi.volume import Extent
from tests.disk.guard.machine import GOOD, OTHER, Machine, Name

DAY = datetime(2026, 1, 31, 12, tzinfo=UTC)
GOOD_DISK = "refusing /dev/sdc (ZL2001, 500.1 GB) as disk first of rig desk: "
NO_DISK = "refusing disk first of rig desk: "
COMPARE = "Compare the rig file with `hwvirt scan`."
OVERWRITE = "If nothing on it is needed, overwrite the label: dd if=/dev/zero of=/dev/sdc bs=4096 count=1."


def armed(machine: Machine, rig: str = "desk", role: str = "first", disk: DiskIdentity = GOOD) -> None:
    machine.disks[0].start[:] = encode_label(make_label(rig, role, disk, DAY))


class Case(NamedTuple):
    claim: str
    text: str
    name: Name = Name()
    change: Callable[[Machine], object] = lambda _: None


def set_good(**changes: object) -> Callable[[Machine], None]:
    def change(machine: Machine) -> None:
        machine.disks[0].identity = replace(GOOD, **changes)  # type: ignore[arg-type]  # fields by name

    return change


def used(reason: str, remedy: str) -> Callable[[Machine], None]:
    return lambda machine: machine.disks[0].uses.append(Use(reason, remedy))


def signed(kind: str, usage: str, offset: int) -> Callable[[Machine], None]:
    return lambda machine: machine.disks[0].signatures.append(Signature(kind, usage, offset))


def torn(machine: Machine) -> None:
    armed(machine)
    machine.disks[0].start[3000] = 1


def of_version_2(machine: Machine) -> None:
    machine.disks[0].start[:20] = b"hwvirt disk label 2\n"


def repartitioned(machine: Machine) -> None:
    armed(machine)
    signed("gpt", "table", GOOD.size_bytes - 512)(machine)


ALWAYS = [  # refused whether it is to be run, armed or disarmed
    Case(
        "named by its node only",
        NO_DISK + "/dev/sdc is a node, and may be another disk after the next boot. "
        "Name its wwn or serial: `hwvirt scan --yaml` prints them.",
        Name(wwn="/dev/sdc", serial=None),
    ),
    Case(
        "named by nothing",
        NO_DISK + "the rig gives neither its wwn nor its serial. Name its wwn or serial: `hwvirt scan --yaml` prints them.",
        Name(wwn=None, serial=None),
    ),
    Case(
        "not there",
        NO_DISK + "no disk here has wwn naa.5000c500ffffffff. Plug it in; `hwvirt scan` shows what is here.",
        Name(wwn="naa.5000c500ffffffff", serial=None),
    ),
    Case(
        "no disk with the serial",
        NO_DISK + "no disk here has serial ZL9999. Plug it in; `hwvirt scan` shows what is here.",
        Name(wwn=None, serial="ZL9999"),
    ),
    Case(
        "wwn differs",
        GOOD_DISK + "it has wwn naa.5000c500aabbccdd, and the rig says naa.5000c500ffffffff. " + COMPARE,
        Name(wwn="naa.5000c500ffffffff"),
    ),
    Case(
        "wwn differs from the other disk's",
        "refusing /dev/sdd (ZL2002, 500.1 GB) as disk first of rig desk: "
        "it has wwn naa.5000c500aabb0011, and the rig says naa.5000c500ffffffff. " + COMPARE,
        Name(wwn="naa.5000c500ffffffff", serial="ZL2002"),
    ),
    Case("serial differs", GOOD_DISK + "it has serial ZL2001, and the rig says ZL2002. " + COMPARE, Name(serial="ZL2002")),
    Case(
        "serial in small letters",
        GOOD_DISK + "it has serial ZL2001, and the rig says zl2001. " + COMPARE,
        Name(serial="zl2001"),
    ),
    Case(
        "size differs",
        GOOD_DISK + "it has 500107862016 bytes, and the rig says 500107862528. " + COMPARE,
        Name(size_bytes=GOOD.size_bytes + 512),
    ),
    Case(
        "block size differs",
        GOOD_DISK + "its blocks have 512 bytes, and the rig says 4096. " + COMPARE,
        Name(block_bytes=4096),
    ),
    Case(
        "wwn twice",
        NO_DISK + "2 disks have wwn naa.5000c500aabbccdd: /dev/sdc and /dev/sdd. "
        "If they are two paths to one disk, take one path away: it would be written behind the guard's back.",
        change=lambda machine: setattr(machine.disks[1], "identity", replace(OTHER, wwn=GOOD.wwn)),
    ),
    Case(
        "serial twice",
        NO_DISK + "2 disks have serial ZL2001: /dev/sdc and /dev/sdd. Name it by its wwn: `hwvirt scan --yaml` prints it.",
        Name(wwn=None),
        lambda machine: setattr(machine.disks[1], "identity", replace(OTHER, serial=GOOD.serial)),
    ),
    Case(
        "no block node",
        "refusing /dev/sg2 (ZL2001, 0 B) as disk first of rig desk: it has no block node. "
        "Load the kernel's driver: modprobe sd_mod.",
        change=set_good(block="", size_bytes=0, block_bytes=0),
    ),
    Case("no sg node", GOOD_DISK + "it has no sg node. Load the kernel's driver: modprobe sg.", change=set_good(sg="")),
    Case(
        "another disk answers",
        GOOD_DISK + "the disk that answers there is another one now, /dev/sdc (ZL7777, 500.1 GB). "
        "Unplug it and plug it in again.",
        change=lambda machine: setattr(machine.disks[0], "said", replace(GOOD, serial="ZL7777")),
    ),
    Case(
        "window over the label",
        GOOD_DISK + "the window begins at LBA 7, where the label lies (LBA 0 to 7). Let the window begin at LBA 8 or later.",
        Name(window=Extent(7, 100)),
    ),
    Case(
        "window beyond the end",
        GOOD_DISK + "the window ends at LBA 976773168, and the disk at LBA 976773167. "
        "Give the window at most 976771120 blocks.",
        Name(window=Extent(2048, 976771121)),
    ),
    Case(
        "used",
        GOOD_DISK + "/dev/sdc1 is mounted on /srv. Unmount it (umount /srv), or name another disk.",
        change=used("/dev/sdc1 is mounted on /srv", "Unmount it (umount /srv), or name another disk."),
    ),
    Case(
        "claimed by another run",
        GOOD_DISK + "it is claimed by process 812 (hwvirt run desk.yaml). "
        "Find out who (fuser -v /dev/sdc), or name another disk.",
        change=lambda machine: setattr(machine.disks[0], "held_by", "it is claimed by process 812 (hwvirt run desk.yaml)"),
    ),
    Case(
        "held by somebody",
        GOOD_DISK + "somebody holds it exclusively. Find out who (fuser -v /dev/sdc), or name another disk.",
        change=lambda machine: setattr(machine.disks[0], "held_by", "somebody holds it exclusively"),
    ),
    Case(
        "armed for another rig",
        GOOD_DISK + "it is armed for rig cellar since 2026-01-31. Disarm it with the rig file of cellar: hwvirt disarm.",
        change=lambda machine: armed(machine, rig="cellar"),
    ),
    Case(
        "armed as the other disk",
        GOOD_DISK + "it is armed as disk second of that rig. Correct the rig file, or disarm it with the old one.",
        change=lambda machine: armed(machine, role="second"),
    ),
    Case(
        "copy of an armed disk",
        GOOD_DISK + "its label was made for another disk, serial ZL2002: this is a copy. " + OVERWRITE,
        change=lambda machine: armed(machine, disk=OTHER),
    ),
    Case("label damaged", GOOD_DISK + "its label is damaged (the CRC-32C is wrong). " + OVERWRITE, change=torn),
    Case(
        "label of a later version",
        GOOD_DISK + "another version of hwvirt wrote its label. " + OVERWRITE,
        change=of_version_2,
    ),
]
FOREIGN = [  # refused whether it is to be run or armed
    Case(
        "file system",
        GOOD_DISK + "there is something on it: ext4 file system, at byte 1080. "
        "If nothing on it is needed, run wipefs --all /dev/sdc; else name another disk.",
        change=signed("ext4", "filesystem", 1080),
    ),
    Case(
        "partition table",
        GOOD_DISK + "there is something on it: gpt partition table, at byte 512. "
        "If nothing on it is needed, run wipefs --all /dev/sdc; else name another disk.",
        change=signed("gpt", "table", 512),
    ),
    Case(
        "LVM member",
        GOOD_DISK + "there is something on it: LVM2_member (a member of an array or volume group), at byte 536. "
        "If nothing on it is needed, run wipefs --all /dev/sdc; else name another disk.",
        change=signed("LVM2_member", "raid", 536),
    ),
    Case(
        "encrypted",
        GOOD_DISK + "there is something on it: crypto_LUKS (encrypted), at byte 0. "
        "If nothing on it is needed, run wipefs --all /dev/sdc; else name another disk.",
        change=signed("crypto_LUKS", "crypto", 0),
    ),
    Case(
        "swap",
        GOOD_DISK + "there is something on it: swap, at byte 4086. "
        "If nothing on it is needed, run wipefs --all /dev/sdc; else name another disk.",
        change=signed("swap", "other", 4086),
    ),
    Case(
        "file system where the window shall be",
        GOOD_DISK + "there is something on it: xfs file system, at byte 1048576. "
        "If nothing on it is needed, run wipefs --all /dev/sdc; else name another disk.",
        change=signed("xfs", "filesystem", 2048 * 512),
    ),
    Case(
        "armed, then something outside the window",
        GOOD_DISK + "there is something on it: gpt partition table, at byte 500107861504. "
        "If nothing on it is needed, run wipefs --all /dev/sdc; else name another disk.",
        change=repartitioned,
    ),
]
NOT_ARMED = Case("not armed", GOOD_DISK + "it is not armed. Arm it: hwvirt arm, with the rig file.")


def by_claim(cases: list[Case]) -> list[object]:
    return [pytest.param(case, id=case.claim) for case in cases]


def refusal(case: Case, act: Callable[[Machine, Name], object]) -> None:
    machine = Machine()
    case.change(machine)
    before = machine.bytes()
    with pytest.raises(WrongDisk) as caught:
        act(machine, case.name)
    assert str(caught.value) == case.text
    assert caught.value.exit_code is ExitCode.REFUSED
    assert (machine.bytes(), machine.announced) == (before, [])
    assert [(disk.writes, disk.claims) for disk in machine.disks] == [(0, []), (0, [])]


@pytest.mark.parametrize("case", by_claim([*ALWAYS, *FOREIGN, NOT_ARMED]))
def test_run_is_refused(case: Case) -> None:
    def run(machine: Machine, name: Name) -> None:
        with admit(name, "desk", "first", machine):
            pytest.fail("admitted")

    refusal(case, run)


@pytest.mark.parametrize("case", by_claim([*ALWAYS, *FOREIGN]))
def test_arming_is_refused(case: Case) -> None:
    refusal(case, lambda machine, name: arm([Wanted("desk", "first", name)], DAY, probe=machine))


@pytest.mark.parametrize("case", by_claim(ALWAYS))
def test_disarming_is_refused(case: Case) -> None:
    refusal(case, lambda machine, name: disarm([Wanted("desk", "first", name)], probe=machine))
