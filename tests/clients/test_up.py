"""`hwvirt up`: how it begins, and how it ends whatever goes on."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwvirt.controller.ask import call

from .kit import END_S, PROGRAM, ROOT, good, rig_up, started

QUICKSTART = ROOT / "rigs/quickstart.yaml"


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Sockets need a short path."""
    with tempfile.TemporaryDirectory(prefix="hv-") as folder:
        yield Path(folder)


def test_hosts_that_are_still_there_do_not_keep_the_rig_up() -> None:
    if shutil.which("fio") is None:
        pytest.skip("fio is missing: tools/setup installs it")
    with rig_up(QUICKSTART) as up:
        job = ("--ioengine=nbd", "--rw=randrw", "--iodepth=32", "--bs=4k", "--size=8M", "--time_based", "--runtime=60")
        with started("fio", "--name=x", *job, f"--uri={up.uri('a', 0)}") as host:
            while up.status("a")["luns"][0]["counters"]["writes"] < 100:
                assert host.poll() is None
            up.end()
            host.kill()


def test_controller_that_dies_takes_the_rig_down_and_its_log_stays_until_somebody_removes_it() -> None:
    with rig_up(QUICKSTART) as up:
        os.kill(up.pids["b"], signal.SIGKILL)
        up.process.communicate(timeout=END_S)
        assert up.process.returncode == 4
        said = up.errors.read_text()
        ((log, folder),) = re.findall(
            r"^hwvirt: controller b was killed by SIGKILL\. Its log: (\S+)\. The logs are left in (\S+)\. "
            r"Remove it when you have read them\.$",
            said,
            flags=re.MULTILINE,
        )
        assert "b        link.started" in Path(log).read_text()
        assert {path.name for path in Path(folder).iterdir()} >= {"a.log", "b.log", "a.json", "b.json"}
        assert not Path(f"/proc/{up.pids['a']}").exists()
        assert not up.socket("a").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_people_are_told_how_to_reach_each_lun(short_folder: Path, number: signal.Signals) -> None:
    with started(*PROGRAM, "up", QUICKSTART, TMPDIR=str(short_folder), COLUMNS="60") as process:
        assert process.stdout is not None
        told: list[str] = []
        while not told or "Ctrl-C takes it down" not in told[-1]:
            told.append(process.stdout.readline())
            assert told[-1], process.communicate()[1]
        uris = re.findall(r"([ab]/\d) .*(nbd://127\.0\.0\.1:\d+/lun\d) ", "".join(told))
        assert [lun for lun, _ in uris] == ["a/0", "a/1", "a/2", "b/0"]
        sockets = re.findall(r"^controller [ab]: .* watch (\S+)$", "".join(told), flags=re.MULTILINE)
        assert [Path(path).is_socket() for path in sockets] == [True, True]
        good("nbdinfo", "--size", uris[0][1])
        process.send_signal(number)
        _, said = process.communicate(timeout=END_S)
    assert process.returncode == 0
    for what in ("started", "stopped"):
        told_by = re.findall(rf"^([ab]) +controller\.{what} +pid=\d+\b", said, flags=re.MULTILINE)
        assert sorted(told_by) == ["a", "b"]
    assert list(short_folder.iterdir()) == []


def test_interrupted_while_it_comes_up_it_leaves_nothing(short_folder: Path) -> None:
    with started(*PROGRAM, "up", QUICKSTART, "--json", TMPDIR=str(short_folder)) as process:
        while not list(short_folder.glob("hwvirt-*/b.log")):
            assert process.poll() is None
        process.terminate()
        out, said = process.communicate(timeout=END_S)
    assert (process.returncode, out, said) == (130, "", "")
    assert list(short_folder.iterdir()) == []


def test_killed_it_takes_its_controllers_with_it() -> None:
    with rig_up(QUICKSTART) as up:
        running = [os.pidfd_open(pid) for pid in up.pids.values()]
        up.process.kill()
        up.process.communicate(timeout=END_S)
        for controller in running:
            assert select.select([controller], [], [], END_S)[0], "a controller goes on without its rig"
            os.close(controller)
        assert "link.down" in up.log("b")


def test_it_outlives_its_terminal_where_nohup_says_so() -> None:
    words = [*PROGRAM, "up", str(QUICKSTART), "--json"]
    with started("nohup", *words) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGHUP)
        assert call(told["controllers"]["a"]["socket"], "status")["ready"]
        process.terminate()
        process.communicate(timeout=END_S)
    assert process.returncode == 0
