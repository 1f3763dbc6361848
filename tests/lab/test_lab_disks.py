"""Disks made in a guest are real SCSI disks there, by the word of other people's tools, and go again."""

import sys
from pathlib import Path

import pytest

from hwvirt.lab.attach import attach
from hwvirt.lab.disks import Cache, ScsiDebug, TcmLoop
from hwvirt.lab.kernel import SHARE_IN_GUEST, Kernel
from hwvirt.lab.process import LabError
from hwvirt.units import Deadline

pytestmark = pytest.mark.lab

MIB = 1 << 20


def soon() -> Deadline:
    return Deadline.after(30)


def test_two_scsi_debug_disks_have_their_own_data_and_answer_sg_utils(kernel: Kernel) -> None:
    attached = attach(kernel, [ScsiDebug(16 * MIB, 4096), ScsiDebug(16 * MIB, 4096)], soon())
    first, second = attached.disks
    assert (first.vendor, first.model, first.size_bytes, first.block_bytes) == ("Linux", "scsi_debug", 16 * MIB, 4096)
    assert first.wwn != second.wwn
    inquiry = kernel.run(["sg_inq", first.sg], soon())
    assert f"Unit serial number: {first.serial}\n" in inquiry
    assert f"0x{first.wwn.removeprefix('naa.')}\n" in kernel.run(["sg_vpd", "--page=di", first.sg], soon())
    capacity = kernel.run(["sg_readcap", first.sg], soon())
    assert "Number of logical blocks=4096\n" in capacity
    assert "Logical block length=4096 bytes\n" in capacity
    kernel.run(["sh", "-c", f"yes | dd of={first.block} bs=4k count=1 oflag=direct"], soon())
    assert kernel.run(["sh", "-c", f"head -c 4 {second.block} | tr '\\0' z"], soon()) == "zzzz\n"
    attached.remove(soon())
    assert kernel.run(["lsscsi"], soon()) == ""


def test_scsi_debug_parameters_reach_the_module_and_may_not_differ_between_disks(kernel: Kernel) -> None:
    slow = ScsiDebug(8 * MIB, parameters={"ndelay": "100000", "inq_vendor": "ACME"})
    attached = attach(kernel, [slow], soon())
    assert attached.disks[0].vendor == "ACME"
    with pytest.raises(LabError, match=r"^kernel a cannot make ScsiDebug"):
        attach(kernel, [ScsiDebug(8 * MIB)], soon())
    assert "its disks share parameters" in kernel.console.read_text()
    attached.remove(soon())


def test_disks_of_long_names_that_begin_alike_are_two(kernel: Kernel) -> None:
    names = [f"{'a-disk-whose-name-is-as-long-as-a-rig-lets-it-be':.47}{number}" for number in (1, 2)]
    for name in names:
        (kernel.share / name).write_bytes(name.encode().ljust(MIB, b"\0"))
    attached = attach(kernel, [TcmLoop(name, str(SHARE_IN_GUEST / name), MIB) for name in names], soon())
    begin = [kernel.run(["head", "-c", "48", disk.block], soon()) for disk in attached.disks]
    assert begin == [f"{name}\n" for name in names]
    first, second = attached.disks
    assert (first.serial != second.serial, first.wwn != second.wwn) == (True, True)
    assert [disk.wwn for disk in attached.disks] == [f"naa.6001405{disk.serial}" for disk in attached.disks]
    attached.remove(soon())


def test_tcm_loop_disk_shows_a_file_of_the_share(kernel: Kernel) -> None:
    image = kernel.share / "image"
    image.write_bytes(b"from the launcher".ljust(16 * MIB, b"\0"))
    attached = attach(kernel, [TcmLoop("second", str(SHARE_IN_GUEST / "image"), 16 * MIB, 4096)], soon())
    (disk,) = attached.disks
    assert (disk.vendor, disk.size_bytes, disk.block_bytes) == ("LIO-ORG", 16 * MIB, 4096)
    assert bytes.fromhex(disk.serial[:12]) == b"second"
    assert disk.wwn == f"naa.6001405{disk.serial}"
    assert kernel.run(["sh", "-c", f"head -c 17 {disk.block}"], soon()) == "from the launcher\n"
    last_block = kernel.run(["sg_dd", f"if={disk.sg}", "of=/mnt/last", "bs=4096", "skip=4095", "count=1"], soon())
    assert last_block == ""
    assert (kernel.share / "last").read_bytes() == bytes(4096)
    attached.remove(soon())
    assert kernel.run(["lsscsi"], soon()) == ""


def test_volatile_cache_keeps_what_was_flushed_over_a_power_cut_and_loses_the_rest(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(8 * MIB))
    with Kernel("a", tmp_path, disks=[image]) as kernel:
        (disk,) = attach(kernel, [TcmLoop("second", "/dev/ubda", 8 * MIB, cache=Cache.VOLATILE)], soon()).disks
        cache = f"cat /sys/block/{Path(disk.block).name}/device/scsi_disk/*/cache_type"
        assert kernel.run(["sh", "-c", cache], soon()) == "write back\n"
        program = (
            f"for letter in a b c; do yes $letter | tr -d '\\n' | head -c 65536 >/tmp/$letter; done\n"
            f"sg_dd if=/tmp/a of={disk.sg} bs=512 count=128 seek=0\n"
            f"sg_sync {disk.sg}\n"
            f"sg_dd if=/tmp/b of={disk.sg} bs=512 count=128 seek=128\n"
            f"sg_dd if=/tmp/c of={disk.sg} bs=512 count=128 seek=256 oflag=fua\n"
        )
        kernel.run(["sh", "-ec", program], soon())
        kernel.power_cut()
    data = image.read_bytes()
    assert data[:65536] == b"a" * 65536
    assert data.count(b"b") == 0
    assert data[2 * 65536 : 3 * 65536] == b"c" * 65536
    assert not any(data[3 * 65536 :])


def test_a_file_cannot_have_a_volatile_cache(kernel: Kernel) -> None:
    (kernel.share / "file").write_bytes(bytes(MIB))
    with pytest.raises(LabError, match="cannot make TcmLoop"):
        attach(kernel, [TcmLoop("x", str(SHARE_IN_GUEST / "file"), MIB, cache=Cache.VOLATILE)], soon())
    assert "/mnt/file is no block device" in kernel.console.read_text()


def test_disks_go_when_their_program_is_told_to_end(kernel: Kernel) -> None:
    text = '{"kind": "scsi-debug", "size_bytes": 8388608}'
    job = kernel.start([sys.executable, "-m", "hwvirt.lab.disks", text])
    assert job.line(soon()) is not None
    kernel.signal(job, "TERM")
    assert job.wait(soon()) == 0
    assert kernel.run(["lsscsi"], soon()) == ""
