"""The run folder holds everything, whole; programs can read it, people too."""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest
import yaml

import hwvirt
from hwvirt.digest import crc32c
from hwvirt.errors import InfrastructureError
from hwvirt.rig.judge.card import Card, Owner
from hwvirt.rig.judge.verdict import CARDS_KEPT, Outcome, Property, Verdict
from hwvirt.rig.report import PropertyReport, Report, RunFolder, StepReport, provenance, summarize
from hwvirt.trace import Event, Trace

STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CARD = Card(
    "content",
    "stale",
    12,
    "position 6 of the second disk holds volume 7 lba 12 version 1",
    expected=(Owner(7, 12, 6),),
    found=Owner(7, 12, 1),
    map_entry={"position": 6, "generation": 1, "sequence": 2},
    events=("#6 WRITE lba 10 blocks 6 at 12..13 ACKNOWLEDGED",),
    replay="hwvirt run rigs/quickstart.yaml --seed 42",
)
VERDICTS = [
    Verdict(Property.CONTENT, Outcome.BROKEN, 8, 1, (CARD,)),
    Verdict(Property.EXACT, Outcome.HELD, 16),
    Verdict(Property.CONSISTENT, Outcome.NOT_CHECKED, 0, reason="no read was answered"),
    Verdict(Property.EXACT, Outcome.HELD, 4),
]


def _report(**changes: Any) -> Report:
    properties, cards = summarize(VERDICTS)
    facts: dict[str, Any] = {
        "rig": "quickstart",
        "seed": 42,
        "verdict": "broken",
        "exit_code": 1,
        "reasons": ("content is broken",),
        "counts": {"acknowledged": 3, "failed": 0, "in_doubt": 0, "reads": 0, "flushes": 1, "unmaps": 0, "mismatches": 0},
        "properties": properties,
        "steps": (
            StepReport("first story", "fill a/0", 0.5),
            StepReport("first story", "workload a/0", 1.25, failure="link lost\x00"),
            StepReport("second story", "judge", blocked=True),
        ),
        "cards": cards,
        "provenance": {"hwvirt": "0.1.0"},
        "started": STARTED.isoformat(),
        "elapsed_s": 2.0,
    }
    return Report(**(facts | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    with closing(RunFolder(tmp_path / "runs", "quickstart", STARTED, "a1b2c3")) as folder:
        yield folder


def test_the_folder_is_named_by_utc_date_rig_and_id(tmp_path: Path) -> None:
    local = STARTED.astimezone(timezone(timedelta(hours=9)))
    with closing(RunFolder(tmp_path, "two disks/../x", local, "a1b2c3")) as folder:
        assert folder.path == tmp_path / "2026-01-02T030405Z-two-disks-..-x-a1b2c3"


def test_latest_points_to_the_newest_run(tmp_path: Path) -> None:
    for run_id in ("1", "2"):
        RunFolder(tmp_path, "quickstart", STARTED, run_id).close()
        assert os.readlink(tmp_path / "latest") == f"2026-01-02T030405Z-quickstart-{run_id}"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "2026-01-02T030405Z-quickstart-1",
        "2026-01-02T030405Z-quickstart-2",
        "latest",
    ]


def test_a_run_never_writes_into_the_folder_of_another(tmp_path: Path, folder: RunFolder) -> None:
    with pytest.raises(InfrastructureError, match="File exists"):
        RunFolder(tmp_path / "runs", "quickstart", STARTED, "a1b2c3")


def test_a_directory_called_latest_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    with pytest.raises(InfrastructureError, match=r"cannot write .*latest: Is a directory"):
        RunFolder(tmp_path, "quickstart", STARTED, "1")
    assert (tmp_path / "latest").is_dir()


def test_events_can_be_read_while_the_run_goes_on(folder: RunFolder) -> None:
    trace = Trace("rig")
    trace.subscribe(folder.record)
    trace.emit("step.started", step="fill", detail=Path("x"))
    (line,) = (folder.path / "events.ndjson").read_text().splitlines()
    event = json.loads(line)
    assert event.pop("at") > 0
    assert event == {"name": "step.started", "source": "rig", "fields": {"step": "fill", "detail": "x"}}
    folder.record(Event("step.finished", 1.5, "rig"))
    assert len((folder.path / "events.ndjson").read_text().splitlines()) == 2


def fill_up(folder: RunFolder) -> None:
    """From now on nothing more fits into the events of the folder."""
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), folder._events.fileno())


def test_folder_that_is_full_keeps_the_first_error_and_raises_nothing(folder: RunFolder) -> None:
    folder.record(Event("step.started", 1.0, "rig"))
    recorded = (folder.path / "events.ndjson").read_bytes()
    assert folder.broken is None
    fill_up(folder)
    folder.record(Event("step.finished", 2.0, "rig"))
    first = folder.broken
    assert str(first) == (
        f"cannot write {folder.path}/events.ndjson: No space left on device. Make room, or name another folder for runs."
    )
    folder.record(Event("step.started", 3.0, "rig"))
    assert folder.broken is first
    assert (folder.path / "events.ndjson").read_bytes() == recorded


