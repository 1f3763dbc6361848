"""A told run, its status replies, and a control socket that answers as a test says."""

from __future__ import annotations

import copy
import io
import queue
import socketserver
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console, RenderableType
from typing_extensions import override

from hwvirt.console.model import ConsoleModel
from hwvirt.trace import Event

START = 1_700_000_000.0

REPORT_A: dict[str, Any] = {
    "controller": "a", "pid": 4711, "epoch": "51c0", "uptime_s": 12.0,
    "link": {"state": "up", "peer": "b", "kind": "ethernet", "epoch": "9f3ac41e", "rtt_us": 92, "sent_bytes": 0,
             "received_bytes": 0, "reconnects": 1, "refused": 2, "corrupt": 3, "in_flight": 27},
    "luns": [
        {"lun": 0, "mode": "redirect", "state": "redirecting", "blocks": 16384, "block_bytes": 4096, "mapped_blocks": 4096,
         "zero_blocks": 5, "unflushed_bytes": 1 << 20, "export": "nbd://127.0.0.1:1/lun0",
         "counters": {"reads": 10, "read_blocks": 20, "writes": 30, "written_blocks": 60, "flushes": 4, "unmaps": 1,
                      "errors": 7},
         "latency_us": {"read": {"p50": 412, "p99": 1830}, "write": {"p50": 655, "p99": 2410},
                        "flush": {"p50": 3120, "p99": 9400}},
         "strip": [1.0] * 16 + [0.5] * 16 + [0.1] * 16 + [0.0] * 16},
        {"lun": 1, "mode": "frozen", "state": "", "blocks": 16384, "block_bytes": 4096},
        {"lun": 2, "mode": "forward", "state": "", "target": "b/0", "blocks": 8192, "block_bytes": 4096},
    ],
    "store": None,
    "disk": {"name": "first", "commands": 9, "block_bytes": 4096, "blocks": 16384},
}  # fmt: skip

REPORT_B: dict[str, Any] = {
    "controller": "b", "pid": 4712, "epoch": "be07", "uptime_s": 12.0,
    "link": {"state": "up", "peer": "a", "kind": "ethernet", "rtt_us": 92, "refused": 1},
    "luns": [{"lun": 0, "mode": "own", "state": "", "blocks": 8192, "block_bytes": 4096}],
    "store": {"blocks": 24576, "live": 4096, "free": 19480, "freed": 1000, "lap": 2},
    "disk": {"name": "second", "commands": 9, "block_bytes": 4096, "blocks": 32768},
}  # fmt: skip

TOPOLOGY = {"host": "nbd", "link": "ethernet", "controllers": {"a": "first", "b": "second"}}
SCENARIO = "link cut during a burst keeps every acknowledged write"


def event(at_s: float, name: str, source: str = "rig", /, **fields: Any) -> Event:
    """An event `at_s` seconds after START."""
    return Event(name, START + at_s, source, fields)


def busy(report: dict[str, Any], operations: int) -> dict[str, Any]:
    """The report after `operations` more writes of 8 blocks, sent over the link."""
    later = copy.deepcopy(report)
    later["luns"][0]["counters"]["writes"] += operations
    later["luns"][0]["counters"]["written_blocks"] += operations * 8
    later["link"]["sent_bytes"] += operations * 8 * 4096
    return later


RUN = [
    event(0.0, "rig.started", rig="desk-pair", seed=42, run="r-7c1e"),
    event(0.5, "rig.up", topology=TOPOLOGY),
    event(0.6, "link.up", "a", peer="b"),
    event(1.0, "scenario.started", name=SCENARIO),
    event(1.0, "step.started", name="fill", detail="lun 0", deadline_s=30.0),
    event(2.0, "step.progress", done=16384, total=16384, acknowledged=1024, flushes=1),
    event(3.0, "step.finished", name="fill", elapsed_s=2.0),
    event(4.0, "step.started", name="workload", detail="lun 0, 20,000 operations", deadline_s=60.0),
    event(4.0, "fault.armed", fault="link cut"),
    event(6.0, "fault.fired", fault="link cut"),
    event(6.1, "link.down", "a", reason="peer closed the connection"),
    event(9.0, "fault.healed", fault="link cut"),
    event(9.1, "link.up", "a", peer="b"),
    event(10.0, "step.progress", done=12400, total=20000, acknowledged=7000, failed=2, in_doubt=31, reads=3700, flushes=600),
    event(10.5, "judge.verdict", property="untouched", verdict="held", checked=16384, violations=0),
    event(10.6, "judge.verdict", property="content", verdict="broken", checked=7000, violations=3),
]


def told_run() -> ConsoleModel:
    """RUN, and two controllers at 1,000 writes a second, seen 12 seconds after the start."""
    model = ConsoleModel()
    for told in RUN:
        model.apply(told)
    for tenth in range(21):
        at = START + 10 + tenth / 10
        model.status("a", busy(REPORT_A, tenth * 100), at)
        model.status("b", REPORT_B, at)
    return model


def rendered(renderable: RenderableType, width: int, height: int) -> list[str]:
    """The lines that a terminal of this size would show, without colours and trailing blanks."""
    stream = io.StringIO()
    Console(file=stream, width=width, height=height, force_terminal=False, color_system=None).print(renderable)
    return [line.rstrip() for line in stream.getvalue().split("\n")[:-1]]


class ControlSocket(socketserver.ThreadingUnixStreamServer):
    """A control socket with the verbs `status` and `events`, answered from a thread."""

    daemon_threads = False

    def __init__(self, path: Path, report: dict[str, Any]) -> None:
        super().__init__(str(path), _Conversation)
        self.path = path
        self.events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self.free = threading.Event()
        self.free.set()
        self._report = report
        self._polls = 0
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    @override
    def __exit__(self, *_: object) -> None:
        self.stop()

    def status(self) -> dict[str, Any]:
        """A status reply; each one counts ten more writes."""
        self.free.wait()
        self._polls += 1
        return busy(self._report, self._polls * 10)

    def stop(self) -> None:
        """The daemon ends. Idempotent."""
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
            self.path.unlink()
            self.free.set()
            self.events.put(None)
            self.server_close()


class _Conversation(socketserver.StreamRequestHandler):
    server: ControlSocket

    @override
    def handle(self) -> None:
        with suppress(BrokenPipeError):
            for line in self.rfile:
                if msgspec.json.decode(line)["verb"] == "events":
                    while event := self.server.events.get():
                        self._reply(event)
                    return
                self._reply({"ok": True, "result": self.server.status()})

    def _reply(self, value: object) -> None:
        self.wfile.write(msgspec.json.encode(value) + b"\n")
