"""Programs that run in a kernel, each with a serial line of its own to the launcher.

A guest says on the control line "up SECONDS". On the line of a job it passes on what the job writes, and marks of its own:
NUL "pid N" at the start, NUL "exit N" at the end, each closed by a newline. Launcher to guest, a line carries the job's
standard input as it is.
"""

from __future__ import annotations

import os
import re
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from hwvirt.lab.process import KernelProcess, LabError
from hwvirt.units import Deadline

__all__ = ["MOST_INPUT_BYTES", "Job", "Line", "Switchboard"]

MOST_INPUT_BYTES = 2048
"""Of one piece of standard input: a guest's serial line dies for good when about 3900 bytes lie unread."""

_BUFFER_BYTES = 1 << 20
_RECEIVE_BYTES = 1 << 16
_LAST_WORDS = 3
_MARK = re.compile(rb"\0(pid|exit) ([0-9]+)$")


class Job:
    """One program in a kernel: what it writes, its input, its end. Every method may be called from any thread."""

    def __init__(self, name: str, wire: socket.socket, on_line: Callable[[str], None] | None) -> None:
        self.name = name
        self._wire = wire
        self._on_line = on_line
        self._changed = threading.Condition()
        self._lines: deque[str] = deque()
        self._pid = 0
        self._status: int | None = None
        self._lost = False

    @property
    def lost(self) -> bool:
        """Whether the kernel went before the job ended."""
        return self._lost

    @property
    def ended(self) -> bool:
        """Whether there is an exit status."""
        return self._status is not None

    def line(self, deadline: Deadline) -> str | None:
        """The next line of standard output, without its newline; None after the last one. Raises LabError.

        With an `on_line` function nothing comes here: it got every line, in the thread that reads the kernel's lines.
        """
        with self._changed:
            self._wait(lambda: bool(self._lines) or self._status is not None, deadline)
            return self._lines.popleft() if self._lines else None

    def wait(self, deadline: Deadline) -> int:
        """The exit status, as a shell counts it. Raises LabError when the deadline passes or the kernel goes first."""
        with self._changed:
            self._wait(lambda: self._status is not None, deadline)
            if self._status is None:
                raise AssertionError("woken without a status")
            return self._status

    def pid(self, deadline: Deadline) -> int:
        """The process id in the guest, also that of the job's process group; known once the job has started."""
        with self._changed:
            self._wait(lambda: self._pid != 0, deadline)
            return self._pid

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Writes standard input. At most MOST_INPUT_BYTES may lie unread: the program has to answer before more is sent."""
        if len(data) > MOST_INPUT_BYTES:
            raise ValueError(f"{len(data)} bytes are more than {MOST_INPUT_BYTES}; send them in pieces that the job answers")
        self.pid(deadline)
        self._wire.sendall(data)

    def _wait(self, ready: Callable[[], bool], deadline: Deadline) -> None:
        timeout = min(deadline.remaining, threading.TIMEOUT_MAX)
        self._changed.wait_for(lambda: ready() or self._lost, timeout)
        if ready():
            return
        raise LabError(f"{self.name}: the kernel has gone" if self._lost else f"{self.name}: nothing came in time")

    def _wrote(self, text: str) -> None:
        if self._on_line is not None:
            self._on_line(text)
            return
        with self._changed:
            self._lines.append(text)
            self._changed.notify_all()

    def _marked(self, word: bytes, number: int) -> bool:
        """Takes a mark of the guest; True when the job has ended."""
        with self._changed:
            if word == b"pid":
                self._pid = number
            else:
                self._status = number
            self._changed.notify_all()
        return word == b"exit"

    def _kernel_gone(self) -> None:
        with self._changed:
            self._lost = True
            self._changed.notify_all()


class Line:
    """One serial line: the launcher's end, the guest's end, and the job that speaks on it."""

    def __init__(self, tty: int) -> None:
        self.tty = tty
        self.host, self.guest = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for end in (self.host, self.guest):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        self.job: Job | None = None
        self._rest = b""

    def received(self, data: bytes) -> bool:
        """Passes on what the guest wrote, whole lines of it. True when this was the end of the job."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        ended = False
        for raw in lines:
            if self.job is None:
                continue
            mark = _MARK.search(raw)
            text = raw[: mark.start()] if mark else raw
            if text or not mark:
                self.job._wrote(text.decode(errors="replace"))
            if mark and self.job._marked(mark[1], int(mark[2])):
                self.job, ended = None, True
        return ended

    def close(self) -> None:
        """Gives up both ends. Idempotent."""
        self.host.close()
        self.guest.close()


