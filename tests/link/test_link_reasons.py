"""What stands in the way of a link, in words: place, reason, next step."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from hwvirt.errors import LinkError, LocalLinkError, PeerError
from hwvirt.link.config import EthernetLink, Identity, Role
from hwvirt.link.endpoint import Endpoint, LinkState
from hwvirt.trace import Trace
from hwvirt.units import Deadline
from tests.link.link_rig import LinkRig, play, soon, until
from tests.link.pair import SECRET


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _reason(story: Callable[[LinkRig], Coroutine[Any, Any, None]]) -> str:
    with pytest.raises(LinkError) as stopped:
        play(story)
    return str(stopped.value)


def test_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        async def story(rig: LinkRig) -> None:
            await rig.endpoint(Role.LISTEN, port)

        assert _reason(story) == (
            f"link: 127.0.0.1:{port} is taken by another program. Choose another port, or end that program."
        )


def test_address_of_another_machine_is_named() -> None:
    async def story(rig: LinkRig) -> None:
        link = EthernetLink(Role.LISTEN, "192.0.2.1", 7001, SECRET)
        await Endpoint(Identity("b", 1), link, Trace("b")).start()

    assert _reason(story) == "link: 192.0.2.1:7001 is no address of this machine. Correct the address."


def test_nobody_there_is_named() -> None:
    port = _free_port()

    async def story(rig: LinkRig) -> None:
        a = await rig.endpoint(Role.CONNECT, port)
        await until(lambda: a.last_error is not None)
        await a.wait_up(Deadline.after(0.1))

    assert _reason(story) == f"link: nobody listens on 127.0.0.1:{port}. Start the other controller, or correct the address."


def test_unreachable_peer_is_told_once_until_the_reason_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwvirt.link.endpoint._UNREACHABLE_TOLD_AFTER_S", 0.02)

    async def story(rig: LinkRig) -> None:
        a = await rig.endpoint(Role.CONNECT, _free_port())
        await until(lambda: bool(rig.told("link.unreachable")))
        with pytest.raises(LinkError):
            await a.wait_up(Deadline.after(0.2))

    assert len(play(story).told("link.unreachable")) == 1


@pytest.mark.parametrize(
    ("reported", "told"),
    [
        ("unreachable a, refused", []),
        ("refused, unreachable a", ["a"]),
        ("unreachable a, unreachable b", ["b"]),
        ("unreachable a, told, unreachable a", ["a"]),
        ("unreachable a, told, refused, unreachable a", ["a", "a"]),
    ],
)
def test_who_was_reached_and_refuses_is_not_told_as_unreachable(
    monkeypatch: pytest.MonkeyPatch, reported: str, told: list[str]
) -> None:
    monkeypatch.setattr("hwvirt.link.endpoint._UNREACHABLE_TOLD_AFTER_S", 0.0)

    async def story(rig: LinkRig) -> None:
        trace = Trace("a")
        trace.subscribe(rig.events.append)
        endpoint = Endpoint(Identity("a", 1), EthernetLink(Role.CONNECT, "127.0.0.1", 1, SECRET), trace)
        for what in [*reported.split(", "), "told"]:
            match what.split():
                case ["unreachable", why]:
                    endpoint._unreachable(LinkError(why))
                case ["refused"]:
                    endpoint._refused(PeerError("does not know the secret."))
                case _:  # what is due is done before this returns
                    while endpoint._telling is not None:  # noqa: ASYNC110  it is a timer, and no event
                        await asyncio.sleep(0)

    assert [event.fields["reason"] for event in play(story).told("link.unreachable")] == told


def test_peer_that_says_nothing_in_time_is_asked_again_and_told_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]

        async def story(rig: LinkRig) -> None:
            a = await rig.endpoint(Role.CONNECT, port)
            await until(lambda: a.last_error is not None)
            with pytest.raises(LinkError) as stopped:
                await a.wait_up(Deadline.after(0.1))
            assert stopped.value.reason == f"link: 127.0.0.1:{port} did not prove itself within 0.3 s."
            mute.close()
            await rig.endpoint(Role.LISTEN, port)
            await a.wait_up(soon())

        play(story)


def test_peer_that_starts_a_little_later_is_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwvirt.link.endpoint._UNREACHABLE_TOLD_AFTER_S", 30.0)
    port = _free_port()

    async def story(rig: LinkRig) -> None:
        a = await rig.endpoint(Role.CONNECT, port)
        await until(lambda: a.last_error is not None)
        await rig.endpoint(Role.LISTEN, port)
        await a.wait_up(soon())

    assert play(story).told("link.unreachable") == []


def test_listener_that_waits_in_vain_says_so() -> None:
    async def story(rig: LinkRig) -> None:
        b = await rig.endpoint(Role.LISTEN)
        with pytest.raises(LinkError) as nobody:
            await b.wait_up(Deadline.after(0.05))
        assert str(nobody.value) == (
            f"link: nobody has connected to 127.0.0.1:{b.port}. Start the other controller."
        )

    play(story)


def test_wrong_secret_is_named_on_both_sides() -> None:
    async def story(rig: LinkRig) -> None:
        b = await rig.endpoint(Role.LISTEN)
        a = await rig.endpoint(Role.CONNECT, b.port, secret=b"guessed")
        with pytest.raises(PeerError) as refused:
            await a.wait_up(soon())
        assert str(refused.value) == (
            f"link: 127.0.0.1:{b.port} does not accept the secret of this controller. Give both controllers the same secret."
        )
        assert (a.state, b.state) == (LinkState.REFUSED, LinkState.REFUSED)
        assert b.last_error is not None
        assert b.last_error.reason.endswith("calls itself a and does not know the secret.")

    rig = play(story)
    assert {event.source for event in rig.told("link.refused")} == {"a", "b"}
    assert not rig.told("link.up")


def test_secret_that_is_corrected_lets_the_peer_in() -> None:
    async def story(rig: LinkRig) -> None:
        b = await rig.endpoint(Role.LISTEN)
        wrong = await rig.endpoint(Role.CONNECT, b.port, secret=b"guessed")
        await until(lambda: b.state is LinkState.REFUSED)
        await wrong.close()
        right = await rig.endpoint(Role.CONNECT, b.port)
        await asyncio.gather(right.wait_up(soon()), b.wait_up(soon()))

    play(story)


def test_other_service_is_named() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"NBDMAGIC")
        await reader.read()
        writer.close()

    async def story(rig: LinkRig) -> None:
        async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
            a = await rig.endpoint(Role.CONNECT, server.sockets[0].getsockname()[1])
            try:
                await a.wait_up(soon())
            finally:
                await a.close()

    assert _reason(story).endswith("does not speak hwvirt's link. Check the address and the cable.")


def test_empty_secret_is_refused() -> None:
    with pytest.raises(LocalLinkError, match=r"link: the secret is empty\. Give both controllers the same secret\."):
        EthernetLink(Role.LISTEN, "127.0.0.1", 0, b"")


def test_secret_is_not_shown() -> None:
    assert "secret" not in repr(EthernetLink(Role.LISTEN, "127.0.0.1", 0, SECRET))
