"""Rigs whose disks are loop devices: they run like those of plain files, and nothing stays attached, whoever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwvirt.errors import ExitCode
from tests.disk.test_loop_device import attached_files, needs_root, wait_until_detached
from tests.rig.run.kit import CRASH_B, FILL, JUDGE, REDIRECT, RESTART_A, rig_of, run, workload

pytestmark = needs_root


def attached_below(folder: Path) -> list[str]:
    """Devices whose file is, or was, in this folder."""
    return sorted(name for name, file in attached_files().items() if file.startswith(str(folder)))


@pytest.fixture(autouse=True)
def _nothing_stays_attached(tmp_path: Path) -> Iterator[None]:
    yield
    left = attached_below(tmp_path)
    for name in left:
        subprocess.run(["losetup", "-d", f"/dev/{name}"], check=True)
    assert left == []


@pytest.mark.parametrize("block", ["512B", "4KiB"])
def test_rig_of_loop_devices_runs_and_is_judged(block: str, tmp_path: Path) -> None:
    text = rig_of(FILL, REDIRECT, workload(200, f"at: 50%, {CRASH_B}"), RESTART_A, JUDGE, block=block, node="loop")
    ran = run(text, tmp_path)
    assert (ran.code, ran.report["reasons"]) == (ExitCode.PASSED, [])
    nodes = [json.loads((ran.folder / f"{name}.json").read_bytes())["disk"]["path"] for name in "ab"]
    assert all(node.startswith("/dev/loop") for node in nodes)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_devices_of_a_rig_that_was_up_are_detached(number: signal.Signals, tmp_path: Path) -> None:
    rig = tmp_path / "rig.yaml"
    rig.write_text(rig_of(JUDGE, node="loop", link="stall: 1s"))
    with subprocess.Popen(
        [sys.executable, "-m", "hwvirt", "up", str(rig), "--json"],
        stdout=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            assert len(attached_below(tmp_path)) == 2
        finally:
            process.send_signal(number)
    wait_until_detached(str(tmp_path))
