"""What `hwvirt scan` prints can be pasted, piped and read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hwvirt.cli.disks import as_yaml, show, show_json
from hwvirt.disk.discovery.content import Content
from hwvirt.disk.discovery.found import FoundDisk
from hwvirt.disk.discovery.signatures import Signature
from hwvirt.disk.discovery.uses import Use
from hwvirt.rig.file import parse_rig
from hwvirt.rig.file.model import SgSpec
from hwvirt.scsi.volume import Extent
from tests.disk.discovery.test_label import LABEL
from tests.disk.guard.machine import GOOD, OTHER

FREE = FoundDisk(OTHER, (), Content())
ARMED = FoundDisk(GOOD, (), Content(LABEL))
MOUNTED = FoundDisk(GOOD, (Use("/dev/sdc1 is mounted on /srv", "Unmount it."),), Content())
REST = """
controllers: {a: {disk: first, luns: {0: {own: {size: 1MiB}}}}}
scenarios: [{name: nothing, steps: [{judge: all}]}]
"""


def test_yaml_is_a_rig_s_disks() -> None:
    text = as_yaml([ARMED, FREE])
    rig = parse_rig("rig: desk\n" + text + REST, Path("pasted.yaml"))
    spec = SgSpec("naa.5000c500aabbccdd", "ZL2001", 500107862016, 512, Extent(2048, 976769072))
    assert rig.disks == {"first": spec, "disk-2": replace(spec, wwn=OTHER.wwn, serial=OTHER.serial)}


def test_yaml_is_for_people_too() -> None:
    assert as_yaml([ARMED, MOUNTED]) == (
        "disks:\n"
        "  # /dev/sdc (ZL2001, 500.1 GB): ATA ST500DM002, armed for desk as first\n"
        "  first:\n"
        "    sg: {wwn: naa.5000c500aabbccdd, serial: ZL2001, size: 500107862016B, block: 512B, "
        "window: {lba: 2048, blocks: 976769072}}\n"
        "  # /dev/sdc (ZL2001, 500.1 GB): ATA ST500DM002, not armed; /dev/sdc1 is mounted on /srv\n"
    )


@pytest.mark.parametrize("serial", ["2000", "no", "1e5", "a b", "x, y: {z}", "#1", 'quote"d'])
def test_every_serial_survives_the_yaml(serial: str) -> None:
    odd = FoundDisk(replace(GOOD, serial=serial, wwn="t10.ATA     QEMU HARDDISK"), (), Content(LABEL))
    (spec,) = parse_rig("rig: desk\n" + as_yaml([odd]) + REST, Path("pasted.yaml")).disks.values()
    assert isinstance(spec, SgSpec)
    assert (spec.serial, spec.wwn) == (serial, "t10.ATA     QEMU HARDDISK")


def test_json_has_every_fact(capsys: pytest.CaptureFixture[str]) -> None:
    show_json([ARMED, replace(MOUNTED, content=Content(None, "", (Signature("ext4", "filesystem", 1080),)))])
    armed, mounted = json.loads(capsys.readouterr().out)
    assert armed["wwn"] == "naa.5000c500aabbccdd"
    assert (armed["armed"], armed["rig"], armed["role"], armed["reasons"]) == ("armed", "desk", "first", [])
    assert (armed["write_cache"], armed["physical_block_bytes"], armed["sg"]) == ("volatile", 4096, "/dev/sg2")
    assert mounted["signatures"] == [{"kind": "ext4", "usage": "filesystem", "offset_bytes": 1080}]
    assert mounted["reasons"] == ["/dev/sdc1 is mounted on /srv", "it carries: ext4 file system"]


def test_table_keeps_a_disk_on_one_line_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    show([ARMED, MOUNTED, replace(FREE, content=None, unreadable="cannot open /dev/sdd: Permission denied.")])
    _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["/dev/sdc", "/dev/sdc", "/dev/sdd"]
    assert rows[0].split()[2:] == [
        *("500.1", "GB", "512/4096", "ATA", "ST500DM002", "KC45", "ZL2001", "naa.5000c500aabbccdd", "volatile", "sata"),
        *("armed", "for", "desk", "as", "first"),
    ]
    assert rows[1].rstrip().endswith("not armed; /dev/sdc1 is mounted on /srv")
    assert rows[2].rstrip().endswith("cannot open /dev/sdd: Permission denied.")


def test_claim_of_a_long_command_line_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    reason = f"it is claimed by process 335 ({'/a/long/path/to/python' * 10} hwvirt up desk.yaml)"
    show([replace(ARMED, uses=(Use(reason, ""),))])
    _, *rows = capsys.readouterr().out.splitlines()
    assert [row.rstrip().endswith(reason) for row in rows] == [True]


def test_no_disk_is_told_in_every_form(capsys: pytest.CaptureFixture[str]) -> None:
    show([])
    assert capsys.readouterr().out.startswith("no SCSI disk here")
    assert as_yaml([]).startswith("# no SCSI disk here")
