"""What a run leaves: a folder that programs and people can read, and words for one of them on each stream."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest
import yaml

import hwvirt
from tests.rig.run.kit import CRASH_B, FILL, JUDGE, REDIRECT, rig_of, workload

COUNTS = {"acknowledged", "failed", "in_doubt", "reads", "flushes", "unmaps", "fills", "mismatches"}
SEVEN = {"untouched", "complete", "exact", "content", "consistent", "frozen", "conserved"}
STEPS = ["fill", "redirect", "workload", "judge"]
FAULT = f"at: 50%, {CRASH_B}"


@dataclass(frozen=True)
class Left:
    """A run of the program: its streams and its folder."""

    out: str
    err: str
    runs: Path

    @property
    def folder(self) -> Path:
        """The run folder."""
        return (self.runs / "latest").resolve()

    @property
    def report(self) -> dict[str, Any]:
        """report.json."""
        return dict(json.loads((self.folder / "report.json").read_bytes()))

    @property
    def events(self) -> list[dict[str, Any]]:
        """events.ndjson, every line of it."""
        return [json.loads(line) for line in (self.folder / "events.ndjson").read_bytes().splitlines()]


def program(folder: Path, *words: str) -> Left:
    """Runs a rig with a fault and seed 9."""
    (folder / "rig.yaml").write_text(rig_of(FILL, REDIRECT, workload(1000, FAULT), JUDGE))
    command = [sys.executable, "-m", "hwvirt", "run", "rig.yaml", "--seed", "9", "--runs", "runs", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    return Left(done.stdout, done.stderr, folder / "runs")


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    return program(tmp_path_factory.mktemp("run"), "--no-live")


def test_folder_has_what_the_readme_says_and_latest_points_to_it(left: Left) -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d{6}Z-small-[0-9a-f]{6}", os.readlink(left.runs / "latest"))
    assert sorted(path.name for path in left.runs.iterdir()) == [left.folder.name, "latest"]
    assert {"report.json", "junit.xml", "events.ndjson", "rig.lock.yaml"} <= {path.name for path in left.folder.iterdir()}
    assert not (left.folder / "cards.txt").exists()
    assert not list((left.folder / "disks").iterdir())


def test_report_json_has_verdict_counts_and_properties(left: Left) -> None:
    report = left.report
    assert (report["schema"], report["rig"], report["seed"]) == (1, "small", 9)
    assert (report["verdict"], report["exit_code"], report["reasons"], report["cards"]) == ("passed", 0, [], [])
    assert set(report["counts"]) == COUNTS
    counts = report["counts"]
    assert (counts["failed"], counts["in_doubt"], counts["mismatches"]) == (0, 0, 0)
    # The fill is 4 writes and a flush; the rest are the workload's thousand.
    assert counts["acknowledged"] + counts["reads"] + counts["flushes"] == 1000 + 5
    assert 0 < counts["unmaps"] < counts["acknowledged"]
    assert set(report["properties"]) == SEVEN
    for found in report["properties"].values():
        assert (found["verdict"], found["total"], found["violations"], found["reason"]) == ("held", 0, [], "")
        assert found["checked"] > 0
    assert [(step["scenario"], step["name"], step["failure"], step["blocked"]) for step in report["steps"]] == [
        ("a small story", name, "", False) for name in STEPS
    ]
    assert sum(step["elapsed_s"] for step in report["steps"]) <= report["elapsed_s"]
    assert report["provenance"]["hwvirt"] == hwvirt.__version__


def test_junit_xml_agrees_with_the_report(left: Left) -> None:
    report = left.report
    story, properties = Xml.parse(left.folder / "junit.xml").getroot()
    assert [case.get("name") for case in story.iter("testcase")] == [f"{at} {name}" for at, name in enumerate(STEPS, 1)]
    assert [case.get("name") for case in properties.iter("testcase")] == list(report["properties"])
    for suite in (story, properties):
        assert [suite.get(kind) for kind in ("failures", "errors", "skipped")] == ["0", "0", "0"]
        assert suite.get("tests") == str(len(list(suite.iter("testcase"))))
        facts = {found.get("name"): found.get("value") for found in suite.iter("property")}
        assert (facts["seed"], facts["verdict"]) == (str(report["seed"]), report["verdict"])


def test_every_line_of_the_events_is_an_event(left: Left) -> None:
    events = left.events
    for event in events:
        assert set(event) == {"name", "at", "source", "fields"}
        assert re.fullmatch(r"[a-z]+\.[a-z-]+", event["name"])
        assert event["source"] in ("rig", "a", "b")
        assert isinstance(event["at"], float)
        assert isinstance(event["fields"], dict)
    assert {event["source"] for event in events} == {"rig", "a", "b"}
    rig = [event for event in events if event["source"] == "rig"]
    assert [event["at"] for event in rig] == sorted(event["at"] for event in rig)


def test_events_tell_the_story_in_its_order(left: Left) -> None:
    rig = [(event["name"], event["fields"]) for event in left.events if event["source"] == "rig"]
    assert rig[0] == ("rig.started", {"rig": "small", "seed": 9, "run": left.folder.name})
    name, fields = rig[-1]
    assert (name, fields["verdict"], fields["exit_code"], fields["reasons"]) == ("rig.finished", "passed", 0, [])
    told = [(name, fields["name"]) for name, fields in rig if name in ("step.started", "step.finished")]
    assert told == [(f"step.{word}", step) for step in STEPS for word in ("started", "finished")]
    assert [name for name, fields in rig if fields.get("fault")] == ["fault.armed", "fault.fired", "fault.healed"]
    verdicts = {fields["property"]: fields["verdict"] for name, fields in rig if name == "judge.verdict"}
    assert verdicts == {name: found["verdict"] for name, found in left.report["properties"].items()}


def test_lock_file_says_what_everything_was(left: Left) -> None:
    lock = yaml.safe_load((left.folder / "rig.lock.yaml").read_text())
    assert (lock["rig"], lock["file"], lock["seed"]) == ("small", "rig.yaml", 9)
    assert lock["disks"]["first"] == {
        "kind": "loop",
        "block_bytes": 4096,
        "window": [0, 1024],
        "node": "file",
        "size_bytes": 4 << 20,
    }
    assert lock["controllers"]["a"]["luns"] == {
        0: "redirect to b: blocks 0 to 1023",
        1: "frozen, shows LUN 0: blocks 0 to 1023",
    }
    assert lock["controllers"]["b"] == {"disk": "second", "luns": {}, "store": [0, 4096]}
    assert lock["provenance"] == left.report["provenance"]


def test_people_are_told_on_stderr_and_stdout_stays_empty(left: Left) -> None:
    assert left.out == ""
    assert "\x1b" not in left.err
    assert re.search(r"^ +\d+\.\ds  rig      rig small, seed 9, run ", left.err, re.MULTILINE)
    assert re.search(r"^ +exit code +0 ", left.err, re.MULTILINE)
    assert not any(line.startswith("{") for line in left.err.splitlines())


def test_stream_for_programs_is_json_on_stdout_and_stderr_stays_empty(tmp_path: Path) -> None:
    left = program(tmp_path, "--stream")
    assert left.err == ""
    lines = [json.loads(line) for line in left.out.splitlines()]
    assert [line["event"] for line in lines if "event" in line] == left.events
    assert {line["name"] for line in lines if "status" in line} == {"a", "b"}
