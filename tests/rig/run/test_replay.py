"""The command on a card, copied into a shell somewhere else, does the same run once more."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hwvirt.rig import replay
from tests.rig.run.kit import FILL, JUDGE, rig_of

END_S = 60.0


def hwvirt(command: str, folder: Path) -> dict[str, object]:
    """What a shell makes of it in a folder, with a PATH that knows none of our programs; the report of the run."""
    env = os.environ | {"PATH": "/usr/bin:/bin"}
    made = subprocess.run(["sh", "-c", command], cwd=folder, env=env, capture_output=True, timeout=END_S, check=False)
    assert made.returncode == 5, made.stderr
    report: dict[str, object] = json.loads((folder / "runs/latest/report.json").read_bytes())
    return report


def test_a_replay_is_the_same_run_wherever_it_is_typed(tmp_path: Path) -> None:
    here, there = tmp_path / "a bench; it's mine", tmp_path / "elsewhere"
    here.mkdir()
    there.mkdir()
    rig = rig_of(FILL, JUDGE, first="256KiB", second="1MiB", expect='{reads: ">= 9999"}')
    (here / "-my $rig.yaml").write_text(rig)
    first = hwvirt(f"{shlex.quote(sys.executable)} -m hwvirt run './-my $rig.yaml' --seed 11", here)
    again = hwvirt(str(first["replay"]), there)
    same = ("rig", "seed", "reasons", "counts", "replay")
    assert [first[name] for name in same] == [again[name] for name in same]
    assert first["seed"] == 11


def test_a_program_that_the_shell_finds_is_named_as_people_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert replay.replay_command(Path("/rigs/mine.yaml"), 5) == "hwvirt run /rigs/mine.yaml --seed 5"


def test_another_program_of_that_name_is_not_meant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "hwvirt"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    beside = Path(sys.executable).with_name("hwvirt")
    assert replay.replay_command(Path("/rigs/mine.yaml"), 5) == f"{beside} run /rigs/mine.yaml --seed 5"


def test_without_a_program_the_module_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python 3"))
    assert replay.replay_command(Path("/r.yaml"), 5) == f"'{tmp_path}/python 3' -m hwvirt run /r.yaml --seed 5"
