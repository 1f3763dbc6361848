"""Draws docs/console.svg: the live view of a run, as README shows it.

The values are scripted, not measured: this file tells the console a plausible story with given times, so that the picture
is the same whenever it is drawn. Nothing here runs a controller.
"""

from __future__ import annotations

import argparse
import io
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.terminal_theme import TerminalTheme

from hwvirt.console.model import ConsoleModel
from hwvirt.console.view import view
from hwvirt.trace import Event

__all__ = ["draw", "main", "scripted_run"]

START = 1_760_000_000.0
"""When the scripted run began, UNIX time."""
NOW_S = 11.5
"""The moment of the picture, seconds after the start: the workload has just ended, the judge is at work."""
WORKLOAD_START_S, WORKLOAD_END_S = 3.1, 10.6

RIG = "rigs/quickstart.yaml"

THEME = TerminalTheme(
    (16, 20, 27),
    (205, 212, 222),
    [
        *[(34, 40, 50), (229, 101, 107), (126, 196, 130), (224, 183, 96)],
        *[(92, 148, 214), (186, 137, 213), (76, 176, 190), (205, 212, 222)],
    ],
    [
        *[(84, 95, 112), (244, 130, 134), (152, 216, 154), (240, 205, 124)],
        *[(124, 172, 236), (208, 164, 232), (96, 214, 218), (236, 240, 245)],
    ],
)

