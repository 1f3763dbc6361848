"""Runs inside a kernel of the lab with one scsi_debug disk: it is pulled while four threads read it, and comes back.

Prints one line of JSON: how the reads ended, how long the slowest took after the disk was pulled, the events.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hwvirt.disk.discovery.listing import list_identities
from hwvirt.disk.discovery.place import Place
from hwvirt.disk.discovery.removable import Presence, RemovableDisk
from hwvirt.disk.discovery.watch import DiskWatch
from hwvirt.disk.passthrough import SgDisk
from hwvirt.scsi.cdb import read_16
from hwvirt.scsi.command import Command
from hwvirt.scsi.sense import decode_sense
from hwvirt.trace import Event, Trace
from hwvirt.units import Deadline

THREADS = 4
READ = Command(read_16(0, 8), data_in_length=4096)


def read_until_it_fails(disk: RemovableDisk, running: threading.Barrier) -> tuple[str, float]:
    assert disk.execute(READ, Deadline.after(30)).good
    running.wait()
    while (completion := disk.execute(READ, Deadline.after(30))).good:
        pass
    return str(decode_sense(completion.sense)), time.monotonic()


def write(attribute: str, value: str) -> None:
    Path(attribute).write_text(value)


async def main() -> None:
    identity = list_identities()[0]
    disk = RemovableDisk(SgDisk(identity.sg), Place(identity.sg).occupied)
    trace = Trace("guest")
    events: asyncio.Queue[Event] = asyncio.Queue()
    trace.subscribe(events.put_nowait)
    told: list[str] = []
    watch = DiskWatch([disk], trace, lambda gone: told.append(gone.name))
    loop = asyncio.get_running_loop()
    loop.add_reader(watch.fileno(), watch.dispatch)
    running = threading.Barrier(THREADS + 1)
    with ThreadPoolExecutor(THREADS + 1) as pool:
        readers = [loop.run_in_executor(pool, read_until_it_fails, disk, running) for _ in range(THREADS)]
        await loop.run_in_executor(pool, running.wait)
        pulled = time.monotonic()
        await loop.run_in_executor(pool, write, f"/sys/bus/scsi/devices/{identity.address}/delete", "1")
        removed = await asyncio.wait_for(events.get(), 20)
        noticed_s = removed.at - time.time() + time.monotonic() - pulled
        ends = await asyncio.gather(*readers)
    started = time.monotonic()
    again = decode_sense(disk.execute(READ, Deadline.after(30)).sense)
    at_once_s = time.monotonic() - started
    host = identity.address.split(":")[0]
    write(f"/sys/class/scsi_host/host{host}/scan", "- - -")
    added = await asyncio.wait_for(events.get(), 20)
    loop.remove_reader(watch.fileno())
    answer = {
        "ends": [sense for sense, _ in ends],
        "slowest_s": max(at for _, at in ends) - pulled,
        "noticed_s": noticed_s,
        "again": str(again),
        "at_once_s": at_once_s,
        "events": [[event.name, event.fields] for event in (removed, added)],
        "told": told,
        "still": disk.look() is Presence.REMOVED,
    }
    disk.close()
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
