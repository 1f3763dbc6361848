"""`hwvirt watch`: it looks, tells, and ends as it should."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from hwvirt.console.feed import EventFeed
from hwvirt.console.screen import LiveMode
from hwvirt.console.watch import watch
from hwvirt.controller.control import ControlServer
from hwvirt.errors import ControllerError, ExitCode
from hwvirt.trace import Event, Trace

from .consolekit import REPORT_A, ControlSocket

WATCH = "import sys; from pathlib import Path; from hwvirt.console.watch import watch; sys.exit(watch(Path(sys.argv[1])))"


class Reader(io.StringIO):
    """A stream that calls back for each line written to it."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        super().__init__()
        self._on_line = on_line

    @override
    def write(self, text: str) -> int:
        written = super().write(text)
        self._on_line(text)
        return written


def interrupted_after(lines: int) -> Reader:
    """Presses Ctrl-C after so many lines."""
    seen: list[str] = []

    def on_line(text: str) -> None:
        seen.append(text)
        if len(seen) == lines:
            raise KeyboardInterrupt

    return Reader(on_line)


def test_without_a_terminal_there_is_a_status_line_and_ctrl_c_ends_with_zero(tmp_path: Path) -> None:
    with ControlSocket(tmp_path / "a.sock", REPORT_A) as server:
        stream = interrupted_after(2)
        assert watch(server.path, stream) is ExitCode.PASSED
    first, second = stream.getvalue().splitlines()
    assert first.startswith("    12.0s  a        link up  IOPS -  MB/s -  mapped 4,096  unflushed 1 MiB  errors 7  lun 0 ")
    assert "IOPS -" not in second


def test_events_are_told_between_status_lines(tmp_path: Path) -> None:
    with ControlSocket(tmp_path / "a.sock", REPORT_A) as server:
        seen: list[str] = []

        def on_line(text: str) -> None:
            seen.append(text)
            if "link down: cable \\x1b[2J pulled" in text:
                raise KeyboardInterrupt
            server.events.put(Event("link.down", time.time(), "a", {"reason": "cable \x1b[2J pulled"}))

        assert watch(server.path, Reader(on_line)) is ExitCode.PASSED
    assert "a        link down: cable \\x1b[2J pulled" in seen[-1]


@pytest.mark.parametrize("live", [LiveMode.NEVER, LiveMode.ALWAYS])
def test_a_daemon_that_ends_is_said_to_be_gone(tmp_path: Path, live: LiveMode) -> None:
    path = tmp_path / "a.sock"
    with ControlSocket(path, REPORT_A) as server:
        stream = Reader(lambda _: server.stop())
        with pytest.raises(ControllerError) as raised:
            watch(path, stream, live)
    assert raised.value.exit_code is ExitCode.INFRASTRUCTURE
    assert str(raised.value).startswith(f"controller a is gone: {path}: No such file or directory.")
    assert str(raised.value).endswith("Its own log tells why it ended.")
    assert live is LiveMode.NEVER or stream.getvalue().endswith("\x1b[?1049l")


def test_a_missing_socket_is_named_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ControllerError) as raised:
        watch(tmp_path / "none.sock", io.StringIO())
    assert raised.value.reason == f"{tmp_path}/none.sock: No such file or directory."
    assert raised.value.next_step == "Is the controller running, and is this its control socket?"


def test_a_path_that_is_no_socket_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    with pytest.raises(ControllerError, match="Connection refused"):
        watch(path, io.StringIO())


def test_a_busy_daemon_is_silent_not_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwvirt.console.watch._REPLY_WITHIN_S", 0.05)
    monkeypatch.setattr("hwvirt.console.watch._LINE_EVERY_S", 0.0)
    with ControlSocket(tmp_path / "a.sock", REPORT_A) as server:
        seen: list[str] = []

        def on_line(text: str) -> None:
            seen.append(text)
            server.free.clear()
            if "does not answer" in text:
                raise KeyboardInterrupt

        assert watch(server.path, Reader(on_line)) is ExitCode.PASSED
    assert seen[-1].endswith("a        does not answer\n")


def test_the_feed_joins_events_that_arrive_in_pieces_and_skips_what_is_none(tmp_path: Path) -> None:
    path = tmp_path / "feed.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        feed = EventFeed(path)
        server, _ = listener.accept()
        with server:
            assert server.recv(100) == b'{"verb":"events","last":10}\n'
            assert feed.take() == []
            server.sendall(b'{"ok": false, "error": "no"}\n{"name": "link.up", "at": 1.5, "source": "a", "fie')
            assert feed.take() == []
            server.sendall(b'lds": {"peer": "b"}}\n{"name": "x"}\n')
            assert [(e.name, e.at, e.source, e.fields) for e in feed.take()] == [
                ("link.up", 1.5, "a", {"peer": "b"}),
                ("x", 0.0, "", {}),
            ]
            server.sendall(b"garbage\n")
            with pytest.raises(ControllerError, match="sent an event that cannot be read"):
                feed.take()
        assert feed.take() == []
        feed.close()


def test_the_real_control_server_is_understood_and_sigint_ends_with_zero(tmp_path: Path) -> None:
    async def status(_: dict[str, Any]) -> Any:
        trace.emit("link.up", peer="b")
        return REPORT_A

    async def scenario() -> tuple[int, str]:
        server = ControlServer(tmp_path / "a.sock", {"status": status}, trace)
        await server.start()
        viewer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WATCH, str(tmp_path / "a.sock"), stdout=asyncio.subprocess.PIPE
        )
        assert viewer.stdout is not None
        try:
            async with asyncio.timeout(20):
                while b"link up with b" not in (line := await viewer.stdout.readline()):
                    assert line
                viewer.send_signal(signal.SIGINT)
                return await viewer.wait(), line.decode()
        finally:
            if viewer.returncode is None:
                viewer.kill()
                await viewer.wait()
            await server.close()

    trace = Trace("a")
    code, line = asyncio.run(scenario())
    assert code == 0
    assert line.endswith("a        link up with b\n")


def test_on_a_terminal_the_view_is_painted_and_ctrl_c_gives_the_terminal_back(tmp_path: Path) -> None:
    with ControlSocket(tmp_path / "a.sock", REPORT_A) as server:
        ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm-256color", "PYTHONUTF8": "1", "COLUMNS": "80", "LINES": "24"}
        viewer = subprocess.Popen(
            [sys.executable, "-c", WATCH, str(server.path)], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        try:
            shown = read_until(ours, "redirecting")
            viewer.send_signal(signal.SIGINT)
            shown += read_until(ours, "\x1b[?1049l")
            assert viewer.wait(10) == 0
        finally:
            viewer.kill()
            viewer.wait()
            os.close(ours)
    assert shown.index("\x1b[?1049h") < shown.index("4711")
    assert "Traceback" not in shown


def read_until(descriptor: int, expected: str) -> str:
    deadline = time.monotonic() + 10
    text = ""
    while expected not in text:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"no {expected!r} within 10 s; so far: {text!r}"
        text += os.read(descriptor, 1 << 16).decode(errors="replace")
    return text
