"""A real SCSI disk of the guest's kernel answers as we say."""

import time
from collections.abc import Iterator

import pytest

from hwvirt.disk.faulty import FOR_EVER, Rule
from hwvirt.lab.attach import AttachedTcmu, attach_tcmu
from hwvirt.lab.kernel import Kernel, ProgramFailed
from hwvirt.lab.tcmu import Tcmu
from hwvirt.scsi.sense import Sense
from hwvirt.scsi.status import SenseKey, Status
from hwvirt.scsi.volume import Extent
from hwvirt.units import Deadline

pytestmark = pytest.mark.lab

MIB = 1 << 20
MEDIUM_ERROR = Sense(SenseKey.MEDIUM_ERROR, 0x11, 0)
BAD = Extent(1000, 8)
READ_10 = 0x28
WRITES = frozenset({0x0A, 0x2A, 0x8A})


def soon() -> Deadline:
    return Deadline.after(30)


@pytest.fixture(scope="module")
def attached(kernel: Kernel) -> Iterator[AttachedTcmu]:
    attached = attach_tcmu(kernel, Tcmu("bad", 16 * MIB), soon())
    yield attached
    attached.remove(soon())
    assert kernel.run(["lsscsi"], soon()) == ""


@pytest.fixture
def disk(attached: AttachedTcmu) -> Iterator[AttachedTcmu]:
    yield attached
    attached.set_rules([], soon())


def read_10(kernel: Kernel, disk: AttachedTcmu, lba: int, blocks: int = 1, option: str = "") -> str:
    """What sg_raw says about a READ(10). Raises ProgramFailed with it."""
    cdb = bytes([READ_10, 0, *lba.to_bytes(4, "big"), 0, *blocks.to_bytes(2, "big"), 0]).hex(" ")
    command = f"sg_raw {option} --request={512 * blocks} --outfile=/dev/null {disk.disks[0].sg} {cdb} 2>&1"
    return kernel.run(["sh", "-c", command], soon())


def test_the_disk_is_what_our_device_server_says(kernel: Kernel, disk: AttachedTcmu) -> None:
    (found,) = disk.disks
    assert (found.vendor, found.model, found.size_bytes, found.block_bytes) == ("HWVIRT", "TCMU DISK", 16 * MIB, 512)
    assert found.wwn == f"naa.6001405{found.serial}"
    assert "Number of logical blocks=32768\n" in kernel.run(["sg_readcap", found.sg], soon())


def test_data_comes_back_and_a_file_system_holds(kernel: Kernel, disk: AttachedTcmu) -> None:
    block = disk.disks[0].block
    program = (
        f"head -c 4194304 /dev/urandom >/tmp/data; dd if=/tmp/data of={block} bs=1M oflag=direct; sync;"
        f"dd if={block} bs=1M count=4 iflag=direct | cmp - /tmp/data; mkfs.ext4 -q -F {block}; e2fsck -fn {block}"
    )
    kernel.run(["sh", "-ec", program], soon())


def test_a_range_of_blocks_is_a_medium_error_at_its_first_block(kernel: Kernel, disk: AttachedTcmu) -> None:
    disk.set_rules([Rule(MEDIUM_ERROR, extent=BAD, times=FOR_EVER)], soon())
    with pytest.raises(ProgramFailed) as caught:
        read_10(kernel, disk, 998, 4)
    assert "Medium Error" in caught.value.output
    assert "Unrecovered read error" in caught.value.output
    assert "Info fld=0x3e8 [1000]" in caught.value.output
    read_10(kernel, disk, 992, 8)
    read_10(kernel, disk, 1008)
    sg_dd = f"sg_dd if={disk.disks[0].sg} of=/dev/null bs=512 skip=990 count=32 bpt=1 2>&1"
    with pytest.raises(ProgramFailed, match="status 3") as caught:
        kernel.run(["sh", "-c", sg_dd], soon())
    assert "sg_read failed, at or after lba=1000 [0x3e8]" in caught.value.output
    kernel.run(["sh", "-c", f"! dd if={disk.disks[0].block} of=/dev/null bs=4k skip=125 count=1 iflag=direct"], soon())
    assert "critical medium error, dev sda, sector 1000 " in kernel.run(["dmesg"], soon())


def test_a_rule_ends_after_its_count_and_tells_writes_from_reads(kernel: Kernel, disk: AttachedTcmu) -> None:
    disk.set_rules([Rule(MEDIUM_ERROR, opcodes=WRITES), Rule(MEDIUM_ERROR, opcodes=frozenset({READ_10}), nth=2)], soon())
    read_10(kernel, disk, 0)
    with pytest.raises(ProgramFailed) as caught:
        read_10(kernel, disk, 0)
    assert "Medium Error" in caught.value.output
    read_10(kernel, disk, 0)
    write = f"sg_dd if=/dev/zero of={disk.disks[0].sg} bs=512 count=1"
    with pytest.raises(ProgramFailed):
        kernel.run(["sh", "-c", write], soon())
    kernel.run(["sh", "-c", write], soon())


def test_another_status_comes_through(kernel: Kernel, disk: AttachedTcmu) -> None:
    disk.set_rules([Rule(Status.RESERVATION_CONFLICT, opcodes=frozenset({READ_10}))], soon())
    with pytest.raises(ProgramFailed) as caught:
        read_10(kernel, disk, 0)
    assert "SCSI Status: Reservation Conflict" in caught.value.output


def test_a_delay_delays_its_command_only(kernel: Kernel, disk: AttachedTcmu) -> None:
    disk.set_rules([Rule(None, opcodes=frozenset({READ_10}), delay_s=2.0)], soon())
    slow = kernel.start(["sg_raw", "--request=512", disk.disks[0].sg, "28", *["00"] * 7, "01", "00"])
    started = time.monotonic()
    slow.pid(soon())
    kernel.run(["sg_turs", disk.disks[0].sg], soon())
    assert not slow.ended
    assert slow.wait(soon()) == 0
    assert time.monotonic() - started >= 1.9


def test_silence_lasts_until_the_initiator_gives_up(kernel: Kernel, disk: AttachedTcmu) -> None:
    disk.set_rules([Rule("silent", opcodes=frozenset({READ_10}))], soon())
    started = time.monotonic()
    with pytest.raises(ProgramFailed) as caught:
        read_10(kernel, disk, 0, option="--timeout=1")
    assert "DID_TIME_OUT" in caught.value.output
    assert time.monotonic() - started < 30  # without the option it waits for a minute
    read_10(kernel, disk, 0)


def test_a_disk_that_is_silent_or_slow_can_be_removed(kernel: Kernel) -> None:
    reads = frozenset({READ_10})
    attached = attach_tcmu(kernel, Tcmu("mute", MIB), soon())
    attached.set_rules([Rule(None, reads, delay_s=3600.0), Rule("silent", reads, nth=2, times=FOR_EVER)], soon())
    read = ["sg_raw", "--request=512", attached.disks[0].sg, "28", *["00"] * 7, "01", "00"]
    waiting = [kernel.start(read) for _ in range(2)]
    deadline = soon()
    while "/dev/shm/mute: silent\n" not in kernel.console.read_text():
        assert not deadline.expired
        time.sleep(0.01)
    started = time.monotonic()
    attached.remove(soon())
    assert time.monotonic() - started < 30  # the initiator would wait for a minute
    assert sorted(job.wait(soon()) == 0 for job in waiting) == [False, True]
