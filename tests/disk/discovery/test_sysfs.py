"""A SCSI device's folder of sysfs becomes an identity, whatever is missing there."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwvirt.disk.discovery.content import Content
from hwvirt.disk.discovery.found import Armed, FoundDisk, discover, suggested_window
from hwvirt.disk.discovery.identity import DiskIdentity, WriteCache, people_size
from hwvirt.disk.discovery.signatures import Signature
from hwvirt.disk.discovery.sysfs import read_identity
from hwvirt.disk.discovery.uses import Use
from hwvirt.scsi.volume import Extent
from tests.disk.discovery.test_label import LABEL
from tests.disk.guard.machine import GOOD

FILES = {
    "type": "0\n",
    "vendor": "ATA     \n",
    "model": "ST500DM002-1BD14\n",
    "rev": "KC45\n",
    "wwid": "naa.5000c500aabbccdd\n",
    "block/sdc/size": "976773168\n",
    "block/sdc/queue/logical_block_size": "512\n",
    "block/sdc/queue/physical_block_size": "4096\n",
    "block/sdc/queue/write_cache": "write back\n",
    "scsi_generic/sg2/dev": "21:2\n",
}


def device(folder: Path, *without: str, path: str = "pci0000:00/ata3/host2/target2:0:0/2:0:0:0", **files: str) -> Path:
    found = folder / path
    for name, text in (FILES | files).items():
        if not any(name.startswith(left_out) for left_out in without):
            (found / name).parent.mkdir(parents=True, exist_ok=True)
            (found / name).write_text(text)
    if "vpd_pg80" not in without:
        (found / "vpd_pg80").write_bytes(b"\x00\x80\x00\x08  ZL2001")
    return found


def test_everything_is_read(tmp_path: Path) -> None:
    assert read_identity(device(tmp_path)) == DiskIdentity(
        wwn="naa.5000c500aabbccdd",
        serial="ZL2001",
        vendor="ATA",
        model="ST500DM002-1BD14",
        firmware="KC45",
        size_bytes=500107862016,
        block_bytes=512,
        physical_block_bytes=4096,
        write_cache=WriteCache.VOLATILE,
        transport="sata",
        address="2:0:0:0",
        sg="/dev/sg2",
        block="/dev/sdc",
    )


def test_what_is_missing_is_empty(tmp_path: Path) -> None:
    found = read_identity(device(tmp_path, "vpd_pg80", "wwid", "block", "scsi_generic", path="somewhere/2:0:0:0"))
    assert found is not None
    assert (found.wwn, found.serial, found.block, found.sg, found.transport) == ("", "", "", "", "")
    assert (found.size_bytes, found.block_bytes, found.write_cache) == (0, 0, WriteCache.UNKNOWN)
    assert str(found) == "SCSI device 2:0:0:0 (no serial, 0 B)"


@pytest.mark.parametrize(("text", "cache"), [("write through\n", WriteCache.NONE), ("none\n", WriteCache.UNKNOWN)])
def test_write_cache(text: str, cache: WriteCache, tmp_path: Path) -> None:
    found = read_identity(device(tmp_path, **{"block/sdc/queue/write_cache": text}))
    assert found is not None
    assert found.write_cache is cache


def test_broken_serial_page_is_no_serial(tmp_path: Path) -> None:
    folder = device(tmp_path)
    (folder / "vpd_pg80").write_bytes(b"\x00\x83\x00\x00")
    found = read_identity(folder)
    assert found is not None
    assert found.serial == ""


@pytest.mark.parametrize("without", ["", "type"])
def test_what_is_no_disk_is_left_out(without: str, tmp_path: Path) -> None:
    assert read_identity(device(tmp_path, without or "none", type="5\n")) is None


@pytest.mark.parametrize(
    ("path", "transport"),
    [
        ("pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host6/target6:0:0", "usb"),
        ("platform/host3/session1/target3:0:0", "iscsi"),
        ("pci0000:00/host7/rport-7:0-3/target7:0:0", "fc"),
        ("pci0000:00/host0/port-0:0/end_device-0:0/target0:0:0", "sas"),
        ("pci0000:00/0000:00:17.0/ata3/host2/target2:0:0", "sata"),
        ("pci0000:00/virtio3/host1/target1:0:0", "virtio"),
        ("pseudo_0/adapter0/host0/target0:0:0", "virtual"),
        ("tcm_loop_0/tcm_loop_adapter_0/host2/target2:0:1", "virtual"),
        ("pci0000:00/host0/target0:0:0", ""),
    ],
)
def test_transport(path: str, transport: str, tmp_path: Path) -> None:
    found = read_identity(device(tmp_path, path=f"{path}/2:0:0:0"))
    assert found is not None
    assert found.transport == transport


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (16 << 20, "16.8 MB"), (500107862016, "500.1 GB"), (4000787030016, "4.0 TB")],
)
def test_sizes_are_as_on_the_sticker(size: int, text: str) -> None:
    assert people_size(size) == text


def test_suggested_window_leaves_both_ends_alone() -> None:
    assert suggested_window(GOOD) == Extent(2048, 976773168 - 4096)


EXT4 = Signature("ext4", "filesystem", 1080)


@pytest.mark.parametrize(
    ("found", "armed", "reasons"),
    [
        (FoundDisk(GOOD, (), Content()), Armed.NOT_ARMED, ()),
        (FoundDisk(GOOD, (), Content(LABEL)), Armed.ARMED, ()),
        (FoundDisk(GOOD, (), Content(LABEL, "", (EXT4,))), Armed.ARMED, ()),
        (FoundDisk(GOOD, (), Content(None, "torn")), Armed.BAD_LABEL, ()),
        (FoundDisk(GOOD, (), Content(None, "", (EXT4,))), Armed.NOT_ARMED, ("it carries: ext4 file system",)),
        (FoundDisk(GOOD, (Use("it is swap space", "No."),), Content()), Armed.NOT_ARMED, ("it is swap space",)),
        (FoundDisk(GOOD, (), None, "cannot open it"), Armed.UNKNOWN, ("cannot open it",)),
    ],
)
def test_state_and_reasons(found: FoundDisk, armed: Armed, reasons: tuple[str, ...]) -> None:
    assert (found.armed, found.reasons) == (armed, reasons)


def test_this_machine_s_disks_are_listed_without_harm() -> None:
    assert all(found.identity.address for found in discover())
