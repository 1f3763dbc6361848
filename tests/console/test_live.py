"""The console of a run: plain lines exact, the terminal given back, and never an error for the runner."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest
from typing_extensions import override

from hwvirt.console.lines import status_line
from hwvirt.console.live import Console, LiveMode
from hwvirt.trace import Event

from .consolekit import REPORT_A, RUN, START, event, told_run

PLAIN = """\
     0.0s  rig      rig desk-pair, seed 42, run r-7c1e
     0.5s  rig      rig is up: host over nbd, a on first, b on second, link over ethernet
     0.6s  a        link up with b
     1.0s  rig      scenario: link cut during a burst keeps every acknowledged write
     1.0s  rig      fill: lun 0 (within 30s)
     3.0s  rig      fill finished in 2s
     4.0s  rig      workload: lun 0, 20,000 operations (within 1min 0s)
     4.0s  rig      fault armed: link cut
     6.0s  rig      fault fired: link cut
     6.1s  a        link down: peer closed the connection
     9.0s  rig      fault healed: link cut
     9.1s  a        link up with b
    10.5s  rig      untouched held, 16,384 checked
    10.6s  rig      content broken, 3 violations in 7,000 checked
"""
SUMMARY = """\

✗ broken  desk-pair  seed 42  in 12s

  ● untouched    held         16,384 checked
  ✗ content      broken        7,000 checked, 3 violations
  · not judged: complete, exact, consistent, durable, fenced, frozen, settled, conserved

  acknowledged 8,024   failed 2   in doubt 31   reads 3,700   flushes 601
  acknowledged were 8,024 writes

  content broken at lba 7
    expected seq 9 of writer 1, found seq 8

  run folder  runs/r-7c1e
  exit code   1  a property is broken
