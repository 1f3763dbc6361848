"""The shell of the lab speaks with a terminal and ends with its exit status."""

import os
import select
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
    read_until(ours, b"lab:/mnt# ")
    os.write(ours, b"echo $(uname -n)-$((6 * 7))\r")
    read_until(ours, b"lab-42\r\n")
    os.write(ours, b"exit 7\r")
    thread.join(20)
    os.close(ours)
    os.close(terminal)
    assert status == [7]
