"""Two controllers' link sides in one process, over a real TCP connection, on files in a folder."""

from __future__ import annotations

import socket
from pathlib import Path

from hwvirt.controller.config import LinkConfig
from hwvirt.controller.correlation import CorrelationMap
from hwvirt.controller.journal import Journal
from hwvirt.controller.lifecycle import Lifecycle
from hwvirt.controller.link_side import LinkSide
from hwvirt.controller.link_store import LinkStore
from hwvirt.controller.map_journal import MapJournal
from hwvirt.controller.redirect import RedirectVolume
from hwvirt.controller.service import Service
from hwvirt.controller.states import State
from hwvirt.scsi.command import LogicalUnit
from hwvirt.trace import Event

from .desk import BLOCK, Desk


class TwoSides(Desk):
    """A `Desk` whose volume reaches its store through the link."""

    def __init__(self, folder: Path, blocks: int = 64, store_blocks: int = 96, stall_s: float = 5.0) -> None:
        super().__init__(folder, blocks, store_blocks)
        self.stall_s = stall_s
        self.units: dict[int, LogicalUnit] = {}
        self.boot_a, self.boot_b = 100, 200
        self.secret_a, self.secret_b = folder / "secret-a", folder / "secret-b"
        self.secret_a.write_text("the secret")
        self.secret_b.write_text("the secret")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    async def start(self, initial: State = State.REDIRECTING) -> None:
        await self.start_b_side()
        await self.start_a_side(initial)

    async def start_b_side(self) -> None:
        self.start_b()
        self.boot_b += 1
        config = LinkConfig("listen", "a", str(self.secret_b), "127.0.0.1", self.port)
        self.side_b = LinkSide("b", config, self.boot_b, self.trace)
        await self.side_b.start({}, Service(self.store, self.units, self.trace))

    async def start_a_side(self, initial: State = State.REDIRECTING) -> None:
        config = LinkConfig(
            "connect", "b", str(self.secret_a), "127.0.0.1", self.port, stall_s=self.stall_s, up_within_s=5.0
        )
        self.boot_a += 1
        self.side_a = LinkSide("a", config, self.boot_a, self.trace)
        correlation = CorrelationMap(self.blocks)
        self.map_journal = Journal(self.folder, "map-0")
        store = LinkStore(self.side_a.patient, BLOCK)
        self.volume = RedirectVolume(0, self.first, store, MapJournal(self.map_journal, correlation), correlation)
        self.lifecycle = Lifecycle(self.volume, self.trace)
        self.lifecycle.load()
        await self.side_a.start({0: self.volume}, Service(None, {}, self.trace))
        await self.side_a.wait_up()
        await self.lifecycle.start(initial)

    async def stop_b(self) -> None:
        """B is gone; what it had not made durable is gone with it."""
        await self.side_b.close()
        self.ledger_journal.close()

    async def stop_a(self) -> None:
        """A is gone; what it had not made durable is gone with it."""
        await self.lifecycle.close()
        await self.side_a.close()
        self.map_journal.close()

    async def stop(self) -> None:
        await self.stop_a()
        await self.stop_b()

    def said(self, name: str) -> list[Event]:
        return [event for event in self.events if event.name == name]
