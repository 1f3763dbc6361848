"""Runs inside a kernel of the lab, with scsi_debug, and tries SgDisk on real nodes.

One question a line on standard input, "name node"; one JSON answer a line on standard output.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hwvirt.buffers import joined
from hwvirt.disk import sgutils
from hwvirt.disk.discovery.said import Said, ask
from hwvirt.disk.facts import describe_disk
from hwvirt.disk.passthrough import SgDisk
from hwvirt.disk.volume import DiskVolume
from hwvirt.errors import DiskError
from hwvirt.scsi.cdb import read_16, synchronize_cache_16, write_16
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.sense import CheckCondition, decode_sense
from hwvirt.scsi.volume import Access, Durability, Extent, Write
from hwvirt.scsi.vpd import decode_inquiry, decode_naa, decode_serial
from hwvirt.units import Deadline

DEBUG = Path("/sys/bus/pseudo/drivers/scsi_debug")
BLOCK = 512
WINDOW = Extent(1000, 60000)
BAD_LBA = 0x1234  # scsi_debug has its medium error there
BAD_MEDIUM, SLOW, RECOVERED, SHORT = 2, 4, 8, 0x100


@contextmanager
def faults(options: int, every_nth: int = 0) -> Iterator[None]:
    (DEBUG / "every_nth").write_text(str(every_nth))
    (DEBUG / "opts").write_text(str(options))
    try:
        yield
    finally:
        (DEBUG / "opts").write_text("0")
        (DEBUG / "every_nth").write_text("0")


def read(disk: SgDisk, lba: int, blocks: int, seconds: float = 10.0) -> Completion:
    return disk.execute(Command(read_16(lba, blocks), (), blocks * BLOCK), Deadline.after(seconds))


def write(disk: SgDisk, lba: int) -> Completion:
    return disk.execute(Command(write_16(lba, 1), (bytes(BLOCK),)), Deadline.after(10.0))


def flush(disk: SgDisk) -> Completion:
    return disk.execute(Command(synchronize_cache_16()), Deadline.after(10.0))


def sense(found: Completion | CheckCondition) -> list[int | None]:
    told = found.sense if isinstance(found, CheckCondition) else decode_sense(found.sense)
    return [told.key, told.asc, told.ascq, told.information]


def facts(disk: SgDisk, path: str) -> Any:
    """What we decode, and what libsgutils2 fetched."""
    ours = describe_disk(disk, Deadline.after(10.0))
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        who = decode_inquiry(sgutils.inquiry(fd))
        capacity = sgutils.read_capacity_16(fd)
        theirs: list[object] = [who.vendor, who.product, who.revision, decode_serial(sgutils.inquiry(fd, 0x80))]
        theirs += [decode_naa(sgutils.inquiry(fd, 0x83)), int.from_bytes(capacity[:8], "big") + 1]
        theirs += [int.from_bytes(capacity[8:12], "big"), bool(sgutils.mode_sense_10(fd, 8)[8 + 2] & 4)]
        small = sgutils.read_capacity_10(fd)  # the same from the commands of old disks
        assert (small[:4], small[4:]) == (capacity[4:8], capacity[8:12])
        assert sgutils.mode_sense_6(fd, 8)[4:24] == sgutils.mode_sense_10(fd, 8)[8:28]
    finally:
        os.close(fd)
    assert ask(path) == Said(ours.serial, ours.naa, ours.blocks, ours.block_bytes)
    we_see = [ours.vendor, ours.product, ours.revision, ours.serial, ours.naa]
    return [[*we_see, ours.blocks, ours.block_bytes, ours.volatile_cache], theirs, ours.max_transfer_blocks]


def pass_through_object(disk: SgDisk, path: str) -> Any:
    """Written and read through one pt object of the library, read again, beyond the end, short; told in its words."""
    data = bytes(range(256)) * 2
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        with sgutils.PtObject(fd) as pt:
            wrote = pt.execute(write_16(0, 1), data_out=data)
            found = [pt.execute(read_16(0, 1), data_in_length=BLOCK) for _ in range(2)]
            bad = pt.execute(read_16(1 << 40, 1), data_in_length=BLOCK)
            with faults(SHORT, every_nth=1):
                short = pt.execute(read_16(0, 8), data_in_length=8 * BLOCK)
            (DEBUG / "ndelay").write_text("300000000")
            slow = pt.execute(read_16(0, 1), data_in_length=BLOCK)
            (DEBUG / "ndelay").write_text("0")
            with faults(SLOW, every_nth=1):
                late = pt.execute(read_16(0, 1), data_in_length=BLOCK, timeout_s=1)
    finally:
        os.close(fd)
    text = sgutils.sense_text(bad.sense)
    return [
        [wrote.category.name, wrote.status, wrote.sense.hex(), wrote.os_error_text, wrote.transport_error_text],
        [end.data == data for end in found],
        [bad.category.name, bad.status, len(bad.data), "address out of range" in text],
        [short.category.name, short.residual > 0, len(short.data) + short.residual],
        [slow.category.name, 250 <= slow.duration_ms < 30_000, slow.duration_ns in (0, slow.duration_ms * 1_000_000)],
        [late.category.name, late.transport_error, late.transport_error_text],
    ]


def contents(disk: SgDisk, path: str) -> Any:
    """Scattered and neighbouring small writes, a write longer than the path carries, large pieces at odd addresses."""
    volume = DiskVolume(disk, WINDOW, BLOCK)
    small = [os.urandom(4096) for _ in range(64)]
    large = memoryview(os.urandom((5 << 20) + 77))[77:]
    pieces = [large[: (3 << 20) + 5], large[(3 << 20) + 5 :]]
    writes = [Write(number * 8 + number // 8, (data,)) for number, data in enumerate(small)] + [Write(20000, pieces)]

    async def story() -> list[bool]:
        wrote = await volume.write(writes, Durability.DURABLE)
        extents = [Extent(lba, sum(map(len, data)) // BLOCK) for lba, data in writes]
        found = await volume.read(extents)
        same = [
            not isinstance(got, CheckCondition) and bytes(joined(got)) == b"".join(data)
            for got, (_, data) in zip(found, writes, strict=True)
        ]
        zeroed = await volume.unmap([Extent(20000, 5000)])
        (hole,) = await volume.read([Extent(20000, 5001)])
        assert not isinstance(hole, CheckCondition)
        data = bytes(joined(hole))
        gone = data == bytes(5000 * BLOCK) + bytes(large[5000 * BLOCK : 5001 * BLOCK])
        return [wrote == [None] * len(writes), all(same), zeroed == [None], gone, await volume.flush() is None]

    try:
        return asyncio.run(story())
    finally:
        volume.close()


def many_threads(disk: SgDisk, path: str) -> Any:
    """More commands at once than a node takes; each lasts 50 ms, so that they do meet."""
    ends: list[bool] = []

    def reader(lba: int) -> None:
        ends.extend(read(disk, lba, 8).good for _ in range(3))

    (DEBUG / "ndelay").write_text("50000000")
    try:
        threads = [threading.Thread(target=reader, args=(number * 8,)) for number in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        (DEBUG / "ndelay").write_text("0")
    return [len(ends), all(ends)]


def medium_error(disk: SgDisk, path: str) -> Any:
    """As the disk tells it, and as a volume tells it to whoever asked for three extents in one batch."""
    volume = DiskVolume(disk, WINDOW, BLOCK)
    with faults(BAD_MEDIUM):
        direct = read(disk, BAD_LBA - 6, 16)
        lba = BAD_LBA - WINDOW.lba
        found = asyncio.run(volume.read([Extent(lba - 8, 8), Extent(lba, 1), Extent(lba + 10, 4)]))
    volume.close()
    told = [sense(item) if isinstance(item, CheckCondition) else "read" for item in found]
    return [int(direct.status), sense(direct), told, lba]


def reset(disk: SgDisk, path: str) -> Any:
    """Write, reset, read, flush, flush: the first flush must not say good."""
    steps = [flush(disk).good, write(disk, 7).good]
    status = os.spawnlp(os.P_WAIT, "sg_reset", "sg_reset", "--device", path)
    steps += [status == 0, read(disk, 7, 1).good]
    failed = flush(disk)
    return [*steps, failed.good, sense(failed)[:2], flush(disk).good]


def recovered(disk: SgDisk, path: str) -> Any:
    volume = DiskVolume(disk, WINDOW, BLOCK)
    with faults(RECOVERED, every_nth=1):
        direct = read(disk, 7, 1)
        (found,) = asyncio.run(volume.read([Extent(7, 1)]))
    volume.close()
    return [sense(direct)[0], not isinstance(found, CheckCondition)]


def short(disk: SgDisk, path: str) -> Any:
    volume = DiskVolume(disk, WINDOW, BLOCK)
    with faults(SHORT, every_nth=1):
        direct = read(disk, 7, 8)
        (found,) = asyncio.run(volume.read([Extent(7, 8)]))
    volume.close()
    assert isinstance(found, CheckCondition)
    return [direct.good, direct.residual, len(joined(direct.data)), sense(found)[:2]]


def late(disk: SgDisk, path: str) -> Any:
    with faults(SLOW, every_nth=1):
        try:
            read(disk, 7, 1, seconds=0.5)
        except DiskError as error:
            text = str(error)
        else:
            text = "it answered"
    return ["there was no answer in time" in text, read(disk, 7, 1).good]


def read_only(disk: SgDisk, path: str) -> Any:
    judge = SgDisk(path, access=Access.READ_ONLY)
    try:
        described = describe_disk(judge, Deadline.after(10.0)).blocks
        return [described > 0, read(judge, 7, 1).good, sense(write(judge, 7))[:2]]
    finally:
        judge.close()


def pulled(disk: SgDisk, path: str) -> Any:
    """Last: the disk does not come back."""
    Path("/sys/block/sda/device/delete").write_text("1")
    gone = []
    for command in (Command(read_16(7, 1), (), BLOCK), Command(write_16(7, 1), (bytes(BLOCK),))):
        try:
            disk.execute(command, Deadline.after(10.0))
        except DiskError as error:
            gone.append("the disk is gone" in str(error))
    return gone


QUESTIONS: dict[str, Callable[[SgDisk, str], Any]] = {
    question.__name__: question
    for question in (
        *(facts, pass_through_object, contents, many_threads, medium_error),
        *(reset, recovered, short, late, read_only, pulled),
    )
}


def main() -> None:
    for line in sys.stdin:
        name, path = line.split()
        disk = SgDisk(path)
        try:
            answer = QUESTIONS[name](disk, path)
        finally:
            disk.close()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
