"""Every rig of the project says what it should, and the run that it asks for passes with all its faults.

The runs are processes, some at a time: much of a run is waiting, for a cable or for a thin line.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hwvirt.link.faults import LinkFault
from hwvirt.rig.disks import needs_lab
from hwvirt.rig.faults import describe
from hwvirt.rig.file import load_rig
from hwvirt.rig.file.model import Rig, SgSpec
from hwvirt.rig.file.scenario import EveryOps, Fault, Fill, Judge, Scenario, StartRedirect, StrikeLink, Workload

ROOT = Path(__file__).parents[2]
RIGS = {path.stem: load_rig(path) for path in sorted((ROOT / "rigs").glob("*.yaml"))}
AT_A_TIME = 3
RUN_S = 300.0
REDIRECTING = {"untouched", "complete", "exact", "content", "consistent", "frozen", "conserved"}


def here(rig: Rig) -> bool:
    """Whether it needs neither the lab nor hardware."""
    return not needs_lab(rig) and not any(isinstance(disk, SgSpec) for disk in rig.disks.values())


def waiting_s(rig: Rig) -> float:
    """How long its faults last, roughly: who waits longest begins first."""
    faults = [fault.action.fault for fault in faults_of(rig) if isinstance(fault.action, StrikeLink)]
    return sum(fault.for_s or 0.0 for fault in faults if isinstance(fault, LinkFault))


def workloads_of(rig: Rig) -> list[Workload]:
    return [step for scenario in rig.scenarios for step in scenario.steps if isinstance(step, Workload)]


def faults_of(rig: Rig) -> list[Fault]:
    return [fault for work in workloads_of(rig) for fault in work.faults]


HERE = sorted((name for name, rig in RIGS.items() if here(rig)), key=lambda name: -waiting_s(RIGS[name]))


@dataclass(frozen=True)
class Ended:
    """A run that has ended."""

    code: int
    out: str
    err: str
    runs: Path

    @property
    def report(self) -> dict[str, Any]:
        """report.json."""
        return dict(json.loads((self.runs / "latest/report.json").read_bytes()))

    @property
    def events(self) -> list[dict[str, Any]]:
        """events.ndjson."""
        return [json.loads(line) for line in (self.runs / "latest/events.ndjson").read_bytes().splitlines()]


def hwvirt_run(rig: Path, runs: Path, under_way: set[subprocess.Popen[str]]) -> Ended:
    """`hwvirt run RIG`, to its end; `under_way` has it until then."""
    command = [sys.executable, "-m", "hwvirt", "run", str(rig), "--runs", str(runs), "--no-live"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        under_way.add(process)
        try:
            out, err = process.communicate(timeout=RUN_S)
        finally:
            process.terminate()  # not killed: it has processes of its own to end
            under_way.discard(process)
    return Ended(process.returncode, out, err, runs)


@pytest.fixture(scope="module")
def ended(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Ended]]:
    """The run of a rig: those that are asked for begin together, in the order of HERE."""
    asked = {item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")}
    under_way: set[subprocess.Popen[str]] = set()
    runs = tmp_path_factory.mktemp("rigs")
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        futures: dict[str, Future[Ended]] = {
            name: pool.submit(partial(hwvirt_run, RIGS[name].path, runs / name, under_way)) for name in HERE if name in asked
        }
        try:
            yield lambda name: futures[name].result()
        finally:
            for future in futures.values():
                future.cancel()
            for process in tuple(under_way):
                process.terminate()


@pytest.mark.timeout(RUN_S)
@pytest.mark.parametrize("name", HERE)
def test_rig_passes_with_every_property_and_every_fault(name: str, ended: Callable[[str], Ended]) -> None:
    rig, run = RIGS[name], ended(name)
    assert (run.code, run.out) == (0, ""), run.err
    report = run.report
    assert (report["verdict"], report["reasons"], report["cards"]) == ("passed", [], [])
    properties = report["properties"]
    assert asked_properties(rig) <= set(properties)
    assert all(found["verdict"] == "held" and found["checked"] > 0 for found in properties.values())
    assert_every_fault_struck(rig, run)


def asked_properties(rig: Rig) -> set[str]:
    """Those that the rig names, and of a rig that redirects those that `all` then means."""
    steps = [step for scenario in rig.scenarios for step in scenario.steps]
    named = {name.value for step in steps if isinstance(step, Judge) for name in step.properties or ()}
    return named | (REDIRECTING if any(isinstance(step, StartRedirect) for step in steps) else {"consistent"})


def assert_every_fault_struck(rig: Rig, run: Ended) -> None:
    """As often as its moment came; one that is about frames met some."""
    told = [(event["name"], event["fields"]) for event in run.events if event["name"].startswith("fault.")]
    for work in workloads_of(rig):
        for fault in work.faults:
            words = describe(fault)
            times = work.ops // fault.when.ops if isinstance(fault.when, EveryOps) else 1
            same = sum(describe(other) == words for other in faults_of(rig))
            for name in ("fault.fired", "fault.healed"):
                assert len([fields for what, fields in told if what == name and fields["fault"] == words]) == times * same
            if isinstance(fault.action, StrikeLink) and fault.action.fault.count is not None:
                healed = [fields["frames"] for what, fields in told if what == "fault.healed" and fields["fault"] == words]
                assert sum(healed) > 0, words
    assert sum(name == "fault.armed" for name, _ in told) == len(faults_of(rig))


# What a rig must say, wherever it runs.


@pytest.mark.parametrize("name", RIGS)
def test_rig_is_named_after_its_file_and_in_the_readme(name: str) -> None:
    assert RIGS[name].name == name
    told = re.findall(r"`([a-z-]+\*?)`", (ROOT / "README.md").read_text())
    assert name in told or (name.startswith("lab-") and "lab-*" in told)


@pytest.mark.parametrize("name", RIGS)
def test_rig_opens_with_what_happens_and_how_to_run_it(name: str) -> None:
    text = RIGS[name].path.read_text()
    opening = text[: text.index(f"\nrig: {name}\n")].splitlines()
    assert all(line.startswith("#") or not line for line in opening)
    assert any(f"hwvirt run rigs/{name}.yaml" in line for line in opening)


SCENARIOS = [(name, scenario) for name, rig in RIGS.items() for scenario in rig.scenarios]


@pytest.mark.parametrize(("rig", "scenario"), SCENARIOS, ids=[f"{name}: {scenario.name}" for name, scenario in SCENARIOS])
def test_scenario_expects_more_than_one_operation_of_each_workload(rig: str, scenario: Scenario) -> None:
    """A run whose workloads do next to nothing is no pass. All that it then counts at most: its fills and those few."""
    counts = dict.fromkeys(("acknowledged", "reads", "flushes", "unmaps"), 0)
    for step in scenario.steps:
        if isinstance(step, Fill):
            end, _ = RIGS[rig].resolve(step.controller, step.lun)
            size_bytes = RIGS[rig].extent(step.controller, step.lun).blocks * RIGS[rig].disks[_disk(rig, end)].block_bytes
            counts["acknowledged"] += -(-size_bytes // (1 << 20))
            counts["flushes"] += 1
    works = sum(isinstance(step, Workload) for step in scenario.steps)
    counts = {name: count + works for name, count in counts.items()} | {"failed": 0, "in_doubt": 0, "mismatches": 0}
    assert any(not expectation.holds(counts[expectation.counter.value]) for expectation in scenario.expect)


def _disk(rig: str, controller: str) -> str:
    return RIGS[rig].controllers[controller].disk


def test_rig_that_does_next_to_nothing_ends_with_5_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "quickstart.yaml"
    path.write_text(re.sub(r"ops: \d+", "ops: 1", RIGS["quickstart"].path.read_text()))
    run = hwvirt_run(path, tmp_path / "runs", set())
    counts, wanted = run.report["counts"], RIGS["quickstart"].scenarios[0].expect
    assert (run.code, run.report["verdict"]) == (5, "nothing-ran")
    missed = [each for each in wanted if each.counter.value != "mismatches"]
    where = f"in scenario {RIGS['quickstart'].scenarios[0].name!r}"
    expected = [f"expected {each.text}, counted {counts[each.counter.value]} {where}" for each in missed]
    assert [reason for reason in run.report["reasons"] if reason.startswith("expected")] == expected
