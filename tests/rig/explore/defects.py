"""Controllers with one thing wrong in how they carry a correlation over sessions and restarts."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

from hwvirt.buffers import Pieces
from hwvirt.controller import lifecycle, link_side
from hwvirt.controller.correlation import Rows
from hwvirt.controller.journal import Record
from hwvirt.controller.ledger import Ledger
from hwvirt.controller.patience import PatientLink
from hwvirt.controller.redirect import Change, RedirectVolume
from hwvirt.controller.store import LocalStore, Store
from hwvirt.link.codec import FIRST_REPLY, decode
from hwvirt.link.config import Role
from hwvirt.link.events import Event
from hwvirt.link.messages import Placement, Slice
from hwvirt.link.session import Session, State
from hwvirt.link.wire import Header, Seal, read_header
from hwvirt.rig.explore.memory import MemoryJournal
from hwvirt.scsi.sense import CheckCondition
from tests.meta.planting import instead_of


def reply_of_an_old_epoch() -> None:
    """A reply counts for the request with its tag, whatever session it belongs to."""
    seals: dict[tuple[int, Role], Seal] = {}

    @instead_of(Session, "_begin_epoch")
    def begin_epoch(original: Any, self: Session, handshake: Any) -> None:
        original(self, handshake)
        seals[self._epoch, self.role] = self._peers_seal

    @instead_of(Session, "_take_frame")
    def take_frame(original: Any, self: Session, now: float, events: list[Event]) -> bool:
        unread = self._received.unread()
        header = read_header(unread, self._most_bytes, self.place) if unread else None
        if header is not None and len(unread) >= header.frame_bytes and _is_old_reply(self, header):
            message: Any = decode(header, unread[: header.frame_bytes], self.place, seals[header.epoch, self.role])
            self._received.consume(header.frame_bytes)
            self._header = None
            self._take_reply(header, message, events)
            return True
        taken: bool = original(self, now, events)
        return taken


def _is_old_reply(session: Session, header: Header) -> bool:
    return session.state is State.UP and header.kind >= FIRST_REPLY and header.epoch != session._epoch


def write_done_twice() -> None:
    """A write that is asked again gets another place; the answer is the first one."""

    @instead_of(LocalStore, "write")
    async def write(
        original: Any, self: LocalStore, volume: int, slices: Sequence[Slice], data: Pieces, digests: array[int]
    ) -> list[Placement]:
        if slices[0].sequence in self._answers.get(volume, {}):
            await self._put(volume, slices, data, digests)
        placements: list[Placement] = await original(self, volume, slices, data, digests)
        return placements


def not_sent_again() -> None:
    """What a restart of the store may have lost is not sent again."""

    @instead_of(link_side, "send_again")
    async def send_again(original: Any, volume: RedirectVolume, store: Store, rows: Rows) -> Rows:
        return rows


def forgotten_with_the_answer() -> None:
    """What was answered is not kept until a flush has covered it."""

    @instead_of(RedirectVolume, "answered")
    def answered(original: Any, self: RedirectVolume, sent: Any, placements: Sequence[Placement] | None) -> None:
        original(self, sent, placements)
        self.unflushed.clear()


def answered_before_the_ledger() -> None:
    """The store answers a flush when it has begun."""
    begun: set[asyncio.Task[None]] = set()

    @instead_of(LocalStore, "flush")
    async def flush(original: Any, self: LocalStore, volume: int) -> int:
        begun.add(asyncio.get_running_loop().create_task(self._flush_ledger()))
        return self.epoch


def adopted_before_it_is_durable() -> None:
    """What the store has in memory alone is taken over into the map."""

    for module in (lifecycle, link_side):

        @instead_of(module, "durable_ledger")
        async def durable_ledger(original: Any, volume: RedirectVolume, store: Store) -> Rows:
            return await store.ledger(volume.number)


def reused_too_early() -> None:
    """A position is given up before the map that names it no more is durable."""

    @instead_of(RedirectVolume, "answered")
    def answered(original: Any, self: RedirectVolume, sent: Any, placements: Sequence[Placement] | None) -> None:
        original(self, sent, placements)
        gone, self.superseded = self.superseded, []
        if gone:
            self._freeing = asyncio.get_running_loop().create_task(  # type: ignore[attr-defined]  # so that it lives
                self.store.free(self.number, gone)
            )


def late_landing() -> None:
    """A write that was reported failed is sent once more after a newer one of its block."""

    @instead_of(RedirectVolume, "_redirect")
    async def redirect(original: Any, self: RedirectVolume, changes: Sequence[Change]) -> list[CheckCondition | None]:
        late: dict[int, Change] = vars(self).setdefault("late", {})
        results: list[CheckCondition | None] = await original(self, changes)
        for change, failed in zip(changes, results, strict=True):
            if failed:
                late[change.lba] = change
            elif change.lba in late:
                await original(self, [late.pop(change.lba)])
        return results


def doubt_forgotten() -> None:
    """A link that comes back does not ask what became of a write that was reported failed."""

    @instead_of(PatientLink, "_fail_stalled")
    def fail_stalled(original: Any, self: PatientLink) -> None:
        original(self)
        self.lost.clear()


def flush_trusted() -> None:
    """A flush of the second disk is taken for what an earlier one, which failed, should have been."""

    @instead_of(Ledger, "doubt_changes")
    def doubt_changes(original: Any, self: Ledger) -> None:
        """Nothing is in doubt."""


def read_before_it_is_durable() -> None:
    """A journal tells at a start what its process had not synced, and leaves it so."""

    @instead_of(MemoryJournal, "recover")
    def recover(original: Any, self: MemoryJournal) -> Iterator[Record]:
        synced = self.synced
        yield from original(self)
        self.synced = synced
