"""Two endpoints over TCP: requests and replies, sessions that come and go."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop

from hwvirt.buffers import Pieces, joined
from hwvirt.digest import block_digests
from hwvirt.errors import LocalLinkError, PeerError
from hwvirt.link import messages as m
from hwvirt.link.config import LinkLimits, LinkTiming, Role
from hwvirt.link.endpoint import LinkState, Responder
from hwvirt.link.errors import LinkDown
from hwvirt.link.ethernet import Backoff
from tests.link.link_rig import LinkRig, echo, play, soon, until
from tests.link.link_samples import BLOCKS, write_of


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
def test_both_ends_ask_and_answer(run: Callable[..., None]) -> None:
    async def story(rig: LinkRig) -> None:
        a, b = await rig.pair()
        replies = await asyncio.gather(
            *(a.request(m.Flush(n)) for n in range(300)), *(b.request(write_of(BLOCKS, lba=n)) for n in range(300))
        )
        assert replies[:300] == [m.Flushed(n) for n in range(300)]
        assert replies[300:] == [m.Written(1, [m.Placement(0, 1, 5)])] * 300
        assert a.peer is not None and b.peer is not None
        assert (a.peer.name, b.peer.name, a.peer.epoch) == ("b", "a", b.peer.epoch)
        assert a.statistics.in_flight == b.statistics.in_flight == 0

    play(story, run)


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
def test_large_data_goes_there_and_back_whole(run: Callable[..., None]) -> None:
    async def story(rig: LinkRig) -> None:
        blocks = [bytes([n]) * (1 << 20) for n in range(40)]
        stored: list[Pieces] = []

        def store(request: m.Request, responder: Responder) -> None:
            if isinstance(request, m.Write):
                stored.append(request.data)
                responder.reply(m.Written(1, [m.Placement(len(stored) - 1, 1, 256)]))
            elif isinstance(request, m.Read):
                data = stored[request.placements[0].lba]
                responder.reply(m.ReadData(data, block_digests(data, 4096)))

        a, _ = await rig.pair(answer=store)
        await asyncio.gather(*(a.request(write_of(data, 4096)) for data in blocks))
        reads = [a.request(m.Read(0, [m.Placement(n, 1, 256)]), reply_bytes=2 << 20) for n in range(40)]
        for reply, data in zip(await asyncio.gather(*reads), blocks, strict=True):
            assert isinstance(reply, m.ReadData)
            assert joined(reply.data) == data

    play(story, run)


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
def test_many_small_pieces_of_a_great_batch_arrive_in_order(run: Callable[..., None]) -> None:
    async def story(rig: LinkRig) -> None:
        size = 64 << 20
        whole = memoryview(b"".join(n.to_bytes(4, "big") for n in range(size // 4096)) * 1024)
        pieces = [whole[at : at + 4096] for at in range(0, size, 4096)]
        seen: list[m.Request] = []

        def keep(request: m.Request, responder: Responder) -> None:
            seen.append(request)
            responder.reply(m.Busy())

        a, _ = await rig.pair(answer=keep)
        slices = [m.Slice(n * 2, 1, n) for n in range(len(pieces))]
        request = m.Write(0, 0, slices, pieces, block_digests(pieces, 4096))
        await a.request(request)
        (arrived,) = seen
        assert isinstance(arrived, m.Write)
        assert (arrived.slices, arrived.digests) == (slices, request.digests)
        assert joined(arrived.data) == whole

    play(story, run)


def test_frames_of_one_step_leave_in_one_write() -> None:
    async def story(rig: LinkRig) -> None:
        arrivals: list[float] = []
        a, _ = await rig.pair(answer=lambda request, responder: arrivals.append(responder.session_epoch))
        for n in range(50):
            a.request(m.Flush(n)).add_done_callback(lambda future: future.exception())
        await until(lambda: len(arrivals) > 0)
        assert len(arrivals) == 50

    play(story)


def test_requests_beyond_the_credit_wait_in_order() -> None:
    async def story(rig: LinkRig) -> None:
        open_requests: list[tuple[m.Request, Responder]] = []
        most = 0

        def keep(request: m.Request, responder: Responder) -> None:
            nonlocal most
            open_requests.append((request, responder))
            most = max(most, len(open_requests))

        a, _ = await rig.pair(answer=keep, limits=LinkLimits(requests=3, request_bytes=1 << 20, frame_bytes=1 << 20))
        replies = [a.request(m.Flush(n)) for n in range(20)]
        for n in range(20):
            await until(lambda: bool(open_requests))
            assert a.waiting == max(0, 17 - n)
            request, responder = open_requests.pop(0)
            assert request == m.Flush(n)
            responder.reply(m.Flushed(n))
            await replies[n]
        assert most == 3

    play(story)


def test_small_request_does_not_overtake_a_large_one_that_waits() -> None:
    async def story(rig: LinkRig) -> None:
        seen: list[tuple[m.Request, Responder]] = []
        a, _ = await rig.pair(
            answer=lambda request, responder: seen.append((request, responder)),
            limits=LinkLimits(requests=9, request_bytes=8192, frame_bytes=8192),
        )
        replies = [a.request(message) for message in (write_of(bytes(4096)), write_of(bytes(4096)), m.Flush(1))]
        for n in range(3):
            await until(lambda n=n: len(seen) > n)  # type: ignore[misc]  # mypy infers no lambda with a default
            assert a.waiting == max(0, 1 - n) * 2
            seen[n][1].reply(m.Busy())
            await replies[n]
        assert seen[2][0] == m.Flush(1)

    play(story)


def test_given_up_request_that_waits_is_not_sent() -> None:
    async def story(rig: LinkRig) -> None:
        seen: list[tuple[m.Request, Responder]] = []
        a, _ = await rig.pair(
            answer=lambda request, responder: seen.append((request, responder)),
            limits=LinkLimits(requests=1, request_bytes=1 << 20, frame_bytes=1 << 20),
        )
        first, second, third = (a.request(m.Flush(n)) for n in range(3))
        second.cancel()
        await until(lambda: len(seen) == 1)
        seen[0][1].reply(m.Flushed(0))
        await first
        await until(lambda: len(seen) == 2)
        assert seen[1][0] == m.Flush(2)
        seen[1][1].reply(m.Flushed(2))
        assert await third == m.Flushed(2)

    play(story)


def test_late_reply_to_a_given_up_request_is_dropped() -> None:
    async def story(rig: LinkRig) -> None:
        seen: list[Responder] = []
        a, _ = await rig.pair(answer=lambda request, responder: seen.append(responder))
        given_up = a.request(m.Flush(1))
        await until(lambda: bool(seen))
        given_up.cancel()
        seen[0].reply(m.Flushed(1))
        kept = a.request(m.Flush(2))
        await until(lambda: len(seen) == 2)
        seen[1].reply(m.Flushed(2))
        assert await kept == m.Flushed(2)
        assert a.statistics.in_flight == 0

    play(story)


def test_request_that_can_never_be_sent_is_refused_at_once() -> None:
    async def story(rig: LinkRig) -> None:
        a, _ = await rig.pair(limits=LinkLimits(requests=8, request_bytes=8192, frame_bytes=8192))
        with pytest.raises(LocalLinkError, match="is too large"):
            a.request(write_of(bytes(8192)))
        assert await a.request(m.Flush(3)) == m.Flushed(3)

    play(story)


# Sessions come and go


def test_link_heals_after_the_peer_restarts() -> None:
    async def story(rig: LinkRig) -> None:
        seen: list[Responder] = []
        b = await rig.endpoint(Role.LISTEN, answer=lambda request, responder: seen.append(responder))
        a = await rig.endpoint(Role.CONNECT, b.port)
        told: list[str] = []
        a.on_up = lambda peer: told.append(f"up {peer.boot_epoch}")
        a.on_down = lambda reason: told.append(f"down {type(reason).__name__}")
        await a.wait_up(soon())
        unanswered = a.request(m.Flush(1))
        await until(lambda: bool(seen))
        await b.close()
        with pytest.raises(LinkDown, match="closed the session"):
            await unanswered
        with pytest.raises(LinkDown):
            await a.request(m.Flush(2))
        assert a.state is LinkState.CONNECTING
        seen[0].reply(m.Flushed(1))
        assert b.statistics.dropped_replies == 1
        await rig.endpoint(Role.LISTEN, b.port)
        await a.wait_up(soon())
        assert await a.request(m.Flush(3)) == m.Flushed(3)
        assert told == ["up 1", "down LinkDown", "up 3"]
        assert a.statistics.reconnects == 1

    rig = play(story)
    assert [event.name for event in rig.events if event.source == "a" and event.name in ("link.up", "link.down")] == [
        "link.up",
        "link.down",
        "link.up",
        "link.down",
    ]


def test_waiting_and_sent_requests_all_fail_when_the_session_ends() -> None:
    async def story(rig: LinkRig) -> None:
        a, b = await rig.pair(
            answer=lambda request, responder: None, limits=LinkLimits(requests=2, request_bytes=8192, frame_bytes=8192)
        )
        replies = [a.request(m.Flush(n)) for n in range(10)]
        await b.close()
        outcomes = await asyncio.gather(*replies, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [LinkDown] * 10

    play(story)


def test_reply_of_an_old_session_does_not_reach_the_next() -> None:
    async def story(rig: LinkRig) -> None:
        seen: list[Responder] = []
        b = await rig.endpoint(Role.LISTEN, answer=lambda request, responder: seen.append(responder))
        old = await rig.endpoint(Role.CONNECT, b.port)
        await old.wait_up(soon())
        lost = old.request(m.Flush(1))
        await until(lambda: len(seen) == 1)
        await old.close()
        await asyncio.gather(lost, return_exceptions=True)
        new = await rig.endpoint(Role.CONNECT, b.port)
        await new.wait_up(soon())
        current = new.request(m.Flush(2))
        await until(lambda: len(seen) == 2)
        assert not seen[0].alive and seen[1].alive
        seen[0].reply(m.Flushed(1))
        assert not current.done()
        seen[1].reply(m.Flushed(2))
        assert await current == m.Flushed(2)
        assert b.statistics.dropped_replies == 1

    play(story)


def test_newer_session_of_the_same_controller_replaces_the_old() -> None:
    async def story(rig: LinkRig) -> None:
        b = await rig.endpoint(Role.LISTEN)
        told: list[str] = []
        b.on_up = lambda peer: told.append("up")
        b.on_down = lambda reason: told.append(str(reason))
        first = await rig.endpoint(Role.CONNECT, b.port)
        await first.wait_up(soon())
        await until(lambda: told == ["up"])
        second = await rig.endpoint(Role.CONNECT, b.port)
        await second.wait_up(soon())
        await until(lambda: len(told) >= 3)
        assert told[:3] == ["up", "link: a has begun a new session.", "up"]

    play(story)


def test_third_controller_does_not_disturb_the_two() -> None:
    async def story(rig: LinkRig) -> None:
        a, b = await rig.pair()
        third = await rig.endpoint(Role.CONNECT, b.port, name="c")
        with pytest.raises(PeerError) as refused:
            await third.wait_up(soon())
        assert str(refused.value) == (
            f"link: 127.0.0.1:{b.port} is the peer of another controller. Give every pair of controllers a port of its own."
        )
        assert await a.request(m.Flush(1)) == m.Flushed(1)
        assert b.statistics.reconnects == 0

    play(story)


def test_named_peer_alone_is_accepted() -> None:
    async def story(rig: LinkRig) -> None:
        b = await rig.endpoint(Role.LISTEN, peer="a")
        other = await rig.endpoint(Role.CONNECT, b.port, name="c")
        with pytest.raises(PeerError, match="is the peer of another controller"):
            await other.wait_up(soon())
        await other.close()
        a = await rig.endpoint(Role.CONNECT, b.port, peer="b")
        await asyncio.gather(a.wait_up(soon()), b.wait_up(soon()))

    play(story)


@asynccontextmanager
async def _leaky_cable(port: int) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A relay to `port`: once the event is set, it swallows everything and closes nothing."""
    dead = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []
    writers: list[asyncio.StreamWriter] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            if not dead.is_set():
                writer.write(data)

    async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        writers.extend((writer, far_writer))
        tasks.extend((asyncio.create_task(carry(reader, far_writer)), asyncio.create_task(carry(far_reader, writer))))

    server = await asyncio.start_server(join, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], dead
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_half_open_connection_is_found_by_silence() -> None:
    async def story(rig: LinkRig) -> None:
        b = await rig.endpoint(Role.LISTEN)
        async with _leaky_cable(b.port) as (port, dead):
            a = await rig.endpoint(Role.CONNECT, port)
            await asyncio.gather(a.wait_up(soon()), b.wait_up(soon()))
            dead.set()
            with pytest.raises(LinkDown, match=r"was silent for 0\.5 s"):
                await a.request(m.Flush(1))
            await until(lambda: b.state is not LinkState.UP)
            await a.close()

    play(story)


