"""A connection whose port fails: everybody who waits for the session is told, whatever the port raises."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hwvirt.buffers import Buffer
from hwvirt.digest import block_digests
from hwvirt.errors import LinkError
from hwvirt.link import messages as m
from hwvirt.link.config import LinkTiming
from hwvirt.link.connection import Connection, Responder
from hwvirt.link.endpoint import Endpoint, LinkState
from hwvirt.link.errors import LinkDown
from hwvirt.link.events import Ended
from tests.link.link_rig import LinkRig, play, soon, until


class FailingPort:
    """Takes the place of a connection's port; raises where it is told to."""

    def __init__(self, connection: Connection, fails: str, error: Exception) -> None:
        self._port, self._fails, self._error = connection._port, fails, error
        self.closed = 0
        connection._port = self

    def send(self, buffers: list[Buffer]) -> None:
        if "send" in self._fails:
            raise self._error
        self._port.send(buffers)

    def close(self) -> None:
        self.closed += 1
        self._port.close()
        if "close" in self._fails:
            raise self._error


def silent(_request: m.Request, _responder: Responder) -> None:
    """A peer that does not answer."""


async def connected(rig: LinkRig) -> tuple[Endpoint, Connection, list[LinkError]]:
    """The end that asks, its session's connection, and why it hears that sessions are over."""
    a, _ = await rig.pair(answer=silent)
    downs: list[LinkError] = []
    a.on_down = downs.append
    assert a._live is not None
    return a, a._live, downs


@pytest.mark.parametrize("error", [OSError(9, "Bad file descriptor"), RuntimeError("closed handler")], ids=repr)
def test_session_whose_port_cannot_send_is_over_and_heals(error: Exception) -> None:
    async def story(rig: LinkRig) -> None:
        a, live, downs = await connected(rig)
        before = a.request(m.Flush(1))
        port = FailingPort(live, "send", error)
        reason = f"link: nothing can be sent to {live.session.place} any more: {error!r}."
        asked = a.request(m.Flush(2))
        for future in (before, asked):
            with pytest.raises(LinkDown) as caught:
                await future
            assert str(caught.value) == reason
        assert [str(down) for down in downs] == [reason]
        assert port.closed == 1
        await a.wait_up(soon())
        assert a._live is not live

    play(story)


@pytest.mark.parametrize("fails", ["send", "close", "send and close"])
@pytest.mark.parametrize(
    "way",
    [
        lambda live: live.end(LinkDown("link: over.")),
        lambda live: live.broke(LinkDown("link: over.")),
        lambda live: live._handle([Ended(LinkDown("link: over."))]),
    ],
    ids=["ended", "broken", "told by the session"],
)
def test_owner_and_askers_hear_of_every_end_whatever_the_port_does(fails: str, way: Callable[[Connection], None]) -> None:
    async def story(rig: LinkRig) -> None:
        a, live, downs = await connected(rig)
        asked = a.request(m.Flush(1))
        port = FailingPort(live, fails, OSError(9, "Bad file descriptor"))
        try:
            way(live)
        except OSError:
            assert "close" in fails
        assert (len(downs), port.closed) == (1, 1)
        assert isinstance(asked.exception(), LinkDown)
        assert a.state is LinkState.CONNECTING
        await a.wait_up(soon())
        assert len(downs) == 1

    play(story)


def test_replies_count_as_sent_when_the_peer_takes_them_and_not_before() -> None:
    """Small requests for large replies, from a peer that does not read: whoever answers can know what lies there."""

    async def story(rig: LinkRig) -> None:
        sent: list[int] = []
        data = bytes(1 << 20)

        def large(request: m.Request, responder: Responder) -> None:
            assert isinstance(request, m.Read)
            responder.reply(m.ReadData((data,), block_digests((data,), 4096)))
            responder.when_sent(lambda: sent.append(request.volume))

        a, b = await rig.pair(answer=large, timing=LinkTiming())
        assert a._live is not None
        transport = a._live._port._transport  # type: ignore[attr-defined]  # it is a TCP port
        transport.pause_reading()
        asked = [a.request(m.Read(number, [m.Placement(0, 1, 256)])) for number in range(64)]
        await until(lambda: b._live is not None and b._live._paused)
        assert len(sent) < 64
        transport.resume_reading()
        for future in asked:
            await future
        await until(lambda: sent == [*range(64)])

    play(story)


def test_replies_of_a_session_that_is_over_are_not_waited_for() -> None:
    async def story(rig: LinkRig) -> None:
        sent: list[int] = []
        _, b = await rig.pair(answer=silent)
        live = b._live
        assert live is not None
        live.pause()
        live.when_sent(lambda: sent.append(1))
        assert sent == []
        live.end(LinkDown("link: over."))
        assert sent == [1]
        live.when_sent(lambda: sent.append(2))
        assert sent == [1, 2]

    play(story)