def test_events_end_with_a_whole_line_when_the_disk_takes_a_part_of_one(tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))

    program = f"""if True:
        from datetime import UTC, datetime
        from pathlib import Path
        from hwvirt.rig.report import RunFolder
        from hwvirt.trace import Event
        folder = RunFolder(Path({str(tmp_path)!r}), "small", datetime.now(UTC), "1")
        for number in range(9):
            folder.record(Event("step.progress", 1.5, "rig", {{"done": number}}))
        print(folder.broken)
    """
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, preexec_fn=limited)
    events = (tmp_path / "latest").resolve() / "events.ndjson"
    assert told.stdout == f"cannot write {events}: File too large. Name another folder for runs.\n"
    lines = events.read_text().splitlines(keepends=True)
    assert [json.loads(line)["fields"]["done"] for line in lines] == [0, 1]
    assert lines[-1].endswith("\n")


def test_a_file_that_cannot_be_written_leaves_nothing_beside_it(folder: RunFolder) -> None:
    (folder.path / "notes" / "x").mkdir(parents=True)  # what nothing can be renamed to
    with pytest.raises(InfrastructureError, match=r"cannot write .*notes: Is a directory"):
        folder.write("notes", b"text")
    assert sorted(path.name for path in folder.path.iterdir()) == ["events.ndjson", "notes"]


def test_report_json_says_what_was_checked(folder: RunFolder) -> None:
    folder.finish(_report())
    report = json.loads((folder.path / "report.json").read_bytes())
    assert (report["schema"], report["rig"], report["seed"], report["verdict"], report["exit_code"]) == (
        1,
        "quickstart",
        42,
        "broken",
        1,
    )
    assert report["counts"]["acknowledged"] == 3
    assert report["properties"]["exact"] == {"verdict": "held", "checked": 20, "total": 0, "violations": [], "reason": ""}
    assert report["properties"]["content"]["violations"] == [{"kind": "stale", "lba": 12}]
    assert report["properties"]["consistent"]["verdict"] == "not-checked"
    assert report["cards"] == json.loads(json.dumps([CARD.as_dict()]))
    assert [step["failure"] for step in report["steps"]] == ["", "link lost\x00", ""]
    assert report["started"] == "2026-01-02T03:04:05+00:00"


def test_cards_txt_is_for_people_and_only_there_when_there_are_cards(folder: RunFolder) -> None:
    folder.finish(_report(cards=()))
    assert not (folder.path / "cards.txt").exists()
    folder.finish(_report())
    assert (folder.path / "cards.txt").read_text() == CARD.text() + "\n"


def test_junit_has_a_suite_for_each_scenario_and_one_for_the_properties(folder: RunFolder) -> None:
    folder.finish(_report())
    suites = Xml.parse(folder.path / "junit.xml").getroot()
    assert [(suite.get("name"), suite.get("tests")) for suite in suites] == [
        ("first story", "2"),
        ("second story", "1"),
        ("properties", "3"),
    ]
    story, blocked, properties = suites
    assert story.find("testcase[2]/error").attrib == {"message": "link lost?"}  # type: ignore[union-attr]  # None fails too
    assert (story.get("errors"), blocked.get("skipped")) == ("1", "1")
    assert (properties.get("failures"), properties.get("errors"), properties.get("skipped")) == ("1", "1", "0")
    assert properties.findtext("testcase[@name='content']/failure") == CARD.text()


def test_the_lock_file_keeps_its_order(folder: RunFolder) -> None:
    folder.lock({"seed": 42, "disks": {"first": {"serial": "ZL2001"}}})
    text = (folder.path / "rig.lock.yaml").read_text()
    assert text.startswith("seed: 42\n")
    writer = crc32c(b"2026-01-02T030405Z-quickstart-a1b2c3")
    assert yaml.safe_load(text) == {"seed": 42, "disks": {"first": {"serial": "ZL2001"}}, "writer": writer}


def test_a_file_is_replaced_whole_and_nothing_is_left_beside(folder: RunFolder) -> None:
    for content in (b"old", b"new"):
        folder.write("kernel.log", content)
        assert (folder.path / "kernel.log").read_bytes() == content
    assert sorted(path.name for path in folder.path.iterdir()) == ["events.ndjson", "kernel.log"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(InfrastructureError, match=r"cannot write .*/runs/.*: Not a directory\. Name another folder"):
        RunFolder(tmp_path / "runs", "quickstart", STARTED, "1")
    assert stat.S_ISREG((tmp_path / "runs").stat().st_mode)


def test_one_property_over_many_judgements_adds_up_and_keeps_the_worst() -> None:
    many = tuple(CARD for _ in range(CARDS_KEPT))
    broken = Verdict(Property.CONTENT, Outcome.BROKEN, 8, 30, many)
    properties, cards = summarize([broken, Verdict(Property.CONTENT, Outcome.HELD, 2), broken])
    found = properties["content"]
    assert (found.verdict, found.checked, found.total, len(found.violations)) == ("broken", 18, 60, CARDS_KEPT)
    assert len(cards) == 2 * CARDS_KEPT
    assert properties == {"content": PropertyReport("broken", 18, 60, found.violations)}


def test_provenance_names_program_python_kernel_and_libraries() -> None:
    found = provenance()
    assert found["hwvirt"] == hwvirt.__version__
    assert {"python", "kernel", "machine", "numpy", "uvloop", "msgspec", "crc32c"} <= set(found)
