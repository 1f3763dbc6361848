"""`hwvirt explore` as the shell sees it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from hwvirt.cli.explore import explore
from hwvirt.errors import ExitCode, UsageError
from hwvirt.rig.explore.scenario import SCENARIOS
from tests.meta.planting import planted
from tests.rig.explore import defects

PROGRAM = (sys.executable, "-c", "from hwvirt.cli.main import main; main()", "explore")
SHOUTING = (
    "import sys, hwvirt.cli.explored as explored; "
    "explored.Progress.tell = lambda self, outcome: print(outcome.scenario, file=sys.stderr, flush=True)"
)
SMALL = ("late-replies", "--states", "200")


def hwvirt(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, check=False, timeout=60)


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["write-pat"], "no scenario 'write-pat'. Did you mean 'write-path'?"),
        (
            ["xyz"],
            "no scenario 'xyz'. Known: write-path, epoch-change, commit, discard, slow, handshake, late-replies, reuse, "
            "failed-flush.",
        ),
        (["commit", "--depth", "0"], "--depth 0 makes no sense. It is 1 or more."),
        (["commit", "--faults", "-1"], "--faults -1 makes no sense. It is 0 or more."),
        (["commit", "--states", "0"], "--states 0 makes no sense. It is 1 or more."),
        (["commit", "--seed", "-5"], "--seed -5 makes no sense. It is 0 or more."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_usage(arguments: Sequence[str], said: str) -> None:
    result = hwvirt(*arguments)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"hwvirt: {said}\n")


def test_help_names_every_option() -> None:
    result = hwvirt("--help")
    assert result.returncode == 0
    for option in ("--depth", "--faults", "--states", "--seed", "--list", "--json"):
        assert option in result.stdout


def test_scenarios_are_listed() -> None:
    result = hwvirt("--list", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    listed = json.loads(result.stdout)
    assert [one["scenario"] for one in listed] == list(SCENARIOS)
    for one in listed[:2]:
        kinds = ["drop", "double", "reorder", "replay", "cut", "half", "silence", "stall", "crash-a", "crash-b"]
        assert one["fault_kinds"] == kinds


def test_counts_and_the_table_of_the_session_are_shown() -> None:
    result = hwvirt(*SMALL)
    assert (result.returncode, result.stderr) == (0, "")
    lines = words(result.stdout)
    assert lines[0] == ["scenario", "states", "transitions", "depth", "faults", "settled", "judged", "seconds"]
    assert (lines[1][0], lines[1][1], lines[1][4], lines[1][-1]) == ("late-replies", "200", "2", "held")
    assert result.stdout.splitlines()[3].startswith("Steps of the session, by its state and what reaches it: ")
    assert lines[4] == ["A", "hello", "A", "proof", "A", "up", "B", "hello", "B", "proof", "B", "confirm", "B", "up"]
    assert [line[0] for line in lines[5:]][:2] == ["hello", "proof"]


def test_json_is_one_document() -> None:
    result = hwvirt(*SMALL, "--json", "--depth", "30", "--faults", "1", "--seed", "3")
    assert (result.returncode, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    assert document["verdict"] == "passed"
    (one,) = document["scenarios"]
    assert (one["scenario"], one["states"], one["faults"], one["seed"]) == ("late-replies", 200, 1, 3)
    assert one["violation"] is None
    assert len(document["coverage"]) == 7 * 12
    up = {cell["happening"]: cell["visits"] for cell in document["coverage"] if (cell["side"], cell["state"]) == ("A", "up")}
    assert up["reply"] > 0
    assert up["hello"] == 0


def test_violation_is_a_broken_property(capsys: pytest.CaptureFixture[str]) -> None:
    with planted(defects.not_sent_again):
        code = explore(["epoch-change", "late-replies"], None, None, 50, None, listing=False, json=True)
    document = json.loads(capsys.readouterr().out)
    assert (code, document["verdict"]) == (ExitCode.BROKEN, "broken")
    broken, other = (one["violation"] for one in document["scenarios"])
    assert other is None
    assert broken["schedule"] == ["B crashes and starts again, a power cut: what was not durable is lost"]
    assert broken["healing"][0] == "A receives the end of the connection"
    assert broken["replay"] == "hwvirt explore epoch-change --depth 1 --faults 2 --states 50"


def test_violation_is_found_again_by_the_command_that_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with planted(defects.write_done_twice):
        assert explore(["write-path"], None, None, 500, None, json=True) is ExitCode.BROKEN
        (first,) = json.loads(capsys.readouterr().out)["scenarios"]
        command = first["violation"]["replay"].split()
        assert command[:3] == ["hwvirt", "explore", "write-path"]
        depth, faults, states = (int(command[at]) for at in (4, 6, 8))
        assert explore(["write-path"], depth, faults, states, None, json=True) is ExitCode.BROKEN
    (again,) = json.loads(capsys.readouterr().out)["scenarios"]
    assert again["violation"] == first["violation"] | {"replay": again["violation"]["replay"]}


def test_scenario_that_is_named_twice_is_explored_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert explore(["slow", "slow"], 1, None, None, None, json=True) is ExitCode.PASSED
    assert len(json.loads(capsys.readouterr().out)["scenarios"]) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_shows_what_was_found_so_far(number: signal.Signals) -> None:
    program = (PROGRAM[0], "-c", f"{SHOUTING}; {PROGRAM[2]}", "explore", "write-path", "--json")
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == "write-path\n"
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    document = json.loads(out)
    assert (process.returncode, document["verdict"]) == (130, "interrupted")
    assert document["scenarios"][0]["states"] >= 1
    assert err.endswith("hwvirt: interrupted\n")


def test_senseless_bounds_are_refused_before_anything_is_loaded() -> None:
    with pytest.raises(UsageError):
        explore(["nothing"], 0, None, None, None)