def test_signs_of_life_measure_the_way() -> None:
    async def story(rig: LinkRig) -> None:
        a, b = await rig.pair()
        await until(lambda: a.statistics.rtt_us > 0 and b.statistics.rtt_us > 0)

    play(story)


def test_close_ends_everything_and_may_be_repeated() -> None:
    async def story(rig: LinkRig) -> None:
        a, b = await rig.pair()
        for endpoint in (a, b, a):
            await endpoint.close()
            assert endpoint.state is LinkState.DOWN
        with pytest.raises(LinkDown):
            await a.request(m.Flush(1))

    play(story)


def test_failing_handler_ends_the_session_and_not_the_link() -> None:
    async def story(rig: LinkRig) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)

        def fail(request: m.Request, responder: Responder) -> None:
            if request == m.Flush(13):
                raise RuntimeError("thirteen")
            echo(request, responder)

        a, _ = await rig.pair(answer=fail)
        with pytest.raises(LinkDown):
            await a.request(m.Flush(13))
        await a.wait_up(soon())
        assert await a.request(m.Flush(14)) == m.Flushed(14)

    play(story)


# Pauses between attempts


def test_pauses_grow_to_the_last_and_begin_again_after_a_success() -> None:
    backoff = Backoff(LinkTiming(first_retry_s=1.0, last_retry_s=8.0), seed=42)
    pauses = [backoff.next_s() for _ in range(20)]
    for pause, longest in zip(pauses, [1.0, 2.0, 4.0] + [8.0] * 17, strict=True):
        assert longest / 2 <= pause <= longest
    backoff.reset()
    assert backoff.next_s() <= 1.0


def test_dialler_that_has_waited_long_is_quick_again_once_it_had_a_session() -> None:
    async def story(rig: LinkRig) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        a = await rig.endpoint(Role.CONNECT, port, timing=LinkTiming(first_retry_s=0.001, last_retry_s=0.05))
        pauses = a._transport._backoff  # type: ignore[union-attr]  # it dials
        await until(lambda: pauses._attempts >= 8)
        b = await rig.endpoint(Role.LISTEN, port)
        await asyncio.gather(a.wait_up(soon()), b.wait_up(soon()))
        assert b._live is not None
        b._live.end(LinkDown("link: the test wants another session."))
        await until(lambda: a.statistics.reconnects == 1)
        assert pauses._attempts <= 2

    play(story)


def test_pauses_repeat_with_the_seed() -> None:
    one, same, other = (Backoff(LinkTiming(), seed) for seed in (7, 7, 8))
    pauses = [[backoff.next_s() for _ in range(10)] for backoff in (one, same, other)]
    assert pauses[0] == pauses[1] != pauses[2]
