"""A disk that is pulled in the middle of a run: told at once on the console, an error for every host, nobody crashes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest

from hwvirt.lab.attach import attach
from hwvirt.lab.disks import ScsiDebug
from hwvirt.lab.kernel import Kernel
from hwvirt.units import Deadline

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]  # its steps have deadlines; a busy machine takes its time

MIB = 1 << 20
RIG = """\
rig: pair
disks:
  first:  {{sg: {{wwn: {first.wwn}, size: 16MiB, block: 4KiB, window: {{lba: 256, blocks: 1024}}}}}}
  second: {{sg: {{wwn: {second.wwn}, size: 16MiB, block: 4KiB, window: {{lba: 512, blocks: 2048}}}}}}
controllers:
  a: {{disk: first,  luns: {{0: redirect, 1: frozen}}}}
  b: {{disk: second, luns: {{0: {{own: {{size: 1MiB}}}}}}}}
scenarios:
  - name: the second disk is pulled
    steps:
      - fill: {{lun: 0}}
      - redirect: {{lun: 0}}
      - workload: {{lun: 0, ops: 800, depth: 8, blocks: 1..8, mix: {{write: 60, read: 30, flush: 5, unmap: 5}}}}
      - judge: all
"""


def soon() -> Deadline:
    return Deadline.after(120)


def heard(lines: SimpleQueue[str], wanted: str) -> list[str]:
    """All lines up to the first one with this text."""
    deadline = soon()
    seen: list[str] = []
    while not seen or wanted not in seen[-1]:
        try:
            seen.append(lines.get(timeout=deadline.remaining))
        except Empty:
            pytest.fail(f"no line with {wanted!r}: {seen[-30:]}")
    return seen


def test_pulled_disk_and_the_one_that_comes_are_told_during_a_run_and_hosts_get_errors(tmp_path: Path) -> None:
    with Kernel("a", tmp_path, memory_bytes=384 * MIB) as kernel:
        first, second = attach(kernel, [ScsiDebug(16 * MIB, 4096)] * 2, soon()).disks
        (kernel.share / "rig.yaml").write_text(RIG.format(first=first, second=second))
        hwvirt = [sys.executable, "-m", "hwvirt"]
        kernel.run([*hwvirt, "arm", "rig.yaml"], soon())
        lines: SimpleQueue[str] = SimpleQueue()
        command = [*hwvirt, "run", "--no-live", "--runs", "/mnt/runs", "rig.yaml"]
        job = kernel.start(["sh", "-c", 'exec "$@" 2>&1', "sh", *command], on_line=lines.put)

        heard(lines, "redirect finished")
        place = f"/sys/block/{Path(second.block).name}/device"
        pull = f"readlink -f {place} | grep -o 'host[0-9]*'; echo 1 >{place}/delete"
        host = kernel.run(["sh", "-c", pull], soon()).strip()
        assert f" b        disk {second.sg} was pulled: every request fails now" in heard(lines, "was pulled")[-1]
        kernel.run(["sh", "-c", f"echo '- - -' >/sys/class/scsi_host/{host}/scan"], soon())
        came = heard(lines, "a disk came")[-1]
        assert came.endswith(f"(wwn {second.wwn}, serial {second.serial})")

        assert job.wait(soon()) == 4
        report = json.loads((kernel.share / "runs/latest/report.json").read_text())
        assert report["counts"]["failed"] > 0, report
        assert any("not ready (2/04/03)" in reason for reason in report["reasons"]), report["reasons"]
        log_of_b = (kernel.share / "runs/latest/b.log").read_text()
        assert "controller.flush-failed  what=the store reason=not ready (2/04/03)" in log_of_b
        for name in ("a", "b"):
            assert "bug in hwvirt" not in (kernel.share / f"runs/latest/{name}.log").read_text()
