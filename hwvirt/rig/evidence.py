"""Gathers what the judge is given: from the disks directly, from the host path, from map and ledger as their owners tell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from hwvirt.buffers import joined
from hwvirt.disk.disk import Disk
from hwvirt.disk.reader import read_blocks
from hwvirt.errors import InfrastructureError
from hwvirt.host.initiator import Answer, Initiator, Op
from hwvirt.rig.judge.evidence import BlockReader, Evidence, LedgerRow, MapRow, State, TombRow
from hwvirt.rig.stage import PathLost, Stage, Unit
from hwvirt.rig.workload.drive import PATH_GONE
from hwvirt.scsi.volume import Extent

__all__ = ["gather", "read_through"]

_LIVE, _TOMBSTONE = 1, 2
_READ_S = 30.0


async def gather(stage: Stage, unit: Unit, replay: str) -> Evidence:
    """The evidence about one unit. No request may be in flight. Flushes first: positions given up are settled then."""
    to = stage.redirect_target(unit)
    window = stage.window(unit)
    owner = stage.bench.machines[unit.controller].control
    await owner.call_long("flush", lun=unit.lun)
    first = _reader_of(stage.disk_of(unit.controller), window)
    if to is None or unit.baseline is None:
        return Evidence(
            history=unit.history, blocks=window.blocks, volume=unit.lun, state=State.OWN, first=first, replay=replay
        )
    keeper = stage.bench.machines[to].control
    status = await owner.status()
    (state,) = (lun["state"] for lun in status["luns"] if lun["lun"] == unit.lun)
    await keeper.status()
    stage.remember_stores()
    map_rows = [MapRow(*row) for row in await owner.pages("map", lun=unit.lun)]
    ledger = await keeper.pages("ledger")
    store = stage.store_window(to)
    frozen_lun = stage.frozen_lun(unit)
    frozen = None
    if frozen_lun is not None:
        frozen = _reader_through(await stage.initiator(unit.controller, frozen_lun))
    return Evidence(
        history=unit.history,
        blocks=window.blocks,
        volume=unit.lun,
        state=State(state),
        map=map_rows,
        ledger=[
            LedgerRow(position, lba, sequence, generation, crc, volume)
            for position, generation, crc, lba, sequence, volume, kind in ledger
            if kind == _LIVE
        ],
        tombstones=[
            TombRow(lba, blocks, sequence, volume)
            for blocks, _, _, lba, sequence, volume, kind in ledger
            if kind == _TOMBSTONE
        ],
        volumes=stage.volumes_in(to),
        store_blocks=store.blocks,
        stores=tuple(stage.store_counts.get(to, ())),
        baseline=unit.baseline.digests,
        witnessed=stage.witnessed(unit)[unit.baseline.witnessed :],
        first=first,
        second=_reader_of(stage.disk_of(to), store),
        frozen=frozen,
        replay=replay,
    )


def _reader_of(disk: Disk, window: Extent) -> BlockReader:
    return lambda lba, blocks: read_blocks(disk, window.lba + lba, blocks)


def _reader_through(path: Initiator) -> BlockReader:
    """The judge runs in a thread of its own and waits there for the loop that owns the path."""
    loop = asyncio.get_running_loop()

    def read(lba: int, blocks: int) -> bytes:
        return asyncio.run_coroutine_threadsafe(read_through(path, lba, blocks), loop).result(_READ_S)

    return read


async def read_through(path: Initiator, lba: int, blocks: int) -> bytes:
    """Blocks as a host reads them. Raises InfrastructureError when they cannot be read, PathLost when nothing can."""
    answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    done: Callable[[Answer], None] = partial(_set, answer)
    path.submit(Op.READ, lba, blocks, (), done)
    found = await answer
    if found.error:
        where = f"LBA {lba} to {lba + blocks - 1}"
        blame = PathLost if found.error in PATH_GONE else InfrastructureError
        raise blame(f"{where} cannot be read through the host path: errno {found.error}.")
    return bytes(joined(found.data))


def _set(future: asyncio.Future[Answer], answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)
