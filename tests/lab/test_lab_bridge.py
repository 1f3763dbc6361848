"""A socket in a guest can be reached from the launcher, and from another kernel."""

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwvirt.lab.bridge import Bridge
from hwvirt.lab.kernel import Kernel
from hwvirt.units import Deadline

pytestmark = pytest.mark.lab

SERVER = r"""
import socket
listener = socket.socket(socket.AF_UNIX)
listener.bind("/run/test.sock")
listener.listen()
print("ready", flush=True)
while True:
    connection, _ = listener.accept()
    with connection, connection.makefile() as lines:
        for line in lines:
            answer = line.strip().upper() * (1000 if line == "long\n" else 1)
            connection.sendall(f"{answer}\n".encode())
            if line == "end\n":
                break
"""


def soon() -> Deadline:
    return Deadline.after(20)


@pytest.fixture(scope="module")
def served(kernel: Kernel) -> Iterator[Kernel]:
    job = kernel.start([sys.executable, "-c", SERVER])
    assert job.line(soon()) == "ready"
    yield kernel
    kernel.signal(job, "KILL")


def asked(path: Path, *requests: str) -> list[str]:
    """The answers of one connection, until the other side ends it."""
    with socket.socket(socket.AF_UNIX) as near:
        near.settimeout(20)
        near.connect(str(path))
        near.sendall("".join(f"{request}\n" for request in requests).encode())
        with near.makefile() as lines:
            return lines.read().splitlines()


def test_lines_cross_the_bridge_both_ways_until_the_guest_ends(served: Kernel, tmp_path: Path) -> None:
    with Bridge(served, tmp_path / "near", "/run/test.sock"):
        assert asked(tmp_path / "near", "one", "two words", "end") == ["ONE", "TWO WORDS", "END"]
        assert asked(tmp_path / "near", "x" * 3000, "long", "end") == ["X" * 3000, "LONG" * 1000, "END"]
    assert not (tmp_path / "near").exists()


def test_a_bridge_without_a_far_side_ends_its_connection(served: Kernel, tmp_path: Path) -> None:
    with Bridge(served, tmp_path / "near", "/run/nothing.sock"):
        assert asked(tmp_path / "near") == []


def test_a_relay_in_the_guest_turns_a_unix_socket_into_a_port(served: Kernel, tmp_path: Path) -> None:
    relay = served.start([sys.executable, "-m", "hwvirt.lab.guest.relay", "127.0.0.1:7000", "/run/test.sock"])
    assert relay.line(soon()) == "listening"
    with Bridge(served, tmp_path / "near", "127.0.0.1:7000"):
        assert asked(tmp_path / "near", "over tcp", "end") == ["OVER TCP", "END"]
    served.signal(relay, "TERM")
    assert relay.wait(soon()) == 128 + 15
