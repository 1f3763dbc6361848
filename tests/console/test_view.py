"""The view fills a terminal of any size, overflows none, and tells what matters."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from hwvirt.console.model import PROPERTIES, ConsoleModel
from hwvirt.console.panels.volume import store_bar, strip_cells
from hwvirt.console.report import StoreReport
from hwvirt.console.view import view

from .consolekit import REPORT_A, REPORT_B, SCENARIO, START, busy, event, rendered, told_run

NOW = START + 12.0
SIZES = [(80, 24), (100, 30), (119, 50), (120, 38), (140, 39), (140, 40), (200, 60)]


def screen(model: ConsoleModel, width: int, height: int, now: float = NOW) -> str:
    lines = rendered(view(model, now, width, height), width, height)
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width
    return "\n".join(lines)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_size_tells_what_matters(width: int, height: int) -> None:
    text = screen(told_run(), width, height)
    for expected in (
        "desk-pair", "seed 42", "0:12", "✗ broken: content",
        SCENARIO, "step 2  workload", "8.0s of 60s", "62%", "12,400 of 20,000",
        "acknowledged 8,024", "failed 2", "in doubt 31", "reads 3,700", "flushes 601", "ethernet 92µs", "first", "second",
        "1.0k", "32.8", "655µs", "2.4ms", "1 MiB", "redirecting", "own", "25%",
        "4,096 live", "1,000 freed", "19,480 free", "lap 2",
        "████", "▒▒▒▒", "░░░░", "····", "link cut", "healed", "link down: peer closed the connection", *PROPERTIES,
    ):  # fmt: skip
        assert expected in text, expected
    assert "…" not in text


def test_the_narrow_view_is_this() -> None:
    lines = screen(told_run(), 80, 24).split("\n")
    assert lines[:3] == [
        "hwvirt  desk-pair  seed 42  run r-7c1e                   0:12  ✗ broken: content",
        f"scenario {SCENARIO}",
        "step 2  workload  lun 0, 20,000 operations                           8.0s of 60s",
    ]
    assert lines[4:14] == [
        "acknowledged 8,024   failed 2   in doubt 31   reads 3,700   flushes 601",
        "host ── nbd ──▶ ● a (first) ━━ ethernet 92µs ━━▶ ● b (second)",
        "controllers        IOPS   MB/s read p50/p99 write p50/p99  mapped unflushed  err",
        "● a redirecting    1.0k   32.8  412µs/1.8ms   655µs/2.4ms    4.1k     1 MiB    7",
        "● b own               0    0.0            -             -       0       0 B    0",
        "link  up  → 32.8  ← 0.0 MB/s  27 in flight    1 reconnects  3 refused  3 corrupt",
        "map   " + "█" * 16 + "▒" * 16 + "░" * 16 + "·" * 16 + "   25%",
        "store ████▓░░░░░░░░░░░░░░░░░░  █ 4,096 live  ▓ 1,000 freed  ░ 19,480 free  lap 2",
        "● untouched 16.4k  · complete         · exact            ✗ content 3",
        "· consistent       · durable          · fenced           · frozen",
    ]
    assert lines[14] == "· settled          · conserved"
    assert lines[15].startswith("─ events ─") and lines[15].endswith("─ ● link cut healed ─")
    assert lines[16:] == [
        "    4.0s rig    workload: lun 0, 20,000 operations (within 1min 0s)",
        "    4.0s rig    fault armed: link cut",
        "    6.0s rig    fault fired: link cut",
        "    6.1s a      link down: peer closed the connection",
        "    9.0s rig    fault healed: link cut",
        "    9.1s a      link up with b",
        "   10.5s rig    untouched held, 16,384 checked",
        "   10.6s rig    content broken, 3 violations in 7,000 checked",
    ]


def test_the_wide_view_has_panes_side_by_side() -> None:
    lines = screen(told_run(), 140, 40).split("\n")
    assert len(lines) == 40
    titles = next(line for line in lines if "● a  pid 4711" in line)
    assert titles.index("● a") < titles.index("● link  up") < titles.index("● b  pid 4712")
    assert all(len(line) == 140 for line in lines if line.startswith(("╭", "│", "╰")))
    text = "\n".join(lines)
    for expected in ("lun 2  forward → b/0", "first · 64 MiB", "refused                  3", "3 of 7,000"):
        assert expected in text, expected
    assert "4,096 of 16,384 blocks  25%" in text


def on_a_line(report: dict[str, Any], **counts: int) -> dict[str, Any]:
    return report | {"link": report["link"] | {"kind": "serial", "line": {"probes": 1, **counts}}}


def test_what_a_serial_line_had_to_mend_stands_beside_what_the_link_refused() -> None:
    model = ConsoleModel()
    model.status("a", on_a_line(REPORT_A, damaged_frames=40, resent_segments=2), NOW)
    model.status("b", on_a_line(REPORT_B, damaged_frames=2, resent_segments=5), NOW)
    wide = screen(model, 140, 40)
    for expected in ("corrupt                  3", "damaged                 42", "resent                   7", "epoch "):
        assert expected in wide, expected
    assert "1 reconnects  3 refused  3 corrupt  42 damaged  7 resent" in screen(model, 119, 24)
    assert "1 reconnects  3 refused  3 corrupt\n" in screen(model, 80, 24), "where there is no room the rest is as it was"
    assert "damaged" not in screen(told_run(), 140, 40), "Ethernet has none"


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_hostile_names_print_literally_and_steer_nothing(width: int, height: int) -> None:
    evil = "[bold]x[/bold]\x1b[2J:skull:"
    model = ConsoleModel()
    model.apply(event(0, "rig.started", rig=evil, seed=1, run=evil))
    model.apply(event(0, "rig.up", topology={"host": "nbd", "link": "eth", "controllers": {"a": evil, "[red]b": "\n"}}))
    model.apply(event(1, "fault.fired", evil, fault=evil))
    model.apply(event(2, "step.started", name=evil, detail="\r\n" + evil, deadline_s=1))
    report = busy(REPORT_A, 0)
    report["luns"][0]["state"] = evil
    model.status("a", report, NOW)
    model.status("[red]b", report | {"pid": 2}, NOW)
    text = screen(model, width, height)
    assert "[bold]x[/bold]\\x1b[2J:skull:" in text
    assert "[red]b" in text
    assert "\x1b" not in text and "\r" not in text


@pytest.mark.parametrize(("width", "height"), [*SIZES, (20, 5), (60, 18), (1, 1)])
def test_nothing_known_yet_is_a_view_too(width: int, height: int) -> None:
    screen(ConsoleModel(), width, height)
    started = ConsoleModel()
    started.apply(event(0, "rig.started", rig="desk-pair", seed=1, run="r"))
    screen(started, width, height)
    screen(told_run(), width, height)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 40)])
def test_a_controller_that_does_not_answer_is_said_to_be_silent(width: int, height: int) -> None:
    text = screen(told_run(), width, height, now=START + 17)
    assert "silent" in text
    assert "1.0k" not in text


@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 40)])
def test_a_link_that_is_down_at_one_end_is_down(width: int, height: int) -> None:
    model = told_run()
    model.apply(event(12, "link.down", "b", reason="cable pulled"))
    text = screen(model, width, height)
    assert "ethernet down" in text
    assert "92µs ━" not in text


def test_one_controller_alone_fills_the_view_without_a_run() -> None:
    model = ConsoleModel()
    model.status("a", REPORT_A, NOW)
    for width, height in ((80, 24), (140, 40)):
        text = screen(model, width, height)
        assert "controller a  pid 4711  up 0:12" in text
        assert "○ b" in text  # its peer, of which nothing more is known
        assert "properties" not in text and "scenario" not in text and "untouched" not in text


def test_a_storing_controller_alone_shows_its_store_and_no_empty_strip() -> None:
    model = ConsoleModel()
    model.status("b", REPORT_B, NOW)
    for width, height in ((80, 24), (140, 40)):
        text = screen(model, width, height)
        assert "4,096 live" in text
        assert "redirected" not in text


def test_many_controllers_and_units_leave_no_line_out_of_the_frame() -> None:
    model = told_run()
    for name in "cdefgh":
        model.status(name, busy(REPORT_A, 1) | {"luns": REPORT_A["luns"] * 5}, NOW)
    assert "● h" in screen(model, 140, 40)
    crowded = ConsoleModel()
    crowded.status("a", busy(REPORT_A, 1) | {"luns": REPORT_A["luns"] * 5}, NOW)
    assert "and 13 more" in screen(crowded, 140, 40)


def test_a_failed_step_and_a_late_one_say_so() -> None:
    model = told_run()
    assert "70.0s of 60s" in screen(model, 80, 24, now=START + 74)
    model.apply(event(13, "step.failed", name="workload", reason="no reply within 60s"))
    assert "failed after 9s" in screen(model, 80, 24, now=START + 80)
    assert "\nno reply within 60s" in screen(model, 80, 24, now=START + 80)


def test_a_step_without_a_total_moves_towards_its_deadline() -> None:
    model = told_run()
    model.apply(event(20, "step.started", name="judge", detail="all", deadline_s=40))
    assert "━" * 80 in screen(model, 80, 24, now=START + 30)


@pytest.mark.parametrize(("width", "half"), [(64, 32), (128, 64), (190, 64), (32, 16)])
def test_the_strip_keeps_its_proportions_at_any_width(width: int, half: int) -> None:
    assert strip_cells([1.0] * 32 + [0.0] * 32, width).plain == "█" * half + "·" * half


def test_a_strip_cell_is_untouched_only_with_nothing_and_full_only_with_all_redirected() -> None:
    assert strip_cells([0.0, 0.0001, 0.34, 0.67, 0.999, 1.0], 6).plain == "·░▒▓▓█"


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**7), st.integers(4, 100))
def test_the_store_bar_is_full_and_shows_what_exists(live: int, freed: int, free: int, width: int) -> None:
    bar = store_bar(StoreReport(live + freed + free, live, free, freed), width).plain
    assert len(bar) == width
    assert ("█" in bar) == (live > 0)
    assert ("▓" in bar) == (freed > 0)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JUNK = st.recursive(SCALARS, st.lists, max_leaves=4)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(list(REPORT_A)), JUNK), st.sampled_from(SIZES))
def test_no_status_reply_makes_the_view_fail(junk: dict[str, Any], size: tuple[int, int]) -> None:
    model = told_run()
    model.status("a", REPORT_A | junk, NOW)
    rendered(view(model, NOW, *size), *size)
