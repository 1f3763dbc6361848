"""How fast SG_IO is through SgDisk, beside sg_dd and fio's sg engine: the same commands on one /dev/sgN of a lab kernel.

The disk is scsi_debug without delay, so what is measured is the way to it and back. Everybody has one command under way, one
after the other through the disk; sg_dd and fio are in C. A user-mode kernel pays some 65 us for each system call: numbers
from here say nothing about a real machine, ratios do.

    .venv/bin/python tools/sg_speed.py [--seconds 2] [--rounds 3]
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from hwvirt.disk.passthrough import SgDisk
from hwvirt.lab.attach import attach
from hwvirt.lab.disks import ScsiDebug
from hwvirt.lab.kernel import Kernel
from hwvirt.scsi.cdb import read_16, write_16
from hwvirt.scsi.command import Command
from hwvirt.units import Deadline

SIZE_BYTES, BLOCK_BYTES = 64 << 20, 512
CLOCK_EVERY = 16
"""Commands between two looks at the clock, which is a system call there."""

_TOOK = re.compile(r"time to transfer data(?: was|:) ([0-9.]+) secs")


@dataclass(frozen=True)
class Job:
    """One kind of command."""

    name: str
    verb: str
    transfer_bytes: int

    @property
    def blocks(self) -> int:
        return self.transfer_bytes // BLOCK_BYTES


JOBS = (
    Job("4 KiB reads", "read", 4 << 10),
    Job("4 KiB writes", "write", 4 << 10),
    Job("1 MiB reads", "read", 1 << 20),
    Job("1 MiB writes", "write", 1 << 20),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--inside", metavar="NODE", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        measure(arguments.inside, arguments.seconds, arguments.rounds)
        return
    with tempfile.TemporaryDirectory(prefix="hwvirt-sg-") as folder, Kernel("a", Path(folder)) as kernel:
        (disk,) = attach(kernel, [ScsiDebug(SIZE_BYTES, BLOCK_BYTES)], Deadline.after(60)).disks
        command = [sys.executable, str(Path(__file__).absolute()), "--inside", disk.sg]
        command += ["--seconds", str(arguments.seconds), "--rounds", str(arguments.rounds)]
        job = kernel.start(command, on_line=lambda line: print(line, flush=True))
        if status := job.wait(Deadline.after(60 + 20 * len(JOBS) * arguments.rounds * (arguments.seconds + 2))):
            raise SystemExit(f"measuring ended with {status}:\n{kernel.console.read_text()[-2000:]}")


def measure(node: str, seconds: float, rounds: int) -> None:
    """In the guest: prints the table."""
    contenders = {"SgDisk": sg_disk, "sg_dd": sg_dd, "fio sg": fio}
    print(f"commands a second: median (least to most) of {rounds} rounds; ratio: SgDisk to the other, median of rounds")
    print(f"{'':14}" + "".join(f"{name:>26}" for name in contenders) + f"{'to sg_dd':>10}{'to fio':>8}")
    for job in JOBS:
        found = [{name: run(node, job, seconds) for name, run in contenders.items()} for _ in range(rounds)]
        cells = ""
        for name in contenders:
            rates = [one[name] for one in found]
            spread = f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
            cells += f"{spread:>26}"
        to_dd, to_fio = (statistics.median(one["SgDisk"] / one[name] for one in found) for name in ("sg_dd", "fio sg"))
        print(f"{job.name:14}{cells}{to_dd:10.2f}{to_fio:8.2f}", flush=True)


def sg_disk(node: str, job: Job, seconds: float) -> float:
    """Commands a second through SgDisk."""
    disk, data = SgDisk(node), bytes(job.transfer_bytes)
    places = itertools.cycle(range(0, SIZE_BYTES // BLOCK_BYTES, job.blocks))
    deadline = Deadline.after(seconds + 60)
    done, start = 0, time.perf_counter()
    try:
        while (took_s := time.perf_counter() - start) < seconds:
            for lba in itertools.islice(places, CLOCK_EVERY):
                if job.verb == "read":
                    command = Command(read_16(lba, job.blocks), (), job.transfer_bytes)
                else:
                    command = Command(write_16(lba, job.blocks), (data,))
                if not disk.execute(command, deadline).good:
                    raise SystemExit(f"SgDisk: {job.name} failed at LBA {lba}")
            done += CLOCK_EVERY
        return done / took_s
    finally:
        disk.close()


def sg_dd(node: str, job: Job, seconds: float) -> float:
    """Commands a second by sg_dd, over the whole disk as often as time allows."""
    way = [f"if={node}", "of=."] if job.verb == "read" else ["if=/dev/zero", f"of={node}"]
    command = ["sg_dd", *way, f"bs={BLOCK_BYTES}", f"bpt={job.blocks}", f"count={SIZE_BYTES // BLOCK_BYTES}", "time=1"]
    took_s = passes = 0.0
    while took_s < seconds:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = _TOOK.search(done.stderr)
        if found is None:
            raise SystemExit(f"sg_dd did not tell its time: {done.stderr}")
        took_s, passes = took_s + float(found[1]), passes + 1
    return passes * SIZE_BYTES / job.transfer_bytes / took_s


def fio(node: str, job: Job, seconds: float) -> float:
    """Commands a second by fio's sg engine."""
    command = [
        *("fio", "--name=speed", "--ioengine=sg", f"--filename={node}", f"--rw={job.verb}", f"--bs={job.transfer_bytes}"),
        *(f"--size={SIZE_BYTES}", f"--runtime={seconds:g}", "--time_based", "--thread", "--output-format=json"),
    ]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (told,) = json.loads(output[output.index("{") :])["jobs"]
    return float(told[job.verb]["iops"])


if __name__ == "__main__":
    main()
