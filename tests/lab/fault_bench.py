"""Runs inside a kernel of the lab: both controllers' storage in one process, on two SCSI disks that fail as they are told.

    host command -> DeviceServer -> RedirectVolume -+- DiskVolume -> RemovableDisk -> SgDisk (first)
                                                    +- LocalStore -> DiskVolume -> RemovableDisk -> SgDisk (second)

A row a line on standard input, what its host saw a line on standard output.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Literal

import msgspec

from hwvirt.buffers import joined
from hwvirt.controller.correlation import CorrelationMap
from hwvirt.controller.journal import Journal
from hwvirt.controller.lifecycle import Lifecycle
from hwvirt.controller.map_journal import MapJournal
from hwvirt.controller.recovery import durable_ledger, reconcile, send_again
from hwvirt.controller.redirect import RedirectVolume
from hwvirt.controller.states import State
from hwvirt.controller.store import SEND_AGAIN, LocalStore
from hwvirt.disk.discovery.place import Place
from hwvirt.disk.discovery.removable import RemovableDisk
from hwvirt.disk.faulty import Rule
from hwvirt.disk.passthrough import SgDisk
from hwvirt.disk.volume import DiskVolume
from hwvirt.lab.disks import GuestDisk, ScsiDebug, make
from hwvirt.lab.tcmu import ServedDisk, Tcmu, serve
from hwvirt.scsi.cdb import read_16, synchronize_cache_16, unmap, write_16
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.sense import CheckCondition, decode_sense
from hwvirt.scsi.server.device import DeviceServer
from hwvirt.scsi.status import Status
from hwvirt.scsi.volume import Extent
from hwvirt.scsi.vpd import Identity
from hwvirt.trace import Trace
from hwvirt.units import Deadline

SIZE_BYTES = 8 << 20
FIRST, STORE = Extent(300, 256), Extent(700, 512)
"""Windows that begin elsewhere than at LBA 0, and not at the same one: an LBA that was not translated shows."""

THIN = ScsiDebug(SIZE_BYTES, 512, {"lbpu": "1", "lbpws": "1", "lbprz": "1"})
PATIENCE_S = 0.5
IDENTITY = Identity("HWVIRT", "FAULT TABLE", "0001", "0", naa=0x3000000000000001)


class Side(Enum):
    """Whose disk fails."""

    FIRST = "first"
    SECOND = "second"


class Event(Enum):
    """What happens to a thin disk of scsi_debug, with blocks of 512 bytes."""

    RESET = "its device is reset"
    REMOVAL = "it is pulled"
    NOTHING = "it works"


class Row(msgspec.Struct, frozen=True):
    """One row of the table. `before`, `after`: host commands ("write LBA BLOCKS", "flush").

    Extents of rules are the host's LBAs of blocks that lie on the side's disk when the fault comes.
    """

    side: Side
    fault: tuple[Rule, ...] | Event
    after: tuple[str, ...]
    sees: tuple[str, ...]
    before: tuple[str, ...] = ()
    state: State = State.REDIRECTING
    block_bytes: Literal[512, 4096] = 512


class Impatient(SgDisk):
    """A real disk that nobody waits half a minute for."""

    def execute(self, command: Command, deadline: Deadline) -> Completion:
        return super().execute(command, Deadline.after(min(deadline.remaining, PATIENCE_S)))


class MendedStore(LocalStore):
    """A store that gets what it asks for as it does over a link, where a new session begins and mends the volume."""

    mends: RedirectVolume

    async def flush(self, volume: int) -> int:
        try:
            return await super().flush(volume)
        except CheckCondition as error:
            if error.sense != SEND_AGAIN:
                raise
        reconcile(self.mends, await send_again(self.mends, self, await durable_ledger(self.mends, self)))
        return await super().flush(volume)


class Host:
    """Sends commands to a logical unit and knows what may be read back: every block is filled with its version."""

    def __init__(self, server: DeviceServer, block_bytes: int) -> None:
        self._server, self._block_bytes = server, block_bytes
        self._version = 0
        self._possible: dict[int, set[int]] = {}

    async def does(self, text: str) -> str:
        """Executes one command; says in words how it ended."""
        verb, *numbers = text.split()
        lba, blocks = [*map(int, numbers), 0, 0][:2]
        (completion,) = await self._server.execute([self._command(verb, lba, blocks)])
        if completion.status == Status.CHECK_CONDITION:
            return str(decode_sense(completion.sense))
        if completion.good and verb == "read":
            return self._judged(lba, bytes(joined(completion.data)))
        if completion.good and verb in ("write", "unmap"):
            now = self._version if verb == "write" else 0
            self._possible |= {block: {now} for block in range(lba, lba + blocks)}
        return completion.status.name

    def _command(self, verb: str, lba: int, blocks: int) -> Command:
        if verb == "flush":
            return Command(synchronize_cache_16())
        if verb == "read":
            return Command(read_16(lba, blocks), (), blocks * self._block_bytes)
        self._version += verb == "write"
        for block in range(lba, lba + blocks):
            self._possible.setdefault(block, {0}).add(self._version if verb == "write" else 0)
        if verb == "unmap":
            return unmap([Extent(lba, blocks)])
        return Command(write_16(lba, blocks), (bytes([self._version]) * (blocks * self._block_bytes),))

    def _judged(self, lba: int, data: bytes) -> str:
        size = self._block_bytes
        for number in range(len(data) // size):
            block = data[number * size : (number + 1) * size]
            if block != block[:1] * size or block[0] not in self._possible.get(lba + number, {0}):
                return f"WRONG DATA at {lba + number}"
        return "GOOD"


class Bench:
    """Two disks of tcmu for each block size, and two of scsi_debug, made anew after one was pulled."""

    def __init__(self, stack: ExitStack) -> None:
        self._served: dict[tuple[int, Side], ServedDisk] = {}
        for block_bytes in (512, 4096):
            for side in Side:
                spec = Tcmu(f"{side.value}-{block_bytes}", SIZE_BYTES, block_bytes)
                self._served[block_bytes, side] = stack.enter_context(serve(spec))
        self._made = stack.enter_context(ExitStack())
        self._debug: dict[Side, GuestDisk] = {}

    def disks(self, row: Row) -> dict[Side, GuestDisk]:
        """Both disks of a row; none of them fails."""
        if isinstance(row.fault, Event):
            if not self._debug:
                self._debug = {side: self._made.enter_context(make(THIN)) for side in Side}
            return self._debug
        for one in self._served.values():
            one.set_rules(())
        return {side: self._served[row.block_bytes, side].disk for side in Side}

    def renew(self) -> None:
        """A disk has gone."""
        self._made.close()
        self._debug = {}

    def strike(self, row: Row, disks: dict[Side, GuestDisk], volume: RedirectVolume) -> None:
        """The fault comes."""
        disk = disks[row.side]
        match row.fault:
            case Event.RESET:
                subprocess.run(["sg_reset", "--device", disk.sg], check=True, stdout=subprocess.DEVNULL)
            case Event.REMOVAL:
                Path(f"/sys/block/{Path(disk.block).name}/device/delete").write_text("1")
            case Event.NOTHING:
                pass
            case rules:
                moved = [replace(rule, extent=_on_disk(rule, row.side, volume)) for rule in rules]
                self._served[row.block_bytes, row.side].set_rules(moved)


def _on_disk(rule: Rule, side: Side, volume: RedirectVolume) -> Extent | None:
    if rule.extent is None:
        return None
    if side is Side.FIRST:
        return Extent(FIRST.lba + rule.extent.lba, rule.extent.blocks)
    (run,) = volume.map.lookup(rule.extent)
    assert run.placement is not None
    return Extent(STORE.lba + run.placement.lba, rule.extent.blocks)


async def play(row: Row, bench: Bench) -> list[str]:
    """What the host sees of the commands after the fault."""
    disks = bench.disks(row)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        volumes = {}
        for side, window in ((Side.FIRST, FIRST), (Side.SECOND, STORE)):
            sg = RemovableDisk(Impatient(disks[side].sg), Place(disks[side].sg).occupied)  # as controllers have it
            stack.callback(sg.close)
            volumes[side] = DiskVolume(sg, window, row.block_bytes)
            stack.callback(volumes[side].close)
        await volumes[Side.FIRST].unmap([Extent(0, FIRST.blocks)])
        for volume in volumes.values():
            await volume.flush()
        trace = Trace("bench")
        ledger, journal = Journal(folder, "ledger"), Journal(folder, "map-0")
        stack.callback(ledger.close)
        stack.callback(journal.close)
        store = MendedStore(volumes[Side.SECOND], ledger, trace)
        correlation = CorrelationMap(FIRST.blocks)
        redirect = RedirectVolume(0, volumes[Side.FIRST], store, MapJournal(journal, correlation), correlation)
        store.mends = redirect
        lifecycle = Lifecycle(redirect, trace)
        lifecycle.load()
        await lifecycle.start(row.state)
        host = Host(DeviceServer(redirect, IDENTITY), row.block_bytes)
        try:
            seen = [await host.does(command) for command in row.before]
            if seen != ["GOOD"] * len(row.before):
                return [f"before the fault: {seen}"]
            bench.strike(row, disks, redirect)
            return [await host.does(command) for command in row.after]
        finally:
            await lifecycle.close()


def main() -> None:
    """Plays row after row."""
    with ExitStack() as stack:
        bench = Bench(stack)
        for line in sys.stdin:
            row = msgspec.json.decode(line, type=Row)
            print(msgspec.json.encode(asyncio.run(play(row, bench))).decode(), flush=True)
            if row.fault is Event.REMOVAL:
                bench.renew()


if __name__ == "__main__":
    main()
