"""A disk that may be written is claimed for as long as it is needed; arming is all or nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from hwvirt.disk.discovery.identity import DiskIdentity, WriteCache
from hwvirt.disk.discovery.label import decode_label, encode_label, make_label
from hwvirt.disk.discovery.said import Said
from hwvirt.disk.discovery.signatures import Signature
from hwvirt.disk.discovery.uses import Use
from hwvirt.disk.guard.admit import admit
from hwvirt.disk.guard.arm import Effect, arm, disarm
from hwvirt.disk.guard.linux import as_said
from hwvirt.disk.guard.wanted import Wanted, WrongDisk
from hwvirt.scsi.volume import Access, Extent
from tests.disk.guard.machine import GOOD, OTHER, Machine, Name
from tests.disk.guard.test_guard_refusals import DAY, GOOD_DISK, armed

FIRST = Wanted("desk", "first", Name())
SECOND = Wanted("desk", "second", Name(OTHER.wwn, OTHER.serial))


def test_armed_disk_is_admitted_and_claimed_until_the_end() -> None:
    machine = Machine()
    armed(machine)
    before = machine.bytes()
    with admit(Name(), "desk", "first", machine) as admitted:
        assert (admitted.sg, admitted.block, admitted.window) == ("/dev/sg2", "/dev/sdc", Extent(2048, 1 << 20))
        assert (admitted.label.rig, admitted.label.role) == ("desk", "first")
        assert machine.disks[0].claims == [Access.READ_ONLY]
        admitted.recheck()
    assert machine.disks[0].claims == []
    assert machine.bytes() == before


@pytest.mark.parametrize(
    "name",
    [Name(serial=None), Name(wwn=None), Name(wwn="naa.5000C500AABBCCDD"), Name(window=Extent(8, 976773160))],
    ids=["by wwn", "by serial", "in capitals", "all but the label"],
)
def test_disk_may_be_named_so(name: Name) -> None:
    machine = Machine()
    armed(machine)
    with admit(name, "desk", "first", machine) as admitted:
        assert admitted.identity == GOOD


def test_same_serial_of_another_vendor_does_not_matter_where_the_wwn_decides() -> None:
    machine = Machine(GOOD, replace(OTHER, serial=GOOD.serial))
    armed(machine)
    with admit(Name(), "desk", "first", machine) as admitted:
        assert admitted.identity == GOOD


def test_what_lies_in_the_window_is_the_rig_s_own() -> None:
    machine = Machine()
    armed(machine)
    machine.disks[0].signatures.append(Signature("ext4", "filesystem", 2048 * 512 + 1080))
    with admit(Name(), "desk", "first", machine) as admitted:
        assert admitted.label.rig == "desk"


def test_claim_is_given_back_when_the_run_fails() -> None:
    machine = Machine()
    armed(machine)
    with pytest.raises(KeyError), admit(Name(), "desk", "first", machine):
        raise KeyError
    assert machine.disks[0].claims == []


def test_recheck_notices_another_disk() -> None:
    machine = Machine()
    armed(machine)
    with admit(Name(), "desk", "first", machine) as admitted:
        machine.disks[0].said = replace(GOOD, wwn="naa.1")
        with pytest.raises(WrongDisk) as caught:
            admitted.recheck()
    assert str(caught.value) == (
        f"{GOOD_DISK}the disk that answers there is another one now, /dev/sdc (ZL2001, 500.1 GB). "
        "Unplug it and plug it in again."
    )


def test_recheck_notices_that_the_disk_has_moved() -> None:
    machine = Machine()
    armed(machine)
    with admit(Name(), "desk", "first", machine) as admitted:
        machine.disks[0].identity = replace(GOOD, block="/dev/sde", sg="/dev/sg9")
        with pytest.raises(WrongDisk) as caught:
            admitted.recheck()
    assert str(caught.value) == f"{GOOD_DISK}the rig's disk is now /dev/sde. Run it again."


def test_recheck_lets_a_cache_be_switched() -> None:
    machine = Machine()
    armed(machine)
    with admit(Name(), "desk", "first", machine) as admitted:
        machine.disks[0].identity = replace(GOOD, write_cache=WriteCache.NONE)
        admitted.recheck()


def test_recheck_notices_another_label() -> None:
    machine = Machine()
    armed(machine)
    with admit(Name(), "desk", "first", machine) as admitted:
        machine.disks[0].start[:] = bytes(4096)
        with pytest.raises(WrongDisk, match="it is not armed"):
            admitted.recheck()


def test_recheck_notices_that_the_disk_was_armed_anew() -> None:
    machine = Machine()
    armed(machine)
    with admit(Name(), "desk", "first", machine) as admitted:
        machine.disks[0].start[:] = encode_label(make_label("desk", "first", GOOD, DAY + timedelta(days=1)))
        with pytest.raises(WrongDisk) as caught:
            admitted.recheck()
    assert str(caught.value) == f"{GOOD_DISK}its label has changed since the run began. Run it again."


def test_one_disk_is_not_admitted_twice() -> None:
    machine = Machine()
    armed(machine)
    with admit(Name(), "desk", "first", machine):
        twice = admit(Name(), "desk", "second", machine)
        with pytest.raises(WrongDisk, match="claimed by process 1"):
            twice.__enter__()


def test_arming_writes_one_label_for_each_disk_and_tells_udev() -> None:
    machine = Machine()
    assert arm([FIRST, SECOND], DAY, probe=machine) == [GOOD, OTHER]
    labels = [decode_label(start) for start in machine.bytes()]
    assert [(label.rig, label.role, label.serial, label.armed_at) for label in labels if label] == [
        ("desk", "first", "ZL2001", DAY),
        ("desk", "second", "ZL2002", DAY),
    ]
    assert machine.announced == ["/dev/sdc", "/dev/sdd"]
    for wanted in (FIRST, SECOND):
        with admit(wanted.name, "desk", wanted.role, machine):
            pass


def test_arming_again_renews_the_date() -> None:
    machine = Machine()
    arm([FIRST], DAY, probe=machine)
    arm([FIRST], DAY + timedelta(days=1), probe=machine)
    label = decode_label(machine.bytes()[0])
    assert label is not None
    assert label.armed_at == DAY + timedelta(days=1)


def test_one_refusal_leaves_every_disk_as_it_was() -> None:
    machine = Machine()
    machine.disks[1].uses.append(Use("/dev/sdd is swap space", "Switch it off."))
    with pytest.raises(WrongDisk):
        arm([FIRST, SECOND], DAY, probe=machine)
    machine.disks[1].uses.clear()
    machine.disks[1].signatures.append(Signature("xfs", "filesystem", 0))
    with pytest.raises(WrongDisk):
        arm([FIRST, SECOND], DAY, probe=machine)
    assert machine.bytes() == [bytes(4096)] * 2
    assert (machine.announced, [disk.claims for disk in machine.disks]) == ([], [[], []])


def test_disarming_wipes_our_labels_and_lets_blank_disks_be() -> None:
    machine = Machine()
    arm([FIRST], DAY, probe=machine)
    assert disarm([FIRST, SECOND], probe=machine) == [GOOD]
    assert machine.bytes() == [bytes(4096)] * 2
    assert [disk.writes for disk in machine.disks] == [2, 0]


def test_disarming_keeps_what_a_file_system_has_put_over_the_label() -> None:
    machine = Machine()
    machine.disks[0].start[:4] = b"XFSB"
    machine.disks[0].signatures.append(Signature("xfs", "filesystem", 0))
    assert disarm([FIRST], probe=machine) == []
    assert machine.disks[0].writes == 0


@pytest.mark.parametrize("start", ["blank", "armed"])
def test_dry_runs_ask_everything_and_write_nothing(start: str) -> None:
    machine = Machine()
    if start == "armed":
        armed(machine)
    before = machine.bytes()
    assert arm([FIRST], DAY + timedelta(days=9), Effect.DRY_RUN, machine) == [GOOD]
    assert disarm([FIRST], Effect.DRY_RUN, machine) == ([GOOD] if start == "armed" else [])
    assert (machine.bytes(), machine.disks[0].writes, machine.announced) == (before, 0, [])
    assert {*machine.disks[0].claimed_for} == {Access.READ_ONLY}


SAID = Said(GOOD.serial, 0x5000C500AABBCCDD, GOOD.size_bytes // 512, 512)


def test_disk_that_says_what_the_kernel_noted_is_the_same() -> None:
    assert as_said(GOOD, SAID) == GOOD
    assert as_said(replace(GOOD, wwn="naa.5000C500AABBCCDD"), SAID).wwn == "naa.5000C500AABBCCDD"
    for other_name in ("", "eui.0025385971b0003f", "t10.ATA     QEMU"):
        assert as_said(replace(GOOD, wwn=other_name), SAID).wwn == other_name


@pytest.mark.parametrize(
    ("said", "identity"),
    [
        (SAID._replace(serial="ZL7777"), replace(GOOD, serial="ZL7777")),
        (SAID._replace(naa=0x5000C500FFFFFFFF), replace(GOOD, wwn="naa.5000c500ffffffff")),
        (SAID._replace(naa=None), replace(GOOD, wwn="")),
        (SAID._replace(blocks=1000), replace(GOOD, size_bytes=512000)),
        (SAID._replace(blocks=GOOD.size_bytes // 4096, block_bytes=4096), replace(GOOD, block_bytes=4096)),
    ],
)
def test_disk_that_says_something_else_is_another(said: Said, identity: DiskIdentity) -> None:
    assert as_said(GOOD, said) == identity != GOOD