class Switchboard:
    """Reads all lines of one kernel in a thread of its own, from power on until every process of the kernel is gone."""

    def __init__(self, name: str, console: Path, process: KernelProcess, control: Line, lines: Sequence[Line]) -> None:
        """To be made once `process` has its ends of the lines: gives up the launcher's copies of them."""
        self._name = name
        self._console = console
        self._control = control
        self._lines = tuple(lines)
        self._sending = threading.Lock()
        self._changed = threading.Condition()  # guards what follows
        self._free = deque(lines)
        self._control_text = b""
        self._up_s: float | None = None
        self._gone = False
        self._ended = os.dup(process.fileno())
        self._thread = threading.Thread(target=self._read, name=f"lab {name}", daemon=True)
        for line in (control, *lines):
            line.guest.close()
        self._thread.start()

    def wait_up(self, deadline: Deadline) -> float:
        """Waits for the guest's first word: its uptime in seconds. Raises LabError."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._up_s is not None or self._gone, min(deadline.remaining, threading.TIMEOUT_MAX)
            )
            if self._gone:
                raise self._error("has gone")
            if self._up_s is None:
                raise self._error("did not come up in time")
            return self._up_s

    def start_job(self, script: str, name: str, on_line: Callable[[str], None] | None) -> Job:
        """Has the guest run a script of the boot folder on a line that is free. Raises LabError when there is none."""
        with self._changed:
            if self._gone:
                raise self._error("has gone")
            if not self._free:
                raise LabError(f"{self._name} already runs {len(self._lines)} jobs, as many as it has lines")
            line = self._free.popleft()
            line.job = job = Job(name, line.host, on_line)
        self.request(f"job /dev/ttyS{line.tty} {script}")
        return job

    def request(self, words: str) -> None:
        """Sends one request to the guest's first process."""
        try:
            with self._sending:
                self._control.host.sendall(f"{words}\n".encode())
        except OSError as error:
            raise self._error("has gone") from error

    def join(self, deadline: Deadline) -> bool:
        """Waits until no process holds the kernel's lines any more, closes them. False when the deadline passed first."""
        self._thread.join(deadline.remaining)
        if self._thread.is_alive():
            return False
        for line in (self._control, *self._lines):
            line.close()
        return True

    def _read(self) -> None:
        with selectors.DefaultSelector() as selector:
            for line in (self._control, *self._lines):
                selector.register(line.host, selectors.EVENT_READ, line)
            selector.register(self._ended, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select():
                    if key.data is not None:
                        self._read_line(selector, key.data)
                    else:
                        selector.unregister(self._ended)
                        self._process_ended()
        os.close(self._ended)

    def _read_line(self, selector: selectors.BaseSelector, line: Line) -> None:
        try:
            data = line.host.recv(_RECEIVE_BYTES)
        except ConnectionResetError:  # the kernel died with something unread
            data = b""
        if not data:
            selector.unregister(line.host)
        elif line is self._control:
            self._control_said(data)
        elif line.received(data):
            with self._changed:
                self._free.append(line)

    def _control_said(self, data: bytes) -> None:
        self._control_text += data
        word, newline, _ = self._control_text.partition(b"\n")
        if newline:
            with self._changed:
                self._up_s = float(word.removeprefix(b"up "))
                self._changed.notify_all()

    def _process_ended(self) -> None:
        """No job begins any more; what the kernel had said comes through, then its jobs learn that it is gone."""
        with self._changed:
            self._gone = True
            self._changed.notify_all()
        for line in self._lines:
            try:
                while data := line.host.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT):
                    line.received(data)
            except (BlockingIOError, ConnectionResetError):
                pass
            if line.job is not None:
                line.job._kernel_gone()

    def _error(self, what: str) -> LabError:
        words = self._console.read_text(errors="replace").splitlines()[-_LAST_WORDS:]
        return LabError(f"{self._name} {what}. Its last words: {' | '.join(words)}", next_step=f"See {self._console}.")
