"""The shell of the lab speaks with a terminal and ends with its exit status."""

import os
import select
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hwvirt.lab.shell import shell

pytestmark = pytest.mark.lab


def read_until(fd: int, wanted: bytes) -> bytes:
    seen = b""
    while wanted not in seen:
        assert select.select([fd], [], [], 20)[0], seen
        seen += os.read(fd, 4096)
    return seen


def test_a_shell_in_a_kernel_takes_keys_and_returns_its_status(tmp_path: Path) -> None:
    ours, terminal = os.openpty()
    before = os.get_terminal_size(terminal)
    assert before.columns == 0
    status: list[int] = []
    thread = threading.Thread(target=lambda: status.append(shell(tmp_path, terminal_in=terminal, terminal_out=terminal)))
    thread.start()
    assert b"stty" not in read_until(ours, b"lab:/mnt# "), "a terminal that has no size yet is no mistake"
    os.write(ours, b"echo $(uname -n)-$((6 * 7))\r")
    read_until(ours, b"lab-42\r\n")
    os.write(ours, b"exit 7\r")
    thread.join(20)
    os.close(ours)
    os.close(terminal)
    assert status == [7]


def test_command_boots_a_kernel_with_a_shell_and_ends_with_its_status(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"on the disk".ljust(1 << 20, b"\0"))
    command = [sys.executable, "-m", "hwvirt", "lab", "shell", "--disk", str(image), "--memory", "128MiB"]
    keys = "head -c 11 /dev/ubda; echo; echo $(uname -n)-$((6 * 7)); exit 7\n"
    done = subprocess.run(command, input=keys, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (7, "")
    assert "on the disk\n" in done.stdout.replace("\r", "")
    assert "lab-42\n" in done.stdout.replace("\r", "")


def test_kernel_without_memory_is_usage() -> None:
    command = [sys.executable, "-m", "hwvirt", "lab", "shell", "--memory", "1MiB"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = "hwvirt: --memory: a kernel does not boot with 1MiB. Give it 64MiB or more.\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_a_shell_that_gets_no_keys_ends() -> None:
    command = [sys.executable, "-m", "hwvirt", "lab", "shell"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
