"""A host whose second controller has gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.host.raw_client import opened, request

from .by_hand import Desk, Running, serving
from .kit import PROGRAM, qemu_io, started


def test_blocks_of_the_first_disk_are_read_at_once_while_those_of_the_second_wait_for_the_link(tmp_path: Path) -> None:
    desk = Desk(tmp_path)

    async def read_both(port: int) -> None:
        async with opened(port, "lun0") as host:
            host.send(request(0, 1, 0, 4096), request(0, 2, 1 << 20, 4096))
            assert await host.simple(4096) == (2, 0, bytes(4096))

    with started(*PROGRAM, "controller", desk.b()) as process:
        b = Running(process)
        assert "nbd_port" not in b.wait_for("controller.started"), "it has no LUNs, and nothing listens"
        with serving(desk.a(b.link_port)) as a:
            qemu_io(f"nbd://127.0.0.1:{a.nbd_port}/lun0", "write -P 5 0 64k")
            process.kill()
            a.wait_for("link.down")
            asyncio.run(read_both(a.nbd_port))