"""
CARD = "content broken at lba 7\n  expected seq 9 of writer 1, found seq 8"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    @override
    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    """A terminal whose window was closed."""

    @override
    def write(self, _: str) -> int:
        raise BrokenPipeError


def console(stream: io.StringIO, live: LiveMode = LiveMode.NEVER, now_s: float = 12.0) -> Console:
    return Console(stream, live, clock=lambda: START + now_s)


def finish(to: Console) -> None:
    to.handle(event(12, "rig.finished", verdict="broken", exit_code=1, run_dir="runs/r-7c1e", cards=[CARD]))


def test_plain_mode_is_one_line_for_each_event_and_a_summary() -> None:
    stream = io.StringIO()
    with console(stream) as plain:
        for told in RUN:
            plain.handle(told)
            plain.status("a", REPORT_A)
        finish(plain)
    finished = "    12.0s  rig      broken, exit code 1, run folder runs/r-7c1e\n"
    assert stream.getvalue() == PLAIN + finished + SUMMARY


def test_summary_tells_what_was_acknowledged_and_how_to_run_it_once_more() -> None:
    stream = io.StringIO()
    with console(stream) as plain:
        plain.handle(RUN[0])
        for name, counts in (("fill", {"acknowledged": 64, "fills": 64}), ("workload", {"acknowledged": 320, "unmaps": 20})):
            plain.handle(event(1, "step.started", name=name))
            plain.handle(event(2, "step.progress", done=1, total=1, **counts))
        plain.handle(event(3, "rig.finished", verdict="interrupted", exit_code=130, run_dir="r", replay="hwvirt run x"))
    shown = stream.getvalue()
    assert "  acknowledged 384   failed 0" in shown
    assert "  acknowledged were 64 by fill, 20 unmaps, 300 writes\n" in shown
    assert shown.endswith("  exit code   130  interrupted\n  once more   hwvirt run x\n")


def test_a_run_that_passed_need_not_be_run_once_more() -> None:
    stream = io.StringIO()
    with console(stream) as plain:
        plain.handle(RUN[0])
        plain.handle(event(3, "rig.finished", verdict="passed", exit_code=0, run_dir="r", replay="hwvirt run x"))
    assert "once more" not in stream.getvalue()


def test_a_backup_beside_a_step_is_seen_and_not_told_pass_by_pass() -> None:
    stream = io.StringIO()
    plain = console(stream)
    plain.handle(event(1, "rig.started", rig="r", seed=1, run="x"))
    plain.handle(event(1, "step.started", name="workload"))
    stream.truncate(stream.seek(0))
    for number in range(1, 31):
        plain.handle(event(2, "backup.progress", number=number, done=256, total=1024))
    assert stream.getvalue() == ""
    assert plain.model.step is not None
    assert plain.model.step.aside == "backup 30: 256 of 1,024 blocks"
    plain.tick(START + 8)
    assert stream.getvalue() == "     7.0s  rig      workload: 7.0s, backup 30: 256 of 1,024 blocks\n"


def test_a_silence_of_five_seconds_is_broken_by_a_line_about_the_step() -> None:
    stream = io.StringIO()
    plain = console(stream)
    for told in RUN[:-2]:
        plain.handle(told)
    stream.truncate(stream.seek(0))
    for half in range(20, 45):
        plain.tick(START + half / 2)
    counts = "acknowledged 7,000, failed 2, in doubt 31, reads 3,700, flushes 600"
    assert stream.getvalue().splitlines() == [
        f"    14.5s  rig      workload: 10.5s of 60s, 12,400 of 20,000: {counts}",
        f"    19.5s  rig      workload: 15.5s of 60s, 12,400 of 20,000: {counts}",
    ]


def test_silence_between_steps_is_broken_too_but_not_before_the_run_began() -> None:
    stream = io.StringIO()
    plain = console(stream)
    plain.tick(START + 100)
    assert stream.getvalue() == ""
    plain.handle(event(0, "rig.started", rig="r", seed=1, run="x"))
    plain.tick(START + 6)
    assert stream.getvalue().splitlines()[1:] == ["     6.0s  rig      between steps"]


def test_a_stream_that_is_no_terminal_gets_plain_lines_and_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = io.StringIO()
    with console(stream, LiveMode.AUTO) as plain:
        plain.handle(RUN[0])
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().startswith("     0.0s  rig      rig desk-pair")


@pytest.mark.parametrize("term", ["dumb", "", "unknown"])
def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    monkeypatch.setenv("TERM", term)
    stream = Terminal()
    with console(stream, LiveMode.AUTO) as plain:
        plain.handle(RUN[0])
    assert "\x1b" not in stream.getvalue()


def test_names_print_literally_in_plain_lines_and_summary() -> None:
    stream = io.StringIO()
    with console(stream) as plain:
        plain.handle(event(0, "rig.started", rig="[bold]x[/bold]\x1b[2J", seed=1, run="r\n"))
        plain.handle(event(1, "host.connected", "a\x07", peer="\x1b]0;title"))
    told = stream.getvalue().splitlines()
    assert told[0] == "     0.0s  rig      rig [bold]x[/bold]\\x1b[2J, seed 1, run r\\n"
    assert told[1] == "     1.0s  a\\x07    host.connected peer=\\x1b]0;title"
    assert "✗ ended without a verdict  [bold]x[/bold]\\x1b[2J  seed 1  in 12s" in told
    assert "\x1b" not in stream.getvalue()


def test_an_encoding_without_a_character_gets_its_escape() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    with Console(stream, LiveMode.NEVER, clock=lambda: START) as plain:
        plain.handle(event(0, "rig.started", rig="прибор", seed=1, run="r"))
    assert raw.getvalue().startswith(b"     0.0s  rig      rig \\u043f\\u0440")


def test_live_mode_takes_the_terminal_and_gives_it_back_before_the_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    stream = io.StringIO()
    with console(stream, LiveMode.ALWAYS) as live:
        for told in RUN:
            live.handle(told)
        live.tick(START + 12.5)
        finish(live)
    shown = stream.getvalue()
    enter, leave = shown.index("\x1b[?1049h"), shown.index("\x1b[?1049l")
    assert enter < shown.index("desk-pair") < leave < shown.index("exit code   ")
    assert shown.index("\x1b[?25l") < shown.rindex("\x1b[?25h")
    assert "1.0s  rig" not in shown[:leave]


def test_live_mode_paints_no_more_than_five_times_a_second() -> None:
    stream = io.StringIO()
    live = console(stream, LiveMode.ALWAYS)
    with live:
        before = stream.tell()
        for _ in range(500):
            live.handle(event(1, "host.connected", "a", peer="p"))
        assert stream.tell() == before
        live.tick(START + 13)
        assert stream.tell() > before


def test_stdout_and_stderr_stay_the_program_s_own_while_live() -> None:
    before = sys.stdout, sys.stderr
    with console(io.StringIO(), LiveMode.ALWAYS):
        assert (sys.stdout, sys.stderr) == before


def test_the_terminal_is_given_back_when_the_run_raises() -> None:
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), console(stream, LiveMode.ALWAYS) as live:
        live.handle(RUN[0])
        raise KeyboardInterrupt
    assert "\x1b[?1049l" in stream.getvalue()
    assert "ended without a verdict" in stream.getvalue()


@pytest.mark.parametrize("live", [LiveMode.ALWAYS, LiveMode.NEVER])
def test_a_closed_terminal_never_reaches_the_runner(live: LiveMode) -> None:
    for stream in (Gone(), closed()):
        with console(stream, live) as to:
            for told in RUN:
                to.handle(told)
                to.status("a", REPORT_A)
                to.tick(told.at)
            finish(to)


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("live", [LiveMode.ALWAYS, LiveMode.NEVER])
@pytest.mark.parametrize(
    "odd",
    [
        Event("step.progress", START, "rig", {"done": "many", "total": [1]}),
        Event("judge.verdict", START, "rig", {"checked": "x", "violations": 1.5}),
        Event("step.finished", START, "rig", {"elapsed_s": "long"}),
        Event("rig.finished", START, "rig", {"exit_code": "?", "cards": 7}),
        Event("", START, "", {}),
    ],
)
def test_odd_events_are_told_and_never_raised(odd: Event, live: LiveMode) -> None:
    stream = io.StringIO()
    with console(stream, live) as to:
        to.handle(RUN[0])
        to.handle(odd)
        to.tick(START + 20)
        to.handle(event(1, "scenario.started", name="still here"))
        to.tick(START + 30)
    assert "still here" in stream.getvalue()


def test_a_run_that_never_started_has_no_summary() -> None:
    stream = io.StringIO()
    with console(stream):
        pass
    assert stream.getvalue() == ""


def test_the_status_line_of_a_watched_controller() -> None:
    model = told_run()
    told = "link up  IOPS 1.0k  MB/s 32.8  mapped 4,096  unflushed 1 MiB  errors 7"
    told += "  lun 0 redirecting  lun 1 frozen  lun 2 forward"
    assert status_line(model.controllers["a"], START + 12) == f"    12.0s  a        {told}"
    assert status_line(model.controllers["a"], START + 20) == "    12.0s  a        does not answer"


def test_status_replies_are_cheap_to_ignore() -> None:
    stream = io.StringIO()
    odd: Any = ["not", "a", "reply"]
    with console(stream) as to:
        to.status("a", odd)
    assert "status reply cannot be read" in to.model.log[-1].text
