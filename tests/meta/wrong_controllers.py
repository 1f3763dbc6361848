"""Deliberately wrong controllers: `python -m tests.meta.wrong_controllers NAME CONFIG`. The judge must convict each."""

from __future__ import annotations

import asyncio
import asyncio.unix_events
import os
import signal
import sys
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hwvirt.buffers import Pieces
from hwvirt.controller import daemon, verbs
from hwvirt.controller.correlation import CorrelationMap
from hwvirt.controller.link_store import LinkStore
from hwvirt.controller.redirect import RedirectVolume
from hwvirt.digest import block_digests
from hwvirt.link.messages import Placement, Slice
from hwvirt.scsi.sense import CheckCondition
from hwvirt.scsi.volume import Durability, Extent, Write

LBA = 77
"""The block that the defects are about."""


def swapped_entries() -> None:
    """The positions of two blocks change places in the map once, after the workload has written both."""
    inner = verbs._map
    swapped: set[int] = set()

    def swap(volume: RedirectVolume, arguments: Any) -> dict[str, Any]:
        places = [volume.map.lookup(Extent(lba, 1))[0].placement for lba in (LBA, LBA + 1)]
        if not swapped and places[0] and places[1]:
            sequence = volume.map.last_sequence() + 1
            volume.map.bind([Slice(LBA, 1, sequence), Slice(LBA + 1, 1, sequence)], [places[1], places[0]])
            swapped.add(volume.number)
        return inner(volume, arguments)

    vars(verbs)["_map"] = swap


def lost_write() -> None:
    """Writes to one block are acknowledged and forgotten."""
    _forget_positions(lambda correlation: True)


def stale_map() -> None:
    """Only the first write of one block finds its way into the map."""
    _forget_positions(lambda correlation: correlation.lookup(Extent(LBA, 1))[0].placement is not None)


def _forget_positions(forgets: Callable[[CorrelationMap], bool]) -> None:
    inner = CorrelationMap.bind

    def bind(self: CorrelationMap, slices: Sequence[Slice], placements: Sequence[Placement]) -> list[Placement]:
        if not any(run.lba == LBA for run in slices) or not forgets(self):
            return inner(self, slices, placements)
        blocks = [Placement(place.lba + at, place.generation, 1) for place in placements for at in range(place.blocks)]
        gone: list[Placement] = []
        for run, place in zip(slices, blocks, strict=True):  # the rigs of these tests write single blocks
            gone += [place] if run.lba == LBA else inner(self, [run], [place])
        return gone

    CorrelationMap.bind = bind  # type: ignore[method-assign]


def writes_first_too() -> None:
    """New data goes to the second disk as it should, and one block of it to the first one as well."""
    inner = RedirectVolume.write

    async def write(
        self: RedirectVolume, writes: Sequence[Write], durability: Durability = Durability.VOLATILE
    ) -> list[CheckCondition | None]:
        await self.first.write([one for one in writes if one.lba == LBA])
        return await inner(self, writes, durability)

    RedirectVolume.write = write  # type: ignore[method-assign]


def torn_block() -> None:
    """The second half of a written block never reaches the disk."""
    inner = LinkStore.write

    async def write(
        self: LinkStore, volume: int, slices: Sequence[Slice], data: Pieces, digests: array[int]
    ) -> list[Placement]:
        whole = bytearray(b"".join(data))
        size = len(whole) // len(digests)
        whole[size // 2 : size] = bytes(size - size // 2)
        return list(await inner(self, volume, slices, [bytes(whole)], block_digests([bytes(whole)], size)))

    LinkStore.write = write  # type: ignore[method-assign]


def will_not_stop() -> None:
    """The daemon does not hear what it is told."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    vars(daemon)["uvloop"] = asyncio  # whose loop can be told not to listen
    asyncio.unix_events._UnixSelectorEventLoop.add_signal_handler = lambda *_: None  # type: ignore[method-assign]


WRONG: dict[str, Callable[[], None]] = {
    function.__name__: function
    for function in (swapped_entries, lost_write, writes_first_too, stale_map, torn_block, will_not_stop)
}


if __name__ == "__main__":
    WRONG[sys.argv[1]]()
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115  the daemon's own
    sys.exit(daemon.main(Path(sys.argv[2])))
