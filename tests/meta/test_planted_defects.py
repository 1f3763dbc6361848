"""The judge is judged: a run with one thing wrong ends with the right exit code, property and LBA."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from hwvirt.errors import ExitCode
from hwvirt.rig import bench, steps
from hwvirt.rig.bench import CONTROLLER_PROGRAM
from hwvirt.rig.disks import BenchDisk
from hwvirt.rig.file import parse_rig
from hwvirt.rig.file.scenario import Judge
from hwvirt.rig.runner import RunOptions, run_rig
from hwvirt.rig.steps import Performance
from hwvirt.trace import Event
from tests.meta.wrong_controllers import LBA

RIG = """
rig: meta
seed: 5
disks: {{first: {{loop: {{size: 1MiB}}}}, second: {{loop: {{size: 2MiB}}}}}}
controllers: {{a: {{disk: first, luns: {{0: redirect, 1: frozen}}}}, b: {{disk: second}}}}
scenarios:
  - name: something is wrong
    steps:
      - fill: {{lun: 0}}
      - redirect: {{lun: 0}}
      - workload: {{lun: 0, ops: {ops}, depth: 4, blocks: 1..1, mix: {{write: 80, read: 20}}}}
      - judge: {judge}
    {expect}
"""


class Silent:
    def handle(self, event: Event) -> None: ...

    def status(self, name: str, report: dict[str, Any]) -> None: ...

    def tick(self, now: float) -> None: ...


def run(folder: Path, wrong: str = "", *, ops: int = 1500, judge: str = "all", expect: str = "") -> tuple[int, Any]:
    """The exit code and the report of one run."""
    rig = parse_rig(RIG.format(ops=ops, judge=judge, expect=expect), folder / "meta.yaml")
    program = (sys.executable, "-m", "tests.meta.wrong_controllers", wrong) if wrong else CONTROLLER_PROGRAM
    code = run_rig(rig, RunOptions(runs=folder / "runs", watcher=Silent(), program=program))
    return code, json.loads((folder / "runs/latest/report.json").read_text())


def broken(report: Any) -> dict[str, set[int]]:
    """Broken properties and the LBAs that their cards name."""
    return {
        name: {card["lba"] for card in report["cards"] if card["property"] == name}
        for name, found in report["properties"].items()
        if found["verdict"] == "broken"
    }


def overwrite(disk: object, offset_bytes: int) -> None:
    assert isinstance(disk, BenchDisk)
    with Path(disk.path).open("r+b") as image:
        image.seek(offset_bytes)
        image.write(b"wrong")


def before_judging(monkeypatch: pytest.MonkeyPatch, sabotage: Callable[[Performance], Awaitable[None]]) -> None:
    inner = steps.STEPS[Judge]

    async def judged(performance: Performance, step: Judge) -> None:
        await sabotage(performance)
        await inner(performance, step)

    monkeypatch.setitem(steps.STEPS, Judge, judged)


def test_a_sound_pair_passes(tmp_path: Path) -> None:
    code, report = run(tmp_path)
    assert (code, report["verdict"], broken(report)) == (ExitCode.PASSED, "passed", {})


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("swapped_entries", {"exact", "content"}),
        ("lost_write", {"consistent"}),
        ("writes_first_too", {"untouched", "frozen"}),
        ("stale_map", {"consistent"}),
        ("torn_block", {"consistent", "content"}),
    ],
)
def test_a_wrong_controller_is_convicted_with_the_block_that_is_wrong(
    tmp_path: Path, wrong: str, expected: set[str]
) -> None:
    code, report = run(tmp_path, wrong)
    found = broken(report)
    assert (code, report["verdict"]) == (ExitCode.BROKEN, "broken")
    assert expected <= set(found), found
    if wrong != "torn_block":  # that one spoils every block
        near = {LBA, LBA + 1} if wrong == "swapped_entries" else {LBA}
        for name in expected:
            assert found[name] <= near, name
            assert found[name], name


def test_one_wrong_block_on_the_second_disk_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong: list[int] = []

    async def spoil(performance: Performance) -> None:
        bench = performance.stage.bench
        rows = await bench.machines["a"].control.pages("map", lun=0)
        lba, _, position, *_ = next(row for row in rows if row[2] is not None)
        overwrite(bench.disks["second"], position * 4096 + 3000)
        wrong.append(lba)

    before_judging(monkeypatch, spoil)
    code, report = run(tmp_path)
    assert code == ExitCode.BROKEN
    assert broken(report)["content"] == set(wrong)


def test_one_write_to_the_first_disk_behind_everybodys_back_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def spoil(performance: Performance) -> None:
        overwrite(performance.stage.bench.disks["first"], LBA * 4096 + 100)

    before_judging(monkeypatch, spoil)
    code, report = run(tmp_path)
    assert code == ExitCode.BROKEN
    assert broken(report)["untouched"] == {LBA}
    assert broken(report)["frozen"] == {LBA}


def test_less_than_expected_is_no_pass(tmp_path: Path) -> None:
    code, report = run(tmp_path, ops=10, expect="expect: {acknowledged: '>= 5000'}")
    assert (code, report["verdict"]) == (ExitCode.NOTHING_RAN, "nothing-ran")
    assert report["reasons"][0].startswith("expected acknowledged >= 5000, counted ")


def test_a_controller_that_does_not_stop_is_killed_and_ends_the_run_with_its_own_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "STOP_S", 1.0)
    code, report = run(tmp_path, "will_not_stop", ops=10)
    assert (code, report["verdict"]) == (ExitCode.INFRASTRUCTURE, "infrastructure")
    assert "did not stop within 1 s and was killed" in report["reasons"][0]
