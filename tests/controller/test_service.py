"""A peer that has proven itself still cannot make this controller hold more of replies than is granted."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from hwvirt.buffers import length
from hwvirt.controller.reply_room import ReplyRoom
from hwvirt.controller.service import REPLIES_BYTES, REPLY_BYTES, Service
from hwvirt.link import messages as m
from hwvirt.link.codec import Kind, encode
from hwvirt.link.config import LinkLimits, Role
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.sense import INVALID_FIELD_IN_PARAMETER_LIST
from hwvirt.scsi.status import Status
from hwvirt.trace import Trace
from tests.link.link_rig import LinkRig, play, soon

from .desk import BLOCK, Desk, on_desk


class Slow:
    """A peer: `replies` in their order, and what is to be told when it has taken them."""

    most_bytes = 1 << 30

    def __init__(self) -> None:
        self.replies: list[m.Reply] = []
        self.told: list[Callable[[], None]] = []

    def reply(self, message: m.Reply) -> None:
        self.replies.append(message)

    def when_sent(self, told: Callable[[], None]) -> None:
        self.told.append(told)

    @property
    def read_bytes(self) -> list[int]:
        return [length(reply.data) for reply in self.replies if isinstance(reply, m.ReadData)]


def test_large_replies_wait_in_their_order_until_the_peer_has_taken_those_before(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        await desk.write(0, *range(8))
        service, peer = Service(desk.store, {}, desk.trace), Slow()
        service._room = ReplyRoom(4 * BLOCK)
        for blocks in (3, 2, 1, 4):
            service.on_request(m.Read(0, [m.Placement(0, desk.store.allocator.lap, blocks)]), peer)
        service.on_request(m.Flush(0), peer)
        assert peer.read_bytes == [3 * BLOCK], "two more would be too much, and the one behind them may not overtake"
        while len(peer.replies) < 2:
            await desk.flush()
        assert isinstance(peer.replies[1], m.Flushed), "what has no data waits for nobody"
        for expected in ([3, 2, 1], [3, 2, 1], [3, 2, 1, 4]):
            peer.told.pop(0)()
            for _ in range(3):
                await desk.flush()
            assert peer.read_bytes == [blocks * BLOCK for blocks in expected]
        peer.told.pop(0)()
        assert service._room.taken_bytes == 0
        assert peer.told == []

    on_desk(tmp_path, story)


class Zeroes:
    """A logical unit that answers with as many zeroes as it was asked for."""

    executed = 0

    async def execute(self, batch: list[Command]) -> list[Completion]:
        self.executed += 1
        return [Completion(Status.GOOD, (bytes(command.data_in_length),)) for command in batch]


@pytest.mark.parametrize("kind", ["read", "execute"])
def test_request_whose_reply_would_be_too_large_is_refused_before_any_work(tmp_path: Path, kind: str) -> None:
    async def story(desk: Desk) -> None:
        unit = Zeroes()
        service, peer = Service(desk.store, {0: unit}, desk.trace), Slow()  # type: ignore[dict-item]  # a list is a sequence
        blocks = REPLY_BYTES // BLOCK + 1
        if kind == "read":
            size_bytes = 48 + blocks * (4 + BLOCK)
            service.on_request(m.Read(0, [m.Placement(0, 1, blocks - 1), m.Placement(0, 1, 1)]), peer)
        else:
            size_bytes = 48 + 4 + 2 * 11 + blocks * BLOCK
            service.on_request(m.Execute(0, [Command(bytes(16), (), REPLY_BYTES), Command(bytes(16), (), BLOCK)]), peer)
        reason = f"a reply of {size_bytes} bytes is asked for, more than {REPLY_BYTES}"
        assert peer.replies == [m.Refused(INVALID_FIELD_IN_PARAMETER_LIST, reason=reason)]
        assert (unit.executed, service._room.taken_bytes) == (0, 0)
        service.on_request(m.Execute(0, [Command(bytes(16), (), BLOCK)]), peer)
        assert unit.executed == 1

    on_desk(tmp_path, story)


COMMANDS = {
    "data": Command(bytes(16), (), 100 * BLOCK),
    "no-data": Command(bytes(16)),
    "less-than-a-sense": Command(bytes(16), (), 36),
}


@pytest.mark.parametrize("kind", ["read", "query", *COMMANDS])
def test_reply_is_refused_by_what_its_whole_frame_may_have_and_the_peer_takes(tmp_path: Path, kind: str) -> None:
    """Header, digests and rows count, and so does a sense that each command may end with; one byte decides."""

    async def story(desk: Desk) -> None:
        await desk.write(0, *range(8))
        unit = Zeroes()
        service, peer = Service(desk.store, {0: unit}, desk.trace), Slow()  # type: ignore[dict-item]  # a list is a sequence
        request: m.Request
        if kind == "read":
            request, frame_bytes = m.Read(0, [m.Placement(0, desk.store.allocator.lap, 8)]), 48 + 8 * (4 + BLOCK)
        elif kind == "query":
            request, frame_bytes = m.Query(0, None, 8), 48 + 4 + 8 + 8 * 40
        else:
            one = COMMANDS[kind]
            request, frame_bytes = m.Execute(0, [one] * 7), 48 + 4 + 7 * (11 + max(one.data_in_length, 252))
        peer.most_bytes = frame_bytes - 1
        service.on_request(request, peer)
        reason = f"a reply of {frame_bytes} bytes is asked for, more than {frame_bytes - 1}"
        assert peer.replies == [m.Refused(INVALID_FIELD_IN_PARAMETER_LIST, reason=reason)]
        assert (unit.executed, service._room.taken_bytes, peer.told) == (0, 0, [])
        peer.most_bytes = frame_bytes
        service.on_request(request, peer)
        while len(peer.replies) < 2:
            await desk.flush()
        body = encode(peer.replies[1])
        assert body.kind == {"read": Kind.READ_DATA, "query": Kind.LEDGER_PAGE}.get(kind, Kind.EXECUTED)
        assert body.frame_bytes <= frame_bytes
        if kind in ("read", "query", "data"):
            assert body.frame_bytes == frame_bytes
        else:
            worst = m.Executed([Completion(Status.CHECK_CONDITION, (), bytes(252))] * 7)
            assert frame_bytes - 4 <= encode(worst).frame_bytes <= frame_bytes, "there is no digest where there is no data"

    on_desk(tmp_path, story)


def test_request_is_judged_by_what_its_peer_has_told_in_the_hello() -> None:
    async def story(rig: LinkRig) -> None:
        unit = Zeroes()
        service = Service(None, {0: unit}, Trace("b"))  # type: ignore[dict-item]  # a list is a sequence
        limits = LinkLimits(requests=4, request_bytes=1 << 20, frame_bytes=1 << 16)
        b = await rig.endpoint(Role.LISTEN, answer=service.on_request)
        a = await rig.endpoint(Role.CONNECT, b.port, limits=limits)
        await a.wait_up(soon())
        most_bytes = limits.frame_bytes - 48 - 4 - 11
        for size_bytes, executed in ((most_bytes, 1), (most_bytes + 1, 1), (most_bytes, 2)):
            reply = await a.request(m.Execute(0, [Command(bytes(16), (), size_bytes)]))
            assert unit.executed == executed
            if size_bytes == most_bytes:
                assert reply == m.Executed([Completion(Status.GOOD, (bytes(most_bytes),))])
            else:
                reason = f"a reply of {(1 << 16) + 1} bytes is asked for, more than {1 << 16}"
                assert reply == m.Refused(INVALID_FIELD_IN_PARAMETER_LIST, reason=reason)

    play(story)


@pytest.mark.parametrize("limit", [0, 1, 0xFFFF_FFFF])
def test_a_page_of_the_ledger_is_never_empty_nor_larger_than_is_sensible(tmp_path: Path, limit: int) -> None:
    async def story(desk: Desk) -> None:
        await desk.write(0, *range(8))
        service, peer = Service(desk.store, {}, desk.trace), Slow()
        service.on_request(m.Query(0, None, limit), peer)
        (page,) = peer.replies
        assert isinstance(page, m.LedgerPage)
        assert length(page.rows) == 40 * (8 if limit > 1 else 1)
        assert service._room.taken_bytes <= 40 << 16
        peer.told.pop()()
        assert service._room.taken_bytes == 0

    on_desk(tmp_path, story)


def test_one_reply_always_fits() -> None:
    assert REPLY_BYTES <= REPLIES_BYTES == ReplyRoom(REPLIES_BYTES).most_bytes


_NOT_A_LBA = 1 << 63


@pytest.mark.parametrize(
    "request_",
    [
        m.Write(3, 0, [m.Slice(0, 1, 1), m.Slice(40, 1, 1)], (bytes(2 * BLOCK),), array("I", [0, 0])),
        m.Unmap(3, [m.Slice(_NOT_A_LBA, 1, 2)]),
        m.Drop(3, 0, 41),
        m.Free(3, [m.Placement(95, 1, 2)]),
        m.Free(3, [m.Placement(_NOT_A_LBA, 1, 1)]),
    ],
    ids=lambda request: f"{type(request).__name__}",
)
def test_what_lies_beyond_volume_or_store_is_refused_and_changes_nothing(tmp_path: Path, request_: m.Request) -> None:
    async def story(desk: Desk) -> None:
        service, peer = Service(desk.store, {}, desk.trace), Slow()
        service.on_request(m.Attach(3, 40, BLOCK, 0), peer)
        service.on_request(request_, peer)
        assert peer.replies[1:] == [m.Refused(INVALID_FIELD_IN_PARAMETER_LIST)]
        assert len(desk.store.records.rows()) == 0
        assert desk.second.changes == 0
        service.on_request(m.Unmap(3, [m.Slice(39, 1, 1)]), peer)
        assert peer.replies[2:] == [m.Done()]

    on_desk(tmp_path, story)
