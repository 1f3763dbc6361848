"""Who has no secret is told a hello and no more, and changes nothing: neither map nor ledger, neither disk nor session.

A hello has the controller's name, the number of its start, a nonce and its limits, as docs/controller.md says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
import uvloop

from hwvirt.controller.config import LinkConfig
from hwvirt.controller.link_side import LinkSide
from hwvirt.controller.service import Service
from hwvirt.errors import LinkError
from hwvirt.link import messages as m
from hwvirt.link.codec import Kind, decode, encode
from hwvirt.link.config import LinkLimits
from hwvirt.link.wire import read_header, write_frame
from hwvirt.scsi.volume import Extent
from tests.link.link_samples import REPLIES, REQUESTS
from tests.link.pair import frames_of
from tests.link.relay import BACK, THERE, impostor, relay, talk

from .two_sides import TwoSides

_HELLO = m.Hello("a", 1, bytes(32), 256, 160 << 20, 80 << 20)


class Overheard(TwoSides):
    """`TwoSides` on a cable that somebody reads: `frames` by way."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.passed = bytearray(), bytearray()
        self.listens_at = 0

    def carry(self, passing: bytes, way: int) -> bytes:
        self.passed[way].extend(passing)
        return passing

    def frames(self, way: int) -> list[bytes]:
        """Whole frames that have gone that way."""
        return frames_of(bytes(self.passed[way]))

    def known(self) -> list[Any]:
        """Everything that may not change: B's ledger, its space and its disk, A's map and its disk, and what was counted."""
        allocator, statistics = self.store.allocator, self.side_b.endpoint.statistics
        return [
            self.store.records.rows().tobytes(),
            (allocator.free, allocator.live, allocator.freed),
            self.store.epoch,
            (self.folder / "second").read_bytes(),
            (self.folder / "first").read_bytes(),
            [path.read_bytes() for path in sorted(self.folder.glob("*.journal"))],
            list(self.volume.map.lookup(Extent(0, self.blocks))),
            (statistics.reconnects, statistics.corrupt),
            self.side_a.endpoint.statistics.reconnects,
        ]


def _on_overheard(folder: Path, story: Callable[[Overheard], Awaitable[None]]) -> None:
    async def run() -> None:
        desk = Overheard(folder)
        await desk.start_b_side()
        desk.listens_at = desk.port
        async with relay(desk.port, desk.carry) as port:
            desk.port = port
            await desk.start_a_side()
            try:
                async with asyncio.timeout(30):
                    await story(desk)
            finally:
                await desk.stop()
                desk.close()

    uvloop.run(run())


def _frame(message: m.Message, epoch: int = 0, number: int = 0, tag: int = 1) -> bytes:
    return b"".join(write_frame(epoch, number, tag, encode(message)))


def _sayings(there: list[bytes], back: list[bytes]) -> dict[str, list[bytes]]:
    """What somebody may say who has read the whole cable up to now."""
    epoch = int.from_bytes(there[-1][8:16], "little")
    hello = _frame(_HELLO)
    return {
        "nothing and goodbye": [_frame(m.Bye(m.Farewell.CLOSING))],
        "requests without a word": [_frame(request) for request in REQUESTS],
        "a hello, and requests": [hello, *(_frame(request, 0, n) for n, request in enumerate(REQUESTS, 1))],
        "a hello, and requests of the epoch": [hello, *(_frame(one, epoch, n) for n, one in enumerate(REQUESTS, 1))],
        "a hello, and a guess": [hello, _frame(m.Proof(bytes(32)), 0, 1), _frame(m.Drop(0, 0, 64), 0, 2)],
        "a hello, and a guess, and replies": [hello, *(_frame(reply, epoch, n) for n, reply in enumerate(REPLIES, 1))],
        "the whole session once more": there,
        "the whole session in one": [b"".join(there)],
        "the session behind a hello of his": [hello, *there[1:]],
        "what came back": back,
    }


@pytest.mark.parametrize("saying", _sayings([bytes(48)], []))
def test_who_has_no_secret_changes_nothing_and_hears_a_hello_at_most(tmp_path: Path, saying: str) -> None:
    async def story(desk: Overheard) -> None:
        await desk.write(10, 1, 2, 3)
        await desk.unmap(12, 1)
        await desk.flush()
        before = desk.known()
        said = _sayings(desk.frames(THERE), desk.frames(BACK))[saying]
        told = await talk(desk.listens_at, *said)
        for frame in frames_of(told):
            header = read_header(memoryview(frame), 1 << 20, "b")
            assert header is not None
            assert header.epoch == 0, "the epoch of the session is nobody's business"
            message = decode(header, memoryview(frame), "b")
            if isinstance(message, m.Hello):
                assert (message.name, message.boot_epoch, len(message.nonce)) == ("b", 2, 32)
                assert (message.credit_requests, message.credit_bytes, message.frame_bytes) == astuple(LinkLimits())
            else:
                assert isinstance(message, m.Bye)
        assert desk.known() == before
        assert await desk.read(9, 5) == [9, 1, 2, 0, 13]
        await desk.write(10, 9)
        await desk.flush()
        desk.check_one_to_one()

    _on_overheard(tmp_path, story)


def test_controller_that_reaches_somebody_else_tells_him_no_more_than_a_hello_and_a_proof(tmp_path: Path) -> None:
    """He has taken B's place, plays what B once said, and answers what he is not asked."""

    async def story(desk: Overheard) -> None:
        await desk.write(10, 1, 2, 3)
        await desk.flush()
        back = desk.frames(BACK)
        await desk.side_a.endpoint.close()
        before = desk.known()
        heard = bytearray()
        told = b"".join(back) + b"".join(_frame(reply, 0, n) for n, reply in enumerate(REPLIES))
        async with impostor(told, heard) as port:
            config = LinkConfig("connect", "b", str(desk.secret_a), "127.0.0.1", port)
            side_a = LinkSide("a", config, 1, desk.trace)
            await side_a.start({0: desk.volume}, Service(None, {}, desk.trace))
            with pytest.raises(LinkError, match="calls itself b and does not know the secret"):
                await side_a.wait_up()
            await side_a.close()
        kinds = [Kind(frame[5]).name for frame in frames_of(bytes(heard))]
        assert set(kinds) == {"HELLO", "PROOF", "BYE"}
        assert desk.known() == before

    _on_overheard(tmp_path, story)
