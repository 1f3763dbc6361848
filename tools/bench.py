"""How fast a redirecting pair is beside what others do nearest to it, in one run: fio on hwvirt and on QEMU.

QEMU's row is a qcow2 overlay that lies on a second NBD server, with the first image below it: also two processes, also a
copy-on-write map, and a second image as large as the store. QEMU talks over unix sockets, which suit it better; hwvirt over
TCP, which is what it has. QEMU writes a block where it wrote it before and makes nothing durable unasked; hwvirt writes it
to a new position and may not keep more than 64 MiB that no flush has covered. With TLS on the second path it is told beside.

A store that has little more room than the volume has blocks is soon in pieces: --store-mib 96 shows what that costs.

    .venv/bin/python tools/bench.py [--seconds 4] [--rounds 3] [--store-mib 256]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HWVIRT = Path(sys.executable).with_name("hwvirt")
SIZE_MIB = 64
STORE_MIB = 4 * SIZE_MIB
RIG = """
rig: bench
disks:
  first:  {{loop: {{size: {size_mib}MiB, block: 4KiB}}}}
  second: {{loop: {{size: {store_mib}MiB, block: 4KiB}}}}
controllers:
  a: {{disk: first, luns: {{0: redirect}}}}
  b: {{disk: second}}
link: {{ethernet: {{{link}}}}}
scenarios: [{{name: none, steps: [{{judge: all}}]}}]
"""
START_S = 20.0


@dataclass(frozen=True)
class Job:
    """One fio job."""

    name: str
    rw: str
    block: str
    depth: int


JOBS = (
    Job("4 KiB random write, depth 1", "randwrite", "4k", 1),
    Job("4 KiB random write, depth 32", "randwrite", "4k", 32),
    Job("4 KiB random read, depth 1", "randread", "4k", 1),
    Job("4 KiB random read, depth 32", "randread", "4k", 32),
    Job("1 MiB sequential write, depth 4", "write", "1m", 4),
    Job("1 MiB sequential read, depth 4", "read", "1m", 4),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--store-mib", type=int, default=STORE_MIB, help="hwvirt's store; QEMU's image stays as it is")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hwvirt-bench-")))
        peers = {
            "hwvirt": stack.enter_context(hwvirt(folder, "clear", "", arguments.store_mib)),
            "tls": stack.enter_context(hwvirt(folder, "tls", "tls: generated", arguments.store_mib)),
            "qemu": stack.enter_context(qemu(folder)),
        }
        print(f"medians of {arguments.rounds} rounds")
        print(f"{'':34}{'hwvirt':>10}{'with TLS':>10}{'QEMU':>10}{'ratio':>13}{'TLS':>6}")
        for job in JOBS:
            rounds = [
                {name: fio(uri, job, arguments.seconds) for name, uri in peers.items()} for _ in range(arguments.rounds)
            ]
            clear, tls = (statistics.median(one[name] / one["qemu"] for one in rounds) for name in ("hwvirt", "tls"))
            told = "".join(f"{statistics.median(one[name] for one in rounds):10,.0f}" for name in peers)
            unit = "MiB/s" if job.block == "1m" else "IOPS"
            print(f"{job.name:34}{told} {unit:6}{clear:6.2f}{tls:6.2f}", flush=True)


def fio(uri: str, job: Job, seconds: float) -> float:
    """Requests a second; for 1 MiB requests that is MiB a second."""
    command = [
        *("fio", "--name=bench", "--ioengine=nbd", f"--uri={uri}", f"--rw={job.rw}", f"--bs={job.block}"),
        *(f"--iodepth={job.depth}", f"--size={SIZE_MIB}m", f"--runtime={seconds:g}", "--time_based"),
        *("--output-format=json", "--randseed=1"),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    output = done.stdout
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{output}{done.stderr}")
    (found,) = json.loads(output[output.index("{") :])["jobs"]
    return float(found["read"]["iops"] + found["write"]["iops"])


@contextlib.contextmanager
def hwvirt(folder: Path, name: str, link: str, store_mib: int) -> Iterator[str]:
    """A pair that redirects; yields the address of its LUN."""
    rig = folder / f"{name}.yaml"
    rig.write_text(RIG.format(size_mib=SIZE_MIB, store_mib=store_mib, link=link))
    command = [str(HWVIRT), "up", str(rig), "--json"]
    with running(command, cwd=folder, stdout=subprocess.PIPE) as up:
        assert up.stdout is not None
        luns = json.loads(up.stdout.readline())["luns"]
        yield str(luns[0]["nbd"])


@contextlib.contextmanager
def qemu(folder: Path) -> Iterator[str]:
    """An overlay on a second server; yields its address."""
    first, second = folder / "first.img", folder / "second.img"
    for image, size in ((first, SIZE_MIB), (second, STORE_MIB)):
        with image.open("wb") as file:
            file.truncate(size << 20)
    with contextlib.ExitStack() as stack:
        store, front = folder / "store.sock", folder / "front.sock"
        stack.enter_context(running(["qemu-nbd", "-t", "-f", "raw", "-k", str(store), str(second)]))
        wait_for(store)
        overlay = f"nbd+unix:///?socket={store}"
        create = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(first), "-F", "raw", overlay, f"{SIZE_MIB}M"]
        subprocess.run(create, check=True)
        layers = f"driver=qcow2,file.driver=nbd,file.server.type=unix,file.server.path={store}"
        stack.enter_context(running(["qemu-nbd", "-t", "-k", str(front), "--image-opts", layers]))
        wait_for(front)
        yield f"nbd+unix:///?socket={front}"


@contextlib.contextmanager
def running(command: list[str], cwd: Path | None = None, stdout: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is there inside the block."""
    process = subprocess.Popen(command, cwd=cwd, stdout=stdout)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(START_S)


def wait_for(path: Path) -> None:
    """Returns when a server has made its socket."""
    deadline = time.monotonic() + START_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} did not appear")
        time.sleep(0.01)


if __name__ == "__main__":
    main()
