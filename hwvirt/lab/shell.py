"""A look around in a kernel of the lab, from the terminal of whoever asks."""

from __future__ import annotations

import os
import select
import socket
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hwvirt.lab.cables import SerialEnd
from hwvirt.lab.jobs import Job
from hwvirt.lab.kernel import Kernel
from hwvirt.lab.pacer import Pacer
from hwvirt.lab.process import LabError
from hwvirt.units import FOREVER, Deadline

__all__ = ["shell"]

_INPUT_BYTES = 256
_OUTPUT_BYTES = 1 << 16
_INPUT_BYTES_PER_S = 20_000.0  # a guest's serial line does not survive a pasted page at full speed
_END_OF_INPUT = b"\x04"  # as a terminal says it
_QUIET_S = 1.0
_COMMAND = """
exec 3>&1 </dev/ttyS0 >/dev/ttyS0 2>&1
stty sane rows {rows} cols {columns}
echo ready >&3  # what arrives before the line is open is lost
exec 3>&-
exec bash --norc -i
"""
_BOOT_S = 30.0


def shell(
    directory: Path,
    *,
    memory_bytes: int = 256 << 20,
    disks: Sequence[Path] = (),
    terminal_in: int = 0,
    terminal_out: int = 1,
) -> int:
    """Boots a kernel with a shell on the terminal; the power goes when the shell ends. Returns the shell's exit status.

    In the shell: `modprobe`, our Python and `hwvirt` on the path, /mnt is `directory`/share. Raises LabError.
    """
    near, far = socket.socketpair()
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/run/bin:{os.defpath}:/usr/sbin:/sbin",
        "PS1": r"lab:\w\$ ",
        "TERM": os.environ.get("TERM", "linux"),
    }
    kernel = Kernel(
        "lab",
        directory,
        memory_bytes=memory_bytes,
        cables=[SerialEnd(near)],
        disks=disks,
        environment=environment,
        boot_place=directory,
    )
    with near, far, kernel:
        columns, rows = os.get_terminal_size(terminal_out) if os.isatty(terminal_out) else (0, 0)
        size = {"rows": rows or 24, "columns": columns or 80}  # a terminal that nobody has sized has nothing
        job = kernel.start(["busybox", "sh", "-c", _COMMAND.format(**size)])
        job.line(Deadline.after(_BOOT_S))
        threading.Thread(target=_hang_up_after, args=(job, far), daemon=True).start()
        with _raw(terminal_in):
            _relay(terminal_in, terminal_out, far)
        return job.wait(FOREVER)


def _hang_up_after(job: Job, wire: socket.socket) -> None:
    """Whether the shell ends by itself or with its kernel: `shell` waits for the job too, and raises."""
    with suppress(LabError):
        job.wait(FOREVER)
    wire.shutdown(socket.SHUT_RDWR)


def _relay(terminal_in: int, terminal_out: int, wire: socket.socket) -> None:
    """Carries keys to the guest and its answers back, until the line is hung up."""
    pacer = Pacer(_INPUT_BYTES_PER_S)
    sources: list[int | socket.socket] = [terminal_in, wire]
    while True:
        ready, _, _ = select.select(sources, [], [], None if terminal_in in sources else _QUIET_S)
        if not ready:
            wire.sendall(_END_OF_INPUT)  # said when the shell is quiet: what comes before its prompt is lost
        elif wire in ready:
            output = wire.recv(_OUTPUT_BYTES)
            if not output:
                return
            os.write(terminal_out, output)
        elif terminal_in in ready:
            keys = os.read(terminal_in, _INPUT_BYTES)
            if not keys:
                sources.remove(terminal_in)
                continue
            time.sleep(max(0.0, pacer.gone_at(len(keys), time.monotonic()) - time.monotonic()))
            wire.sendall(keys)


@contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """Keys go through one by one, unless the terminal is none."""
    if not os.isatty(terminal):
        yield
        return
    before = termios.tcgetattr(terminal)
    tty.setraw(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
