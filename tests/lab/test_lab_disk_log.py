"""The driver below both controllers writes down every CDB that reaches a disk: an account that is nobody's of ours.

scsi_debug does so in the kernel's log (opts=1). The lab's kernel has no tracing (CONFIG_FTRACE), so neither blktrace nor the
scsi trace events can be asked; this is closer to the disk than they are.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwvirt.lab.attach import attach
from hwvirt.lab.disks import GuestDisk, ScsiDebug
from hwvirt.lab.kernel import Kernel
from hwvirt.units import Deadline

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]  # its steps have deadlines; a busy machine takes its time

MIB = 1 << 20
CDB = re.compile(r"sd (\d+):0:0:0: scsi_debug: tag=\S+, cmd ([0-9a-f]{2}) ")
READS = frozenset({"28", "88"})
CHANGES = {  # SBC-4, table 33: every command that changes the medium, also those that nobody here sends
    "04": "FORMAT UNIT", "0a": "WRITE(6)", "2a": "WRITE(10)", "2e": "WRITE AND VERIFY(10)", "3f": "WRITE LONG(10)",
    "41": "WRITE SAME(10)", "42": "UNMAP", "48": "SANITIZE", "53": "XDWRITEREAD(10)", "7f": "variable length",
    "89": "COMPARE AND WRITE", "8a": "WRITE(16)", "8b": "ORWRITE(16)", "8e": "WRITE AND VERIFY(16)",
    "93": "WRITE SAME(16)", "9c": "WRITE ATOMIC(16)", "9f": "SERVICE ACTION OUT(16)", "aa": "WRITE(12)",
    "ae": "WRITE AND VERIFY(12)",
}  # fmt: skip
RIG = """\
rig: pair
disks:
  first:  {{sg: {{wwn: {first.wwn}, size: 8MiB, block: 4KiB, window: {{lba: 256, blocks: 512}}}}}}
  second: {{sg: {{wwn: {second.wwn}, size: 8MiB, block: 4KiB, window: {{lba: 512, blocks: 1024}}}}}}
controllers: {{a: {{disk: first, luns: {{0: redirect, 1: frozen}}}}, b: {{disk: second}}}}
scenarios:
  - name: new data never touches the first disk
    steps:
{steps}      - workload: {{lun: 0, ops: 150, depth: 8, blocks: 1..8, mix: {{write: 60, read: 30, flush: 5, unmap: 5}}}}
        while: {{backup: {{lun: 1}}}}
      - judge: all
    expect: {{acknowledged: ">= 60", reads: ">= 20"}}
"""
REDIRECT = "      - redirect: {lun: 0}\n"


def soon() -> Deadline:
    return Deadline.after(120)


@pytest.fixture(scope="module")
def disks(kernel: Kernel) -> Iterator[list[GuestDisk]]:
    yield list(attach(kernel, [ScsiDebug(8 * MIB, 4096, {"opts": "1", "lbpu": "1", "lbpws": "1"})] * 2, soon()).disks)


class Log:
    """What reached each disk since the last question, by operation code."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._path = kernel.share / "log"
        self._job = kernel.start(["sh", "-c", "exec cat /dev/kmsg >log"])
        self._marks = 0
        self.since()

    def since(self) -> dict[str, Counter[str]]:
        """Host number → operation code → how often."""
        self._marks += 1
        mark = f"mark {self._marks} of the test"
        self._kernel.run(["sh", "-c", f"echo {mark} >/dev/kmsg; until grep -q '{mark}' log; do sleep 0.05; done"], soon())
        text = self._path.read_text(errors="replace").split(mark)[0].split(f"mark {self._marks - 1} of the test")[-1]
        found: dict[str, Counter[str]] = {}
        for host, opcode in CDB.findall(text):
            found.setdefault(host, Counter())[opcode] += 1
        return found


def host_of(kernel: Kernel, disk: GuestDisk) -> str:
    address = f"basename $(readlink -f /sys/block/{Path(disk.block).name}/device)"
    return kernel.run(["sh", "-c", address], soon()).split(":")[0]


def test_driver_of_the_first_disk_saw_no_write_while_redirecting(kernel: Kernel, disks: list[GuestDisk]) -> None:
    first, second = disks
    hosts = {name: host_of(kernel, disk) for name, disk in (("first", first), ("second", second))}
    hwvirt = [sys.executable, "-m", "hwvirt"]
    rigs = {"redirected": REDIRECT, "own": "      - fill: {lun: 0}\n"}
    for name, steps in rigs.items():
        text = RIG.format(first=first, second=second, steps=steps)
        if name == "own":  # nothing is redirected: the same log then tells of writes on the first disk
            text = text.replace("        while: {backup: {lun: 1}}\n", "").replace("1: frozen", "1: {frozen: 0}")
        (kernel.share / f"{name}.yaml").write_text(text)
    kernel.run([*hwvirt, "arm", "redirected.yaml"], soon())
    log = Log(kernel)

    kernel.run([*hwvirt, "run", "--no-live", "--runs", "/tmp/runs", "redirected.yaml"], soon())
    seen = log.since()
    told = {name: {code: seen[host][code] for code in CHANGES if seen[host][code]} for name, host in hosts.items()}
    assert told["first"] == {}
    assert told["second"].get("8a", 0) >= 10
    assert sum(seen[hosts["first"]][code] for code in READS) >= 10  # it was listening to the first disk

    kernel.run([*hwvirt, "run", "--no-live", "--runs", "/tmp/runs", "own.yaml"], soon())
    seen = log.since()
    assert seen[hosts["first"]]["8a"] >= 10
    assert not any(seen[hosts["second"]][code] for code in CHANGES)