SVG = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" xml:space="preserve">
<style>
.{unique_id}-matrix {{
    font-family: "Fira Code", "DejaVu Sans Mono", Menlo, Consolas, monospace;
    font-size: {char_height}px; line-height: {line_height}px;
}}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""As rich writes it, without its fonts from afar: a picture in a repository should need no other host."""

_TOPOLOGY = {"host": "nbd", "link": "ethernet", "controllers": {"a": "first", "b": "second"}}

EVENTS: list[tuple[float, str, str, dict[str, Any]]] = [
    (0.0, "rig", "rig.started", {"rig": "quickstart", "seed": 42, "run": "20251009-0853-quickstart-7c1e"}),
    (0.6, "a", "link.up", {"peer": "b"}),
    (0.7, "rig", "rig.up", {"topology": _TOPOLOGY}),
    (0.7, "rig", "scenario.started", {"name": "twenty thousand mixed operations keep every correlation"}),
    (0.7, "rig", "step.started", {"name": "fill", "detail": "lun 0", "deadline_s": 30.0}),
    (2.9, "rig", "step.progress", {"done": 16384, "total": 16384, "acknowledged": 1024, "flushes": 1}),
    (2.9, "rig", "step.finished", {"name": "fill", "elapsed_s": 2.2}),
    (2.9, "rig", "step.started", {"name": "redirect", "detail": "lun 0", "deadline_s": 10.0}),
    (3.0, "a", "redirect.state", {"lun": 0, "state": "redirecting"}),
    (3.0, "rig", "step.finished", {"name": "redirect", "elapsed_s": 0.1}),
    (3.1, "rig", "step.started", {"name": "workload", "detail": "lun 0, 20,000 operations, depth 32", "deadline_s": 60.0}),
    (WORKLOAD_END_S, "rig", "step.progress", {
        "done": 20000, "total": 20000, "acknowledged": 13021, "failed": 0, "in_doubt": 0, "reads": 5987, "flushes": 992}),
    (WORKLOAD_END_S, "rig", "step.finished", {"name": "workload", "elapsed_s": WORKLOAD_END_S - WORKLOAD_START_S}),
    (10.6, "rig", "step.started", {"name": "judge", "detail": "all", "deadline_s": 60.0}),
    (10.9, "rig", "judge.verdict", {"property": "untouched", "verdict": "held", "checked": 16384, "violations": 0}),
    (11.0, "rig", "judge.verdict", {"property": "complete", "verdict": "held", "checked": 11652, "violations": 0}),
    (11.1, "rig", "judge.verdict", {"property": "exact", "verdict": "held", "checked": 11652, "violations": 0}),
    (11.4, "rig", "judge.verdict", {"property": "content", "verdict": "held", "checked": 11652, "violations": 0}),
]  # fmt: skip


def scripted_run(now_s: float = NOW_S) -> ConsoleModel:
    """What the console knows `now_s` seconds into the story."""
    model = ConsoleModel()
    polls = [quarter / 4 for quarter in range(3, int(now_s * 4) + 1)]
    told = iter([*EVENTS, (math.inf, "", "", {})])
    event = next(told)
    for poll_s in [*polls, now_s]:
        while event[0] <= poll_s:
            at_s, source, name, fields = event
            model.apply(Event(name, START + at_s, source, fields))
            event = next(told)
        model.status("a", _report_of_a(poll_s), START + poll_s)
        model.status("b", _report_of_b(poll_s), START + poll_s)
    return model


def draw(path: Path, width: int = 140, height: int = 40) -> None:
    """Writes the picture."""
    console = Console(
        record=True, file=io.StringIO(), width=width, height=height, force_terminal=True, color_system="truecolor"
    )
    console.print(view(scripted_run(), START + NOW_S, width, height))
    svg = console.export_svg(title=f"hwvirt run {RIG}", theme=THEME, code_format=SVG, unique_id="hwvirt")
    path.write_text(svg, encoding="utf-8")


def _done(now_s: float) -> int:
    """Operations of the workload so far: it gets going, swells a little, and ends."""
    working_s = max(0.0, min(now_s, WORKLOAD_END_S) - WORKLOAD_START_S)
    share = working_s / (WORKLOAD_END_S - WORKLOAD_START_S)
    return int(20000 * (share**1.15 + 0.012 * math.sin(share * 6 * math.pi)))


def _mapped(done: int) -> int:
    """Overwrites make new correlations ever rarer."""
    return round(15200 * (1 - math.exp(-done / 13750)))


def _link(now_s: float, peer: str, sent: int, received: int) -> dict[str, Any]:
    return {
        "state": "up", "peer": peer, "kind": "ethernet", "epoch": "9f3ac41e", "rtt_us": 92,
        "sent_bytes": sent, "received_bytes": received, "in_flight": 0 if now_s > WORKLOAD_END_S else 27,
    }  # fmt: skip


def _report_of_a(now_s: float) -> dict[str, Any]:
    done = _done(now_s)
    writes, reads, mapped = round(done * 0.6), round(done * 0.3), _mapped(done)
    few = round(done * 0.05)
    p50_p99 = {"read": (4120, 9300), "write": (6550, 14100), "flush": (8120, 19400)} if done else {}
    latency = {kind: {"p50": p50, "p99": p99} for kind, (p50, p99) in p50_p99.items()}
    return {
        "controller": "a", "pid": 48213, "epoch": "51c0", "uptime_s": now_s - 0.4,
        "link": _link(now_s, "b", writes * 8 * 4096, reads * 5 * 4096),
        "luns": [
            {
                "lun": 0, "mode": "redirect", "state": "redirecting" if now_s > 3 else "own",
                "blocks": 16384, "block_bytes": 4096,
                "mapped_blocks": mapped, "zero_blocks": 212, "unflushed_bytes": 327680 if done else 0,
                "counters": {"reads": reads, "read_blocks": reads * 8, "writes": writes, "written_blocks": writes * 8,
                             "flushes": few, "unmaps": few},
                "latency_us": latency,
                "strip": _strip(mapped / 16384),
            },
            {"lun": 1, "mode": "frozen", "blocks": 16384, "block_bytes": 4096},
            {"lun": 2, "mode": "forward", "target": "b/0", "blocks": 8192, "block_bytes": 4096},
        ],
        "disk": {"name": "first", "commands": 9120, "block_bytes": 4096, "blocks": 16384},
    }  # fmt: skip


def _report_of_b(now_s: float) -> dict[str, Any]:
    done = _done(now_s)
    live = _mapped(done)
    freed = 906 if done else 0
    return {
        "controller": "b", "pid": 48214, "epoch": "be07", "uptime_s": now_s - 0.4,
        "link": _link(now_s, "a", round(done * 0.3) * 5 * 4096, round(done * 0.6) * 8 * 4096),
        "luns": [{"lun": 0, "mode": "own", "blocks": 8192, "block_bytes": 4096}],
        "store": {"blocks": 24576, "live": live, "freed": freed, "free": 24576 - live - freed, "lap": 2},
        "disk": {"name": "second", "commands": 20833, "block_bytes": 4096, "blocks": 32768},
    }  # fmt: skip


def _strip(share: float) -> list[float]:
    """64 cells with about the mean `share`: random writes touch all of the volume, some regions later than others."""
    late = [1.0 + 0.55 * math.sin(cell / 7) + 0.3 * math.sin(cell * 1.9) for cell in range(64)]
    return [round(share ** (1.2 * weight**2), 3) for weight in late]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "docs" / "console.svg")
    parser.add_argument("--width", type=int, default=140)
    parser.add_argument("--height", type=int, default=40)
    arguments = parser.parse_args()
    draw(arguments.output, arguments.width, arguments.height)


if __name__ == "__main__":
    main()
