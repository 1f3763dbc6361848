"""How a run ends: its exit code, its word, the one reason that it gives, and nothing of it is left behind (see kit.run)."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwvirt.controller.ask import call
from hwvirt.errors import ExitCode
from hwvirt.rig import bench
from hwvirt.trace import Event
from tests.rig.run.kit import (
    CRASH_B,
    FILL,
    JUDGE,
    REDIRECT,
    Ran,
    Spectator,
    rig_of,
    run,
    workload,
)


def small(*steps: str, expect: str = "{}") -> str:
    return rig_of(*steps, first="256KiB", second="1MiB", expect=expect)


def ending(ran: Ran) -> tuple[ExitCode, str, str]:
    """Exit code, its word and the reason; where its folder comes in, FOLDER stands."""
    return ran.code, ran.report["verdict"], ran.reason.replace(str(ran.folder), "FOLDER")


def test_properties_that_hold_are_a_pass(tmp_path: Path) -> None:
    ran = run(small(FILL, REDIRECT, workload(100, blocks="1..1"), JUDGE, expect='{acknowledged: ">= 50"}'), tmp_path)
    assert (ran.code, ran.report["verdict"], ran.report["reasons"]) == (ExitCode.PASSED, "passed", [])
    assert [step["failure"] for step in ran.report["steps"]] == [""] * 4
    assert not any(step["blocked"] for step in ran.report["steps"])


# Nothing, or too little.


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([JUDGE], "no property was judged"),
        ([FILL, REDIRECT, workload(20, blocks="1..1")], "no property was judged"),
        ([FILL, "judge: [exact]"], "exact was not checked: map or ledger was not taken"),
        ([FILL, REDIRECT, "judge: [content]"], "content was not checked: nothing is redirected"),
    ],
    ids=["nothing was done", "nothing was judged", "nothing was redirected", "nothing was written"],
)
def test_verdict_about_nothing_is_no_pass(steps: list[str], reason: str, tmp_path: Path) -> None:
    ran = run(small(*steps), tmp_path)
    assert ending(ran) == (ExitCode.NOTHING_RAN, "nothing-ran", reason)
    assert ran.report["cards"] == []


def test_less_than_expected_is_no_pass_and_says_what_was_expected_and_counted(tmp_path: Path) -> None:
    ran = run(small(FILL, REDIRECT, workload(100, blocks="1..1"), JUDGE, expect='{acknowledged: ">= 5000"}'), tmp_path)
    counted = ran.report["counts"]["acknowledged"]
    assert 50 < counted < 100
    reason = f"expected acknowledged >= 5000, counted {counted} in scenario 'a small story'"
    assert ending(ran) == (ExitCode.NOTHING_RAN, "nothing-ran", reason)
    assert set(ran.verdicts.values()) == {"held"}


# Disks, ports and processes that do not do their part.


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield int(holder.getsockname()[1])


def test_link_port_that_another_program_has(taken_port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "_free_port", lambda: taken_port)
    ran = run(small(FILL, JUDGE), tmp_path)
    assert ending(ran) == (
        ExitCode.INFRASTRUCTURE,
        "infrastructure",
        f"controller b did not start: link: 127.0.0.1:{taken_port} is taken by another program. "
        "Choose another port, or end that program. Its log: FOLDER/b.log.",
    )
    assert [step["blocked"] for step in ran.report["steps"]] == [True, True]


def test_disk_that_is_gone_when_its_controller_starts_again(tmp_path: Path) -> None:
    def pull(event: Event, spectator: Spectator) -> None:
        if event.name == "step.started" and event.fields["name"] == "crash":
            (spectator.folder / "disks/second.img").unlink()

    ran = run(small(FILL, CRASH_B, JUDGE), tmp_path, on_event=pull)
    assert ending(ran) == (
        ExitCode.INFRASTRUCTURE,
        "infrastructure",
        "controller b did not start: controller b: disk second: cannot open FOLDER/disks/second.img: "
        "No such file or directory. Correct `disk` in its configuration. Its log: FOLDER/b.log.",
    )
    assert [(step["name"], bool(step["failure"]), step["blocked"]) for step in ran.report["steps"]] == [
        ("fill", False, False),
        ("crash", True, False),
        ("judge", False, True),
    ]


def test_real_disk_that_is_not_there_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    disk = "second: {sg: {wwn: naa.5000000000000009, size: 1MiB, block: 4KiB, window: {lba: 0, blocks: 256}}}"
    lines = [f"  {disk}" if line.startswith("  second:") else line for line in small(FILL, JUDGE).splitlines()]
    ran = run("\n".join(lines), tmp_path)
    assert ending(ran) == (
        ExitCode.REFUSED,
        "refused",
        "refusing disk second of rig small: no disk here has wwn naa.5000000000000009. "
        "Plug it in; `hwvirt scan` shows what is here.",
    )
    assert not list(ran.folder.glob("*.log"))


@pytest.mark.parametrize("beside", ["", "\n        while: {backup: {lun: 1}}"], ids=["alone", "beside a backup"])
@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize(
    ("number", "how"),
    [
        (signal.SIGKILL, "was killed by SIGKILL."),
        (signal.SIGTERM, "ended by itself with code 0: somebody has stopped it."),
    ],
    ids=["SIGKILL", "SIGTERM"],
)
def test_controller_that_ends_by_itself_ends_the_run(name: str, number: int, how: str, beside: str, tmp_path: Path) -> None:
    def kill(event: Event, spectator: Spectator) -> None:
        if event.name == "step.progress" and event.fields["total"] == 300_000 and not killed:
            pid = call(spectator.socket(name), "status")["pid"]
            killed.append(pid)
            os.kill(pid, number)

    killed: list[int] = []
    ran = run(small(FILL, REDIRECT, workload(300_000, blocks="1..1") + beside, JUDGE), tmp_path, on_event=kill)
    reason = f"controller {name} {how} Its log: FOLDER/{name}.log."
    assert ending(ran) == (ExitCode.INFRASTRUCTURE, "infrastructure", reason)
    workload_step = ran.report["steps"][2]
    assert (workload_step["name"], workload_step["failure"].replace(str(ran.folder), "FOLDER")) == ("workload", reason)
    assert ran.report["steps"][3]["blocked"]
    assert ran.report["counts"]["acknowledged"] > 0  # what was counted until then is told


def test_commit_whose_store_is_stopped_does_not_wait_for_it(tmp_path: Path) -> None:
    def stop(event: Event, spectator: Spectator) -> None:
        if event.name == "redirect.state" and event.fields["state"] == "committing":
            os.kill(spectator.pids["b"], signal.SIGTERM)

    work = workload(1000, mix="100/0/0/0")
    text = rig_of(FILL, REDIRECT, work, "commit: {lun: 0}", JUDGE, first="16MiB", second="32MiB", link="stall: 60s")
    ran = run(text, tmp_path, on_event=stop)
    reason = "controller b ended by itself with code 0: somebody has stopped it. Its log: FOLDER/b.log."
    assert ending(ran) == (ExitCode.INFRASTRUCTURE, "infrastructure", reason)


def test_controller_that_is_silent_for_long_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(event: Event, spectator: Spectator) -> None:
        if event.name == "step.progress" and event.fields["total"] == 300_000 and not stopped:
            stopped.append(call(spectator.socket("b"), "status")["pid"])
            os.kill(stopped[0], signal.SIGSTOP)

    monkeypatch.setattr("hwvirt.rig.runner._SILENCE_S", 2.0)
    monkeypatch.setattr("hwvirt.rig.bench.STOP_S", 1.0)
    monkeypatch.setattr("hwvirt.rig.bench._KILL_S", 2.0)
    stopped: list[int] = []
    ran = run(small(FILL, REDIRECT, workload(300_000, blocks="1..1"), JUDGE), tmp_path, on_event=stop)
    reason = "controller b has not answered for 2 s. Its log: FOLDER/b.log."
    assert ending(ran) == (ExitCode.INFRASTRUCTURE, "infrastructure", reason)


def test_fault_that_never_strikes_is_no_pass(tmp_path: Path) -> None:
    fault = "after: {acknowledged: 99}, crash: b"
    ran = run(small(FILL, REDIRECT, workload(100, fault, blocks="1..1", mix="40/60/0/0"), JUDGE), tmp_path)
    assert ending(ran) == (
        ExitCode.INFRASTRUCTURE,
        "infrastructure",
        "faults that never struck: crash b after 99 acknowledged. "
        "Give the workload more operations, or the faults an earlier moment.",
    )
