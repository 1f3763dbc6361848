"""The files for udev and systemd arrive with the program's own place in them, and are what those programs take."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hwvirt.disk.guard.install import Activation, check, install, installed_files, put_in_force
from hwvirt.errors import InfrastructureError

ROOT = Path(__file__).parents[3]
PYTHON = "/opt/hwvirt/bin/python"
SYSTEMD = {"systemd-sysusers": ["systemd-sysusers"], "systemd-tmpfiles": ["systemd-tmpfiles", "--create"]}


def state(root: Path, python: str = PYTHON) -> dict[str, tuple[bool, str]]:
    return {found.name: (found.ok, found.found) for found in check(root, python)}


def test_every_shipped_file_is_installed(tmp_path: Path) -> None:
    done = list(install(tmp_path, PYTHON))
    assert done == [f"wrote {path}" for path in installed_files(tmp_path, PYTHON)]
    assert len(done) == len(list((ROOT / "udev-rules").iterdir()))
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in installed_files(tmp_path, PYTHON))


def test_rule_and_unit_start_this_program(tmp_path: Path) -> None:
    list(install(tmp_path, PYTHON))
    rules = (tmp_path / "etc/udev/rules.d/71-hwvirt.rules").read_text()
    assert f'IMPORT{{program}}="{PYTHON} -I -m hwvirt.disk.guard.udev $devnode"' in rules
    unit = (tmp_path / "etc/systemd/system/hwvirt-controller@.service").read_text()
    assert f"ExecStart={PYTHON} -m hwvirt controller /etc/hwvirt/%i.json" in unit
    assert "/usr/bin" not in rules + unit


def test_script_beside_python_is_taken_where_there_is_one(tmp_path: Path) -> None:
    script = tmp_path / "bin/hwvirt"
    script.parent.mkdir()
    script.touch()
    files = installed_files(tmp_path, str(tmp_path / "bin/python"))
    unit = files[tmp_path / "etc/systemd/system/hwvirt-controller@.service"]
    assert f"ExecStart={script} controller /etc/hwvirt/%i.json" in unit


def test_check_tells_missing_old_and_sound_files(tmp_path: Path) -> None:
    rules = tmp_path / "etc/udev/rules.d/71-hwvirt.rules"
    assert state(tmp_path)["rules.d/71-hwvirt.rules"] == (False, f"{rules}: No such file or directory")
    list(install(tmp_path, PYTHON))
    assert state(tmp_path)["rules.d/71-hwvirt.rules"] == (True, str(rules))
    assert state(tmp_path, "/usr/bin/python3")["rules.d/71-hwvirt.rules"] == (False, f"{rules} differs from this version's")


def test_command_that_fails_is_told_and_the_others_are_run(tmp_path: Path) -> None:
    activations = (
        Activation(("sh", "-c", "echo no such unit >&2; exit 3")),
        Activation(("no-such-program", "reload")),
        Activation(("true", "control"), tmp_path / "nobody"),
        Activation(("true", "trigger"), tmp_path),
    )
    told = []
    with pytest.raises(InfrastructureError) as failed:
        for line in put_in_force(activations):
            told.append(line)
    assert told[0] == "failed with status 3 (no such unit): sh -c echo no such unit >&2; exit 3"
    assert told[1:] == list(put_in_force(activations[1:]))
    assert str(failed.value) == (
        "the files are written, and 1 of the commands that put them in force failed. "
        "Run those by hand, then see hwvirt udev check."
    )
    assert list(put_in_force(activations[1:])) == [
        "left out no-such-program reload: there is no no-such-program",
        f"left out true control: there is no {tmp_path}/nobody, so there is nobody to tell",
        "ran true trigger",
    ]


def test_root_that_may_not_be_written_is_told_with_the_next_step() -> None:
    with pytest.raises(InfrastructureError) as refused:
        list(install(Path("/proc"), PYTHON))  # not even root may write there
    assert str(refused.value) == (
        "cannot write /proc/etc/udev/rules.d/71-hwvirt.rules: No such file or directory. "
        "Run it as root, or name another --root, where you may write."
    )


def test_folder_in_the_place_of_a_file_is_told_too(tmp_path: Path) -> None:
    unit = tmp_path / "etc/systemd/system/hwvirt-controller@.service"
    unit.mkdir(parents=True)
    with pytest.raises(InfrastructureError, match=rf"^cannot write {re.escape(str(unit))}: Is a directory\. Run it as root"):
        list(install(tmp_path, PYTHON))


def test_program_in_a_home_is_told(tmp_path: Path) -> None:
    assert state(tmp_path, "/home/me/bin/python")["program"] == (
        False,
        "/home/me/bin/python lies in a home, which the service cannot see",
    )


def test_unit_has_no_capability_and_an_unprivileged_user() -> None:
    unit = (ROOT / "udev-rules/hwvirt-controller@.service").read_text().splitlines()
    assert {"CapabilityBoundingSet=", "User=hwvirt", "NoNewPrivileges=yes", "DevicePolicy=closed"} <= set(unit)
    assert not [line for line in unit if line.startswith("AmbientCapabilities")]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is missing")
def test_systemd_takes_the_unit_and_finds_it_well_shut(tmp_path: Path) -> None:
    program = shutil.which("true")
    assert program is not None
    list(install(tmp_path, program))
    unit = tmp_path / "etc/systemd/system/hwvirt-controller@.service"
    verified = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    shut = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)]  # 20: exposure 2.0 of 10
    assert subprocess.run(shut, capture_output=True, check=False).returncode == 0


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="to give folders away takes root")
@pytest.mark.skipif(not all(map(shutil.which, SYSTEMD)), reason="systemd is missing")
def test_systemd_makes_the_user_and_its_folders(tmp_path: Path) -> None:
    list(install(tmp_path, PYTHON))
    for command in SYSTEMD.values():
        subprocess.run([*command, f"--root={tmp_path}"], check=True, capture_output=True)
    name, _, user, group, _, home, shell = (tmp_path / "etc/passwd").read_text().strip().split(":")
    assert (name, home, shell) == ("hwvirt", "/var/lib/hwvirt", "/usr/sbin/nologin")
    assert (tmp_path / "etc/group").read_text().startswith(f"hwvirt:x:{group}:")
    found = {}
    for folder in ("etc/hwvirt", "var/lib/hwvirt", "run/hwvirt"):
        status = (tmp_path / folder).stat()
        found[folder] = (status.st_uid, status.st_gid, status.st_mode & 0o777)
    mine = (int(user), int(group), 0o750)
    assert found == {"etc/hwvirt": (0, *mine[1:]), "var/lib/hwvirt": mine, "run/hwvirt": mine}
