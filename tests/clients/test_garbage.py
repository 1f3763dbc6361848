"""Ten thousand bad clients at each port of a live rig: it serves on, stays as small, and a good client does not notice."""

from __future__ import annotations

import itertools
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvloop

from hwvirt.controller.ask import call
from hwvirt.host.nbd import server

from .junk import control_junk, link_junk, nbd_junk, throw
from .kit import RigUp, fio, rig_up

INPUTS = 10_000
WARM_UP = 2_000
MOST_GROWTH_BYTES = 24 << 20  # freed buffers stay with the process; a leak of 3 KiB for each bad client is found

RIG = """\
rig: garbage
disks:
  first:  {loop: {size: 32MiB}}
  second: {loop: {size: 64MiB}}
controllers:
  a: {disk: first, luns: {0: {redirect: {size: 16MiB}}, 7: {redirect: {size: 16MiB}}}}
  b: {disk: second, luns: {0: {own: {size: 8MiB}}}}
scenarios:
  - {name: nothing, steps: [{judge: all}]}
"""


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RigUp]:
    """LUN 0 is for bad clients, LUN 7 for the good one; both are redirected."""
    path = tmp_path_factory.mktemp("garbage") / "garbage.yaml"
    path.write_text(RIG)
    with rig_up(path) as up:
        yield up


@contextmanager
def good_client(rig: RigUp, folder: Path) -> Iterator[Callable[[], None]]:
    """fio writes and verifies LUN 7 again and again. The check that is given fails as soon as fio has failed."""
    job = ("--rw=randrw", "--verify=crc32c", "--iodepth=8", "--bs=4k", "--size=4M", "--fsync=64")
    enough = threading.Event()
    rounds: list[int] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for seed in itertools.count(1):
                if enough.is_set():
                    return
                (told,) = fio(folder, (f"--uri={rig.uri('a', 7)}", f"--randseed={seed}", *job))
                rounds.append(told["read"]["io_bytes"])
        except BaseException as failure:
            failures.append(failure)

    def check() -> None:
        if failures:
            raise failures[0]

    working = threading.Thread(target=work)
    working.start()
    try:
        yield check
    finally:
        enough.set()
        working.join()
    check()
    assert len(rounds) >= 2


def sizes(rig: RigUp) -> dict[str, int]:
    """Memory of both controllers, with nothing kept for a flush."""
    for lun in (0, 7):
        call(rig.socket("a"), "flush", {"lun": lun})
    return {name: rig.resident_bytes(name) for name in rig.pids}


def suffer(rig: RigUp, folder: Path, port: int, junk: Iterator[bytes]) -> None:
    with good_client(rig, folder) as check:
        uvloop.run(throw(port, junk, WARM_UP, check))
        before = sizes(rig)
        uvloop.run(throw(port, junk, INPUTS - WARM_UP, check))
        after = sizes(rig)
    growth = {name: after[name] - before[name] for name in before}
    assert max(growth.values()) < MOST_GROWTH_BYTES, growth
    assert rig.process.poll() is None
    for name in rig.pids:
        assert "Traceback" not in rig.log(name)


def test_garbage_at_the_nbd_port_harms_nobody(rig: RigUp, tmp_path: Path) -> None:
    suffer(rig, tmp_path, rig.port("a", 0), nbd_junk(random.Random(1)))
    said = rig.log("a")
    assert said.count(" nbd.dropped ") > INPUTS // 4
    assert said.count(" nbd.opened ") > INPUTS // 10  # and some of it was understood well enough to reach an export
    assert " nbd.failed " not in said


def test_garbage_at_the_link_port_harms_nobody(rig: RigUp, tmp_path: Path) -> None:
    before = rig.status("b")["link"]
    port = int(rig.config("b")["link"]["port"])
    suffer(rig, tmp_path, port, link_junk(random.Random(2)))
    after = rig.status("b")["link"]
    assert (after["state"], after["reconnects"], after["epoch"]) == ("up", 0, before["epoch"])


def test_garbage_at_the_control_socket_harms_nobody(rig: RigUp) -> None:
    chance = random.Random(3)
    with socket.socket(socket.AF_UNIX) as asking, asking.makefile("rb") as answers:
        asking.settimeout(20)
        asking.connect(str(rig.socket("a")))
        for line in itertools.islice(control_junk(chance), 3_000):
            if line.count(b"\n") != 1 or b"events" in line:
                continue  # more than one answer comes, or a stream
            asking.sendall(line)
            answer = answers.readline()
            assert answer.startswith((b'{"ok":false,"error":"', b'{"ok":true,"result":')), (line, answer)
            assert b"internal error" not in answer, (line, answer)
    assert call(rig.socket("a"), "status")["ready"]


@pytest.mark.parametrize(
    "said",
    [b"x" * (1 << 20), b'{"verb": "status"}' * 10_000, b'{"a":' + b"[" * 60_000 + b"\n", b"\xff\n" * 1000, b"\n" * 1000],
    ids=["endless line", "endless request", "deep", "no text", "empty lines"],
)
def test_line_without_end_and_lines_without_sense_end_or_are_answered(rig: RigUp, said: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(20)
        asking.connect(str(rig.socket("a")))
        try:
            asking.sendall(said)
            asking.shutdown(socket.SHUT_WR)
            while asking.recv(1 << 16):
                pass
        except ConnectionError:
            pass  # hung up on in the middle of it
    assert call(rig.socket("a"), "status")["ready"]
    assert "Traceback" not in rig.log("a")


def test_silent_connections_keep_no_good_client_out(rig: RigUp, tmp_path: Path) -> None:
    ports = (rig.port("a", 0), int(rig.config("b")["link"]["port"]))
    silent = [socket.create_connection(("127.0.0.1", port)) for port in ports for _ in range(server._MAX_CONNECTIONS + 6)]
    try:
        fio(tmp_path, (f"--uri={rig.uri('a', 7)}", "--rw=randrw", "--verify=crc32c", "--bs=4k", "--size=1M"))
    finally:
        for connection in silent:
            connection.close()
