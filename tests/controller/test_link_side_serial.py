"""A controller's end of a serial line: when it is given up, and what it tells of the line."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeAlias

from hwvirt.controller.config import LinkConfig, LinkRole, SerialConfig
from hwvirt.controller.link_side import LinkSide
from hwvirt.controller.service import Service
from hwvirt.link.serial.traits import LineStatistics
from hwvirt.trace import Event, Trace
from tests.link.link_rig import until
from tests.link.serial.cable import PtyCable

BAUD = 1_000_000
ROOT = Path(__file__).parents[2]

Story: TypeAlias = Callable[[LinkSide, LinkSide], Awaitable[None]]


def on_a_line(tmp_path: Path, cable: PtyCable, story: Story) -> None:
    """Two sides, up, that wait for a second."""
    secret = tmp_path / "secret"
    secret.write_text("the secret")

    def side(name: str, peer: str, role: LinkRole, device: str) -> LinkSide:
        serial = SerialConfig(device, BAUD)
        return LinkSide(name, LinkConfig(role, peer, str(secret), serial=serial, stall_s=1.0), 1, Trace(name))

    async def told() -> None:
        a, b = side("a", "b", "connect", cable.devices[0]), side("b", "a", "listen", cable.devices[1])
        try:
            for one in (a, b):
                await one.start({}, Service(None, {}, one._trace))
            await asyncio.gather(a.wait_up(), b.wait_up())
            async with asyncio.timeout(30):
                await story(a, b)
        finally:
            await asyncio.gather(a.close(), b.close())

    asyncio.run(told())


def test_a_line_that_falls_silent_is_down_after_the_stall(tmp_path: Path) -> None:
    async def story(a: LinkSide, b: LinkSide) -> None:
        down: list[Event] = []
        a._trace.subscribe(lambda told: down.append(told) if told.name == "link.down" else None)
        cable.up = False
        await until(lambda: bool(down))
        assert str(down[0].fields["reason"]).startswith(f"link: {cable.devices[0]} was silent for 1 s.")

    with PtyCable(BAUD) as cable:
        on_a_line(tmp_path, cable, story)


def test_status_tells_what_the_line_had_to_mend(tmp_path: Path) -> None:
    async def story(a: LinkSide, b: LinkSide) -> None:
        for one in (a, b):
            line = one.status()["line"]
            assert one.endpoint.line is not None
            assert line == asdict(one.endpoint.line)
            assert line["received_frames"] > 0
        before = a.status()["line"]["damaged_frames"]
        cable.flip_rate = 0.5
        await until(lambda: a.status()["line"]["damaged_frames"] > before)
        cable.flip_rate = 0.0

    with PtyCable(BAUD) as cable:
        on_a_line(tmp_path, cable, story)


def test_every_count_of_the_line_is_in_the_manual() -> None:
    manual = (ROOT / "docs/controller.md").read_text()
    assert [name for name in asdict(LineStatistics()) if not re.search(rf"`{name}`", manual)] == []
