"""What the shell sees: exit codes, where words go, and no traceback."""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from hwvirt.cli.machine import Need, State, examine

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-c", "from hwvirt.cli.main import main; main()")


def hwvirt(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


def test_help_names_every_command_and_every_exit_code() -> None:
    result = hwvirt("--help")
    assert result.returncode == 0
    for command in ("run", "up", "check", "explore", "controller", "ctl", "watch", "doctor", "new"):
        assert f"\n  {command} " in result.stdout
    assert "2 usage or rig file" in " ".join(result.stdout.split())


def test_help_loads_no_engine() -> None:
    slow = "{'numpy', 'uvloop', 'yaml', 'rich.console', 'msgspec', 'asyncio'} & set(sys.modules)"
    check = f"import sys, hwvirt.cli.main; sys.exit(sorted({slow}) or 0)"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


def test_interruption_while_the_program_is_being_loaded_is_no_traceback() -> None:
    program = """
import sys

class Interrupting:
    def find_spec(self, name, *_):
        if name == "typer":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
from hwvirt.__main__ import main
main()
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def test_version_is_told() -> None:
    result = hwvirt("--version")
    assert (result.returncode, result.stdout) == (0, "hwvirt 0.1.0\n")


@pytest.mark.parametrize(
    "arguments",
    [
        *((), ("runn",), ("check",), ("check", "a", "b"), ("new",), ("ctl", "socket")),
        *(("run", "rigs/own.yaml", "--seed", seed) for seed in ("x", str(1 << 63))),
        *(("udev", verb, "--root", "none") for verb in ("install", "check")),
    ],
    ids=" ".join,
)
def test_wrong_command_line_is_usage(arguments: tuple[str, ...]) -> None:
    result = hwvirt(*arguments)
    assert result.returncode == 2
    assert "Usage: hwvirt" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_mistyped_command_is_told_the_right_one() -> None:
    assert "Did you mean 'check'?" in hwvirt("chekc").stderr


@pytest.mark.parametrize("command", ["run", "up", "check"])
def test_wrong_rig_file_is_usage_with_its_place(command: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("rig: bad\ndiskz: {}\n")
    result = hwvirt(command, "bad.yaml", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == "hwvirt: bad.yaml:2:1: unknown key 'diskz'. Did you mean 'disks'?\n"


WRONG_DISKS = {
    "named by its node": (
        "d: {sg: /dev/sda}",
        "2:17: disks.d.sg: '/dev/sda' is a node, and may be another disk tomorrow. "
        "Name the disk by its wwn or serial, as `hwvirt scan --yaml` prints it.",
    ),
    "window outside": (
        "d: {sg: {wwn: naa.5, size: 1MiB, block: 512B, window: {lba: 2000, blocks: 100}}}",
        "2:63: disks.d.sg.window: ends 52 blocks behind the end of the disk",
    ),
    "named twice": (
        "c: {sg: &c {wwn: naa.5, size: 1MiB, block: 512B, window: {lba: 8, blocks: 8}}}, d: {sg: *c}",
        "2:92: disks.d: is the same disk as c (wwn naa.5). `hwvirt scan` shows which disks are here.",
    ),
}


@pytest.mark.parametrize(
    ("command", "wrong"),
    [*(("check", wrong) for wrong in WRONG_DISKS), *zip(("run", "up", "arm"), WRONG_DISKS, strict=True)],
)
def test_wrong_disk_in_the_rig_file_is_refused_with_its_place(command: str, wrong: str, tmp_path: Path) -> None:
    disks, said = WRONG_DISKS[wrong]
    rest = "controllers: {a: {disk: d, luns: {0: own}}}\nscenarios: [{name: x, steps: [{judge: all}]}]\n"
    (tmp_path / "bad.yaml").write_text(f"rig: bad\ndisks: {{{disks}}}\n{rest}")
    result = hwvirt(command, "bad.yaml", cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (3, "", f"hwvirt: bad.yaml:{said}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_rig_file_that_is_not_there_is_usage() -> None:
    result = hwvirt("check", "rigs/none.yaml")
    assert result.returncode == 2
    assert result.stderr == "hwvirt: cannot read the rig file rigs/none.yaml: No such file or directory.\n"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("check", "/dev/zero is no rig file: it has more than 16 MiB."),
        (
            "controller",
            "/dev/zero is no controller configuration: it has more than 16 MiB. Name a controller configuration file.",
        ),
    ],
)
def test_file_without_an_end_is_not_read_for_ever(word: str, said: str) -> None:
    result = hwvirt(word, "/dev/zero")
    assert (result.returncode, result.stderr) == (2, f"hwvirt: {said}\n")


def test_name_that_the_output_cannot_spell_is_told_all_the_same(tmp_path: Path) -> None:
    rig = os.fsencode(tmp_path) + b"/\xff\xc3\xa4.yaml"
    shutil.copyfile(ROOT / "rigs/own.yaml", rig)
    command: list[str | bytes] = [*PROGRAM, "check", rig]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(os.fsencode(tmp_path) + rb"/\udcff\xe4.yaml: rig own")


def test_check_shows_where_everything_lies() -> None:
    result = hwvirt("check", "rigs/quickstart.yaml")
    assert (result.returncode, result.stderr) == (0, "")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert result.stdout.startswith("rigs/quickstart.yaml: rig quickstart, seed 42, host nbd, link Ethernet, stall 30s\n")
    assert lines[2:7] == [
        ["a", "0", "redirect", "to", "b", "first", "0", "16384", "64MiB"],
        ["a", "1", "frozen", "0", "first", "0", "16384", "64MiB"],
        ["a", "2", "forward", "to", "b/0", "second", "0", "8192", "32MiB"],
        ["b", "0", "own", "second", "0", "8192", "32MiB"],
        ["b", "store", "second", "8192", "24576", "96MiB"],
    ]


def test_controller_that_is_not_there_is_infrastructure(tmp_path: Path) -> None:
    socket = tmp_path / "none.sock"
    result = hwvirt("ctl", str(socket), "status")
    assert result.returncode == 4
    assert result.stdout == ""
    assert result.stderr.startswith(f"hwvirt: {socket}: No such file or directory.")
    assert "Traceback" not in result.stderr


def test_argument_of_a_verb_without_a_value_is_usage(tmp_path: Path) -> None:
    result = hwvirt("ctl", str(tmp_path / "none.sock"), "map", "lun")
    assert result.returncode == 2
    assert result.stderr == "hwvirt: 'lun' is no argument; write it like lun=0\n"


def test_doctor_tells_a_machine_in_json_and_nothing_else() -> None:
    result = hwvirt("doctor", "--json")
    assert result.returncode == 0
    findings = {finding["name"]: finding for finding in json.loads(result.stdout)}
    assert {"python", "kernel", "user", "loop devices", "fio"} <= set(findings)
    assert {"libblkid", "libsgutils2", "SCSI disks"} <= set(findings)
    assert findings["uvloop"]["state"] == "ok"
    assert set(findings["fio"]) == {"name", "state", "need", "detail", "advice"}


@pytest.mark.parametrize("colours", ["", "1"])
def test_doctor_tells_people_the_same_and_cuts_nothing_in_a_pipe(colours: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("FORCE_COLOR", colours)
    result = hwvirt("doctor")
    assert result.returncode == 0
    for finding in json.loads(hwvirt("doctor", "--json").stdout):
        (line,) = [line for line in result.stdout.splitlines() if re.search(rf"\W{re.escape(finding['name'])}  ", line)]
        assert finding["detail"] in line
        assert finding["state"] == "ok" or f"{finding['advice']} ({finding['need']})" in line


def test_doctor_looks_for_every_dependency() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    findings = {finding.name: finding for finding in examine()}
    for name in (re.split(r"\W*>=", dependency)[0] for dependency in declared):
        assert findings[name].state is State.OK, name
        assert findings[name].detail.startswith(metadata.version(name))


def test_doctor_tells_what_is_not_there_or_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _: ["uvloop>=0.19", "not.There>=1", "pytest>=8; extra == 'dev'"])
    monkeypatch.setitem(sys.modules, "uvloop", None)
    missing = [finding for finding in examine() if finding.need is Need.DEFAULT_RIG and finding.state is State.MISSING]
    assert [(finding.name, finding.detail, finding.advice) for finding in missing] == [
        ("uvloop", "import of uvloop halted; None in sys.modules", "tools/setup"),
        ("not.There", "No package metadata was found for not.There", "tools/setup"),
    ]


def test_doctor_bears_a_user_who_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    (user,) = [finding.detail for finding in examine() if finding.name == "user"]
    assert user.startswith(f"user {os.geteuid()}, ")


def test_new_rig_is_a_rig_that_checks(tmp_path: Path) -> None:
    made = hwvirt("new", "rig", "mine", cwd=tmp_path)
    assert (made.returncode, made.stdout) == (0, "mine.yaml is ready: hwvirt run mine.yaml\n")
    checked = hwvirt("check", "mine.yaml", cwd=tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.startswith("mine.yaml: rig mine, ")


def test_new_rig_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("precious")
    result = hwvirt("new", "rig", "mine", cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr == "hwvirt: mine.yaml exists. Choose another name, or remove it first.\n"
    assert (tmp_path / "mine.yaml").read_text() == "precious"


@pytest.mark.parametrize("name", ["my rig", ".hidden", "x" * 49, "none/here"])
def test_new_rig_with_an_unusable_name_is_usage(name: str, tmp_path: Path) -> None:
    result = hwvirt("new", "rig", name, cwd=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("hwvirt: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "unbuffered"),
    [("check rigs/own.yaml", "1"), *((words, "") for words in ("check rigs/own.yaml", "doctor", "scan", "run --help"))],
)
def test_reader_that_went_away_is_told_nothing_and_to_the_shell_it_is_sigpipe(words: str, unbuffered: str) -> None:
    assert run_unread(words, subprocess.PIPE, PYTHONUNBUFFERED=unbuffered) == (141, b"")


@pytest.mark.parametrize(("words", "code"), [("chekc", 141), ("check none.yaml", 2)])
def test_reader_of_both_streams_that_went_away_changes_no_verdict(words: str, code: int) -> None:
    assert run_unread(words, subprocess.STDOUT) == (code, None)


def run_unread(words: str, stderr: int, **environment: str) -> tuple[int, bytes | None]:
    """Exit code and stderr of a command whose output nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [*PROGRAM, *words.split()]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, stdout=writing, stderr=stderr, check=False, timeout=60
    )
    os.close(writing)
    return done.returncode, done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_not_open_are_not_missed(closed: str) -> None:
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *PROGRAM, "check", "rigs/own.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_number_of_a_stream_that_is_not_open_is_given_to_no_file() -> None:
    program = (
        "import os, sys; from hwvirt.cli.exits import ready_standard_streams; ready_standard_streams(); "
        "sys.exit(os.open('/dev/zero', os.O_RDONLY) < 3)"
    )
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", program]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0


def test_stream_that_is_not_open_is_none_that_a_started_program_lacks() -> None:
    child = "import os, sys; sys.exit([fd for fd in range(3) if not os.path.exists(f'/proc/self/fd/{fd}')] or 0)"
    program = (
        "import subprocess, sys; from hwvirt.cli.exits import ready_standard_streams; ready_standard_streams(); "
        f"sys.exit(subprocess.run([sys.executable, '-c', {child!r}]).returncode)"
    )
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", program]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0


@pytest.mark.parametrize("words", ["--help", "run --help", "check rigs/own.yaml", "doctor --json"])
def test_output_that_nobody_can_take_is_told(words: str) -> None:
    with Path("/dev/full").open("w") as full:
        command = [*PROGRAM, *words.split()]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    said = "hwvirt: cannot write the output: No space left on device. Send it somewhere with room.\n"
    assert (done.returncode, done.stderr) == (4, said)
