"""Somebody sits in the cable between two controllers, on real sockets, without the secret: he can end sessions, no more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from hwvirt.digest import crc32c
from hwvirt.errors import LinkError
from hwvirt.link import messages as m
from hwvirt.link.codec import FIRST_REQUEST, Kind, encode
from hwvirt.link.config import Role
from hwvirt.link.endpoint import Endpoint, Responder
from hwvirt.link.faults import Frames
from hwvirt.link.faults.forgery import forged
from hwvirt.link.wire import HEADER_BYTES, write_frame
from tests.link.link_rig import LinkRig, echo, play, soon, until
from tests.link.link_samples import write_of
from tests.link.pair import frames_of
from tests.link.relay import BACK, THERE, impostor, relay, talk

_EPOCH = slice(8, 16)
_SEALED = slice(0, HEADER_BYTES - 4)


@dataclass
class Between:
    """What he has recorded, by way; `change` may exchange a frame for others, in one direction at a time."""

    change: Callable[[bytes, int], list[bytes]] | None = None
    recorded: tuple[list[bytes], list[bytes]] = field(default_factory=lambda: ([], []))
    _cutters: list[Frames] = field(default_factory=lambda: [Frames(), Frames()])

    def carry(self, passing: bytes, way: int) -> bytes:
        out = []
        for frame in self._cutters[way].cut(passing):
            if frame[5] == Kind.HELLO:
                self.recorded[way].clear()
            self.recorded[way].append(frame)
            out += self.change(frame, way) if self.change else [frame]
        return b"".join(out)

    def once(self, way: int, change: Callable[[bytes], list[bytes]]) -> None:
        """The next request or reply that goes that way becomes other frames."""

        def strike(frame: bytes, at_way: int) -> list[bytes]:
            if at_way != way or frame[5] < FIRST_REQUEST:
                return [frame]
            self.change = None
            return change(frame)

        self.change = strike


def _with_him(story: Callable[[LinkRig, Between, Endpoint, Endpoint, list[m.Request]], Awaitable[None]]) -> None:
    async def whole(rig: LinkRig) -> None:
        heard: list[m.Request] = []

        def answer(request: m.Request, responder: Responder) -> None:
            heard.append(request)
            echo(request, responder)

        him = Between()
        b = await rig.endpoint(Role.LISTEN, answer=answer)
        async with relay(b.port, him.carry) as port:
            a = await rig.endpoint(Role.CONNECT, port)
            await asyncio.gather(a.wait_up(soon()), b.wait_up(soon()))
            try:
                await story(rig, him, a, b, heard)
            finally:
                await asyncio.gather(a.close(), b.close())

    play(whole)


def _with_right_crc(frame: bytes) -> bytes:
    return frame[_SEALED] + crc32c(frame[_SEALED]).to_bytes(4, "little") + frame[HEADER_BYTES:]


def _flipped(at: int) -> Callable[[bytes], list[bytes]]:
    return lambda frame: [_with_right_crc(frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :])]


_TAMPERING: dict[str, Callable[[bytes], list[bytes]]] = {
    "a bit of the kind": _flipped(5),
    "a bit of the tag": _flipped(20),
    "a bit of the seal": _flipped(40),
    "a bit of the meta": _flipped(HEADER_BYTES),
    "the end cut off, more behind it": lambda frame: [frame[:-1], b"\xff" * 200],
    "lost, more behind it": lambda frame: [_made_up(frame, m.Ping(1))],
    "made up": lambda frame: [_made_up(frame, m.Flush(99)), frame],
    "made up reply": lambda frame: [_made_up(frame, m.Flushed(99)), frame],
}


def _made_up(frame: bytes, message: m.Message) -> bytes:
    """Right in epoch, number and tag, which everybody can read."""
    number, tag = int.from_bytes(frame[16:20], "little"), int.from_bytes(frame[20:24], "little")
    return b"".join(write_frame(int.from_bytes(frame[_EPOCH], "little"), number, tag, encode(message)))


@pytest.mark.parametrize("way", [THERE, BACK], ids=["request", "reply"])
@pytest.mark.parametrize("tamper", _TAMPERING)
def test_frame_that_he_changes_is_not_believed(tamper: str, way: int) -> None:
    async def story(rig: LinkRig, him: Between, a: Endpoint, b: Endpoint, heard: list[m.Request]) -> None:
        him.once(way, _TAMPERING[tamper])
        with pytest.raises(LinkError):
            await a.request(m.Flush(1))
        assert heard == ([] if way == THERE else [m.Flush(1)])
        await until(lambda: a.statistics.reconnects == 1)
        assert await a.request(m.Flush(2)) == m.Flushed(2)

    _with_him(story)


def test_reply_with_another_position_is_not_believed() -> None:
    async def story(rig: LinkRig, him: Between, a: Endpoint, b: Endpoint, heard: list[m.Request]) -> None:
        him.once(BACK, lambda frame: [forged(frame) or b"", frame])
        with pytest.raises(LinkError):
            await a.request(write_of(bytes(512)))
        await until(lambda: a.statistics.reconnects == 1)
        assert await a.request(write_of(bytes(512))) == m.Written(1, [m.Placement(0, 1, 1)])

    _with_him(story)


def test_frame_that_goes_back_where_it_came_from_is_not_believed() -> None:
    async def story(rig: LinkRig, him: Between, a: Endpoint, b: Endpoint, heard: list[m.Request]) -> None:
        requests: list[bytes] = []
        him.once(THERE, lambda frame: requests.append(frame) or [frame])  # type: ignore[func-returns-value]
        assert await a.request(m.Flush(1)) == m.Flushed(1)
        him.once(BACK, lambda frame: [*requests, _renumbered(requests[0], frame), frame])
        with pytest.raises(LinkError):
            await a.request(m.Flush(2))
        assert heard == [m.Flush(1), m.Flush(2)]

    _with_him(story)


def _renumbered(frame: bytes, like: bytes) -> bytes:
    return _with_right_crc(frame[:16] + like[16:20] + frame[20:])


@pytest.mark.parametrize("patched", [False, True], ids=["as it was", "with the epoch of now"])
def test_request_of_a_former_session_is_not_heard_again(patched: bool) -> None:
    async def story(rig: LinkRig, him: Between, a: Endpoint, b: Endpoint, heard: list[m.Request]) -> None:
        assert await a.request(m.Flush(1)) == m.Flushed(1)
        former = list(him.recorded[THERE])
        assert a._live is not None
        a._live.end(LinkError("link: the test wants another session."))
        await until(lambda: a.statistics.reconnects == b.statistics.reconnects == 1)
        refused = b.statistics.refused

        def splice(frame: bytes) -> list[bytes]:
            if not patched:
                return [*former, frame]
            return [_with_right_crc(old[:8] + frame[_EPOCH] + frame[16:20] + old[20:]) for old in former[2:]] + [frame]

        him.once(THERE, splice)
        if patched:
            with pytest.raises(LinkError):
                await a.request(m.Flush(2))
            assert heard == [m.Flush(1)]
        else:
            assert await a.request(m.Flush(2)) == m.Flushed(2)
            assert heard == [m.Flush(1), m.Flush(2)]
            assert b.statistics.refused == refused + len(former)

    _with_him(story)


def test_frames_in_another_order_are_not_acted_on() -> None:
    async def story(rig: LinkRig, him: Between, a: Endpoint, b: Endpoint, heard: list[m.Request]) -> None:
        held: list[bytes] = []

        def swap(frame: bytes, way: int) -> list[bytes]:
            if way == BACK or frame[5] < FIRST_REQUEST:
                return [frame]
            held.append(frame)
            return [held[1], held[0]] if len(held) == 2 else []

        him.change = swap
        results = await asyncio.gather(a.request(m.Flush(1)), a.request(m.Flush(2)), return_exceptions=True)
        assert all(isinstance(result, LinkError) for result in results)
        assert heard == []

    _with_him(story)


def test_whole_session_played_back_is_refused_by_either_end() -> None:
    """He plays what he has recorded to each side, as soon as the same thing was said before, and piece by piece."""

    async def story(rig: LinkRig, him: Between, a: Endpoint, b: Endpoint, heard: list[m.Request]) -> None:
        await a.request(write_of(bytes(512)))
        await a.request(m.Flush(1))
        there, back = (list(frames) for frames in him.recorded)
        before = list(heard)
        for said in ([b"".join(there)], there, there[:2], [there[0], *there[2:]], there[1:], back):
            refused = b.statistics.refused_peers
            told = await talk(b.port, *said)
            # His hello is answered as anybody's; what his proof is worth is all that he learns.
            assert [frame[5] for frame in frames_of(told)] in ([], [Kind.HELLO], [Kind.HELLO, Kind.BYE])
            await until(lambda refused=refused: b.statistics.refused_peers > refused)  # type: ignore[misc]
        assert heard == before
        assert (b.statistics.reconnects, await a.request(m.Flush(2))) == (0, m.Flushed(2))
        await _play_to_a_dialler(rig, back)

    _with_him(story)


async def _play_to_a_dialler(rig: LinkRig, back: list[bytes]) -> None:
    heard = bytearray()
    async with impostor(b"".join(back), heard) as port:
        c = await rig.endpoint(Role.CONNECT, port, name="a")
        with pytest.raises(LinkError, match="calls itself b and does not know the secret"):
            await c.wait_up(soon())
        await until(lambda: len(heard) > 0)
        await c.close()
    assert {frame[5] for frame in frames_of(bytes(heard))} == {Kind.HELLO, Kind.PROOF, Kind.BYE}
