"""A rig on disks that it did not make: named by identity, armed, claimed, and written inside the window only."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from hwvirt.lab.attach import attach
from hwvirt.lab.disks import GuestDisk, ScsiDebug
from hwvirt.lab.kernel import Kernel
from hwvirt.units import Deadline

pytestmark = pytest.mark.lab

MIB = 1 << 20
SIZE_BYTES, BLOCK_BYTES = 16 * MIB, 4096
WINDOWS = {"first": (256, 1024), "second": (512, 2048)}
RIG = """\
rig: pair
disks:
  first: {{sg: {{wwn: {first.wwn}, serial: "{first.serial}", size: 16MiB, block: 4KiB, window: {{lba: 256, blocks: 1024}}}}}}
  second: {{sg: {{serial: "{second.serial}", size: 16MiB, block: 4KiB, window: {{lba: 512, blocks: 2048}}}}}}
controllers:
  a: {{disk: first,  luns: {{0: redirect, 1: frozen}}}}
  b: {{disk: second, luns: {{0: {{own: {{size: 1MiB}}}}}}}}
scenarios:
  - name: real disks keep what they were given
    steps:
      - fill: {{lun: 0}}
      - redirect: {{lun: 0}}
      - workload: {{lun: 0, ops: 400, depth: 8, blocks: 1..8, mix: {{write: 60, read: 30, flush: 5, unmap: 5}}}}
      - judge: all
    expect: {{acknowledged: ">= 100", mismatches: 0}}
"""
PROGRAM = """
import sys
from hwvirt.cli.main import main
for line in sys.stdin:
    sys.argv = ["hwvirt", *line.split()]
    try:
        main()
    except SystemExit as end:
        print("exit code", int(end.code or 0), "of the command", flush=True)
"""


def soon() -> Deadline:
    return Deadline.after(90)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with Kernel("a", tmp_path_factory.mktemp("a"), memory_bytes=384 * MIB) as kernel:
        yield kernel


class Program:
    """`hwvirt` in the guest, command after command in one process: Python takes its time to begin there."""

    def __init__(self, kernel: Kernel) -> None:
        self._job = kernel.start(["sh", "-c", 'exec "$0" -c "$1" 2>&1', sys.executable, PROGRAM])

    def __call__(self, *arguments: str) -> tuple[int, str]:
        """Exit code and output of one command."""
        self._job.send(f"{' '.join(arguments)}\n".encode(), soon())
        lines: list[str] = []
        while (line := self._job.line(soon())) is not None and not line.startswith("exit code "):
            lines.append(line)
        assert line is not None, lines
        return int(line.split()[2]), "\n".join(lines)


def whole(kernel: Kernel, role: str, disk: GuestDisk) -> bytes:
    """Every byte of the disk, read past all caches."""
    kernel.run(["dd", f"if={disk.block}", f"of=/mnt/{role}", "bs=1M", "iflag=direct"], soon())
    return (kernel.share / role).read_bytes()


def outside(kernel: Kernel, role: str, disk: GuestDisk) -> bytes:
    """The bytes that are neither in the label's block nor in the window."""
    data, (lba, blocks) = whole(kernel, role, disk), WINDOWS[role]
    return data[BLOCK_BYTES : lba * BLOCK_BYTES] + data[(lba + blocks) * BLOCK_BYTES :]


def test_rig_runs_on_armed_disks_by_identity_and_writes_nothing_outside_its_windows(kernel: Kernel) -> None:
    first, second = attach(kernel, [ScsiDebug(SIZE_BYTES, BLOCK_BYTES)] * 2, soon()).disks
    disks = {"first": first, "second": second}
    for disk in disks.values():
        kernel.run(["sh", "-c", f"yes pattern | dd of={disk.block} bs=1M count=16 iflag=fullblock oflag=direct"], soon())
    before = {role: outside(kernel, role, disk) for role, disk in disks.items()}
    (kernel.share / "rig.yaml").write_text(RIG.format(**disks))

    hwvirt = Program(kernel)
    refused = f"refusing {first.block} ({first.serial}, 16.8 MB) as disk first of rig pair: it is not armed."
    for arguments in (("run", "--dry-run"), ("run", "--no-live", "--runs", "/mnt/refused")):
        code, output = hwvirt(*arguments, "/mnt/rig.yaml")
        assert (code, refused in output) == (3, True), output
    assert hwvirt("arm", "/mnt/rig.yaml")[0] == 0

    armed = {role: whole(kernel, role, disk) for role, disk in disks.items()}
    code, output = hwvirt("run", "--dry-run", "/mnt/rig.yaml")
    blocks = "blocks 256 to 1279, 4MiB"
    assert (code, output.splitlines()[0]) == (0, f"would use disk first: {first.block} ({first.serial}, 16.8 MB), {blocks}")
    assert {role: whole(kernel, role, disk) for role, disk in disks.items()} == armed

    code, output = hwvirt("run", "--no-live", "--runs", "/mnt/runs", "/mnt/rig.yaml")
    assert code == 0, output
    report = json.loads((kernel.share / "runs/latest/report.json").read_text())
    assert report["properties"]["untouched"]["verdict"] == "held"
    assert report["properties"]["exact"]["checked"] > 0
    assert {role: outside(kernel, role, disk) for role, disk in disks.items()} == before
    assert {role: whole(kernel, role, disk) for role, disk in disks.items()} != armed
    assert hwvirt("disarm", "/mnt/rig.yaml")[0] == 0
    assert hwvirt("run", "--dry-run", "/mnt/rig.yaml")[0] == 3
