"""The lab's rigs do what they say, on a machine whose own kernel has no SCSI."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.lab

RIGS = Path(__file__).parents[2] / "rigs"


@pytest.mark.parametrize("name", ["lab-scsi-debug", "lab-tcm-loop", "lab-tcmu-faults", "lab-two-kernels"])
def test_every_property_holds_on_disks_of_the_kernel(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hwvirt", "run", str(RIGS / f"{name}.yaml"), "--runs", str(tmp_path), "--no-live"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "latest/report.json").read_text())
    assert report["verdict"] == "passed"
    for wanted in ("untouched", "complete", "exact", "content", "consistent", "frozen", "conserved"):
        found = report["properties"][wanted]
        assert (found["verdict"], found["checked"] > 0) == ("held", True), wanted
    assert (tmp_path / "latest/kernel.log").exists()
