"""TLS on the Ethernet link: who is believed, who is told what, and what a cable can see of it and do to it."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest

from hwvirt.errors import ExitCode, LinkError, PeerError, UsageError
from hwvirt.link import messages as m
from hwvirt.link.config import EthernetLink, Identity, Role, TlsFiles
from hwvirt.link.endpoint import Endpoint, LinkState
from hwvirt.link.tls import Channel, Credentials, load_credentials
from hwvirt.trace import Trace
from tests.link.link_papers import both, files, folder, good
from tests.link.link_rig import LinkRig, play, soon, until
from tests.link.link_samples import write_of
from tests.link.pair import SECRET
from tests.link.relay import BACK, THERE, Carry, relay

_ONE_AUTHORITY = "Give both controllers certificates of one authority."
_RENEW = "Make a new one, and see that the clocks are right."
_NEITHER = "Give both controllers `tls`, or neither."

@cache
def _credentials(role: Role) -> Credentials:
    return load_credentials(good()[role], role)


def _channels() -> tuple[Channel, Channel]:
    return Channel(_credentials(Role.CONNECT), Role.CONNECT), Channel(_credentials(Role.LISTEN), Role.LISTEN)


def _shake_hands(one: Channel, other: Channel, step_bytes: int = 1 << 20) -> None:
    while not (one.shake_hands() and other.shake_hands()):
        for source, target in ((one, other), (other, one)):
            source.shake_hands()
            data = source.outgoing()
            for start in range(0, len(data), step_bytes):
                target.received(data[start : start + step_bytes])
                target.shake_hands()


def _read(channel: Channel, room_bytes: int) -> bytes:
    out = bytearray()
    room = memoryview(bytearray(room_bytes))
    while size_bytes := channel.read_into(room):
        out += room[:size_bytes]
    return bytes(out)


# The channel


@pytest.mark.parametrize("step_bytes", [1, 7, 1 << 20])
def test_both_ends_know_the_connection_by_the_same_name(step_bytes: int) -> None:
    a, b = _channels()
    assert a.binding == b.binding == b""
    _shake_hands(a, b, step_bytes)
    assert len(a.binding) == 64
    assert a.binding == b.binding


@pytest.mark.parametrize("room_bytes", [1, 1000, 1 << 20])
def test_bytes_arrive_whole_whatever_their_pieces(room_bytes: int) -> None:
    a, b = _channels()
    _shake_hands(a, b)
    chance = random.Random(1)
    sizes = (1, 16384, 16385, 300_000, 5) if room_bytes > 1 else (1, 16385)
    pieces = [chance.randbytes(size) for size in sizes]
    out = bytearray()
    for wire in a.write([pieces[0], bytearray(pieces[1]), *[memoryview(piece) for piece in pieces[2:]]]):
        for start in range(0, len(wire), 5000):
            b.received(wire[start : start + 5000])
            out += _read(b, room_bytes)
    assert bytes(out) == b"".join(pieces)


def test_one_flipped_bit_anywhere_in_a_record_is_found() -> None:
    text, bit = b"sixteen bytes it", 0
    while True:
        a, b = _channels()
        _shake_hands(a, b)
        wire = bytearray(b"".join(a.write([text])))
        if bit == 8 * len(wire):
            break
        wire[bit // 8] ^= 1 << bit % 8
        b.received(wire)
        try:
            assert _read(b, 100) == b""
            assert bit // 8 in (3, 4), "only a wrong length can make it wait for more"
        except ssl.SSLError:
            pass
        bit += 1


# Two controllers


def test_both_ends_ask_and_answer() -> None:
    async def story(rig: LinkRig) -> None:
        a, b = await rig.pair(tls=good())
        assert await a.request(m.Flush(7)) == m.Flushed(7)
        assert await b.request(m.Flush(8)) == m.Flushed(8)
        assert a.peer is not None
        assert b.peer is not None
        assert (a.peer.name, b.peer.name, a.peer.epoch) == ("b", "a", b.peer.epoch)

    play(story)
    play(story, asyncio.run)


def test_large_data_goes_through_whole() -> None:
    data = random.Random(1).randbytes(9 << 20)
    heard: list[m.Request] = []

    def keep(request: m.Request, responder: object) -> None:
        heard.append(request)
        responder.reply(m.Done() if isinstance(request, m.Drop) else m.Written(1, []))  # type: ignore[attr-defined]

    async def story(rig: LinkRig) -> None:
        a, _ = await rig.pair(tls=good(), answer=keep)
        await asyncio.gather(*(a.request(write_of(data, 4096)) for _ in range(3)), a.request(m.Drop(0, 0, 1)))

    play(story)
    writes = [request for request in heard if isinstance(request, m.Write)]
    assert [b"".join(write.data) for write in writes] == [data] * 3


def test_link_heals_after_the_peer_restarts() -> None:
    async def story(rig: LinkRig) -> None:
        a, b = await rig.pair(tls=good())
        await b.close()
        await rig.endpoint(Role.LISTEN, b.port, tls=good())
        await until(lambda: a.statistics.reconnects == 1)
        assert await a.request(m.Flush(9)) == m.Flushed(9)

    play(story)


def test_secret_is_still_needed() -> None:
    async def story(rig: LinkRig) -> None:
        b = await rig.endpoint(Role.LISTEN, tls=good())
        a = await rig.endpoint(Role.CONNECT, b.port, secret=b"guessed", tls=good())
        with pytest.raises(PeerError, match="does not accept the secret of this controller"):
            await a.wait_up(soon())
        assert not rig.told("link.up")

    play(story)


# Who is refused. The texts are those of the connecting and of the listening end; None: it has nothing to say.

_OTHER_B = "{b} has a certificate of another authority. " + _ONE_AUTHORITY
_OTHER_A = "{a} has a certificate of another authority. " + _ONE_AUTHORITY
_UNKNOWN = "does not accept the certificate of this controller: another authority made it. " + _ONE_AUTHORITY
_EXPIRED = "does not accept the certificate of this controller: it has expired. " + _RENEW


def _believing(shown: TlsFiles, believed: TlsFiles) -> TlsFiles:
    return replace(shown, authority=believed.authority)


@pytest.mark.parametrize(
    ("kinds", "at_a", "at_b"),
    [
        (("other", "good", "good", "good"), f"{{b}} {_UNKNOWN}", _OTHER_A),
        (("good", "good", "other", "good"), _OTHER_B, f"{{a}} {_UNKNOWN}"),
        (("old", "good", "good", "old"), f"{{b}} {_EXPIRED}", f"{{a}} has a certificate that has expired. {_RENEW}"),
        (("good", "old", "old", "good"), f"{{b}} has a certificate that has expired. {_RENEW}", f"{{a}} {_EXPIRED}"),
        (
            ("good", "new", "new", "good"),
            f"{{b}} has a certificate that is not valid yet. {_RENEW}",
            f"{{a}} does not accept the certificate of this controller. {_RENEW}",
        ),
    ],
    ids=["authority of a", "authority of b", "a expired", "b expired", "b of the future"],
)
def test_certificate_that_is_not_believed_is_told_on_both_sides(
    kinds: tuple[str, str, str, str], at_a: str, at_b: str
) -> None:
    shows_a, believes_a, shows_b, believes_b = kinds
    tls = both(
        _believing(files(shows_a, "a"), files(believes_a, "b")), _believing(files(shows_b, "b"), files(believes_b, "a"))
    )

    async def story(rig: LinkRig) -> None:
        b = await rig.endpoint(Role.LISTEN, tls=tls)
        a = await rig.endpoint(Role.CONNECT, b.port, tls=tls)
        await _both_refuse(a, b, at_a, at_b)

    rig = play(story)
    assert not rig.told("link.up")


async def _both_refuse(a: Endpoint, b: Endpoint, at_a: str, at_b: str) -> None:
    with pytest.raises(PeerError) as refused:
        await a.wait_up(soon())
    assert refused.value.exit_code is ExitCode.INFRASTRUCTURE
    assert str(refused.value) == f"link: {at_a.format(b=f'127.0.0.1:{b.port}')}"
    await until(lambda: b.state is LinkState.REFUSED)
    assert _without_port(str(b.last_error)) == f"link: {at_b.format(a='127.0.0.1')}"
    assert b.statistics.refused_peers > 0


def _without_port(text: str) -> str:
    """Whoever connects has any port."""
    words = text.split(" ")
    return " ".join([words[0], words[1].partition(":")[0], *words[2:]])


def test_peer_without_tls_is_told_on_both_sides() -> None:
    async def story(rig: LinkRig) -> None:
        b = await rig.endpoint(Role.LISTEN, tls=good())
        a = await rig.endpoint(Role.CONNECT, b.port)
        at_a = f"{{b}} speaks TLS, and this controller does not. {_NEITHER}"
        await _both_refuse(a, b, at_a, f"{{a}} does not speak TLS, and this controller does. {_NEITHER}")

    play(story)


def test_peer_with_tls_alone_is_told_on_both_sides() -> None:
    async def story(rig: LinkRig) -> None:
        b = await rig.endpoint(Role.LISTEN)
        a = await rig.endpoint(Role.CONNECT, b.port, tls=good())
        await until(lambda: a.last_error is not None and b.last_error is not None)
        assert str(a.last_error) == f"link: 127.0.0.1:{b.port} broke off the TLS handshake. {_NEITHER}"
        assert (
            _without_port(str(b.last_error)) == f"link: 127.0.0.1 speaks TLS, and this controller does not. {_NEITHER}"
        )

    play(story)


@asynccontextmanager
async def _stranger(
    port: int, context: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        yield reader, writer
    finally:
        writer.close()


def _context(*, shows: TlsFiles | None = None, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = newest
    context.check_hostname = False
    context.load_verify_locations(files("good", "b").authority)
    if shows is not None:
        context.load_cert_chain(shows.certificate, shows.key)
    return context


@pytest.mark.parametrize(
    ("context", "said"),
    [
        (_context, "shows no certificate. Give it `tls` with a certificate."),
        (
            lambda: _context(shows=files("good", "a"), newest=ssl.TLSVersion.TLSv1_2),
            "does not speak TLS 1.3. Update its OpenSSL.",
        ),
    ],
    ids=["no certificate", "TLS 1.2"],
)
def test_client_of_others_without_what_it_needs_gets_no_byte(context: Callable[[], ssl.SSLContext], said: str) -> None:
    async def story(rig: LinkRig) -> None:
        b = await rig.endpoint(Role.LISTEN, tls=good())
        with suppress(ssl.SSLError, ConnectionError):
            async with _stranger(b.port, context()) as (reader, _):
                assert await reader.read() == b""
        await until(lambda: b.last_error is not None)
        assert _without_port(str(b.last_error)) == f"link: 127.0.0.1 {said}"

    play(story, asyncio.run)


def test_service_of_others_that_speaks_no_tls_is_named() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    async def story(rig: LinkRig) -> None:
        async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            a = await rig.endpoint(Role.CONNECT, port, tls=good())
            with pytest.raises(PeerError) as refused:
                await a.wait_up(soon())
            assert str(refused.value) == (
                f"link: 127.0.0.1:{port} does not speak TLS, and this controller does. {_NEITHER}"
            )
            await a.close()

    play(story)


# Files


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"key": "none.pem"}, "{none}: No such file or directory."),
        ({"authority": "junk.pem"}, "{junk}: no certificate in PEM."),
        (
            {"certificate": "junk.pem"},
            "{key}: no key in PEM that belongs to a certificate in PEM in {junk}.",
        ),
        ({"key": "junk.pem"}, "{junk}: no key in PEM that belongs to a certificate in PEM in {certificate}."),
        ({"key": "other.pem"}, "{other}: it does not belong to the certificate in {certificate}."),
        (
            {"key": "locked.pem"},
            "{locked}: it is encrypted, and nobody is there to type the password. It belongs to {certificate}.",
        ),
    ],
    ids=lambda value: ",".join(value) + " " + "".join(value.values()) if isinstance(value, dict) else "",
)
def test_file_of_no_use_is_named(changed: dict[str, str], said: str, tmp_path: Path) -> None:
    names = {name: tmp_path / f"{name}.pem" for name in ("none", "junk", "other", "locked")}
    names["junk"].write_bytes(b"-----BEGIN NOTHING-----\n")
    names["other"].write_bytes(files("other", "a").key.read_bytes())
    names["locked"].write_bytes(_locked(files("good", "a").key.read_bytes()))
    right = files("good", "a")
    wrong = replace(right, **{key: tmp_path / name for key, name in changed.items()})
    with pytest.raises(UsageError) as refused:
        Endpoint(Identity("a", 1), EthernetLink(Role.CONNECT, "127.0.0.1", 1, SECRET, tls=wrong), Trace("a"))
    places = {name: str(path) for name, path in names.items()}
    told = said.format(key=right.key, certificate=right.certificate, **places)
    assert str(refused.value) == f"link TLS {told} Correct `tls` of the link."
    assert refused.value.exit_code is ExitCode.USAGE


def _locked(key: bytes) -> bytes:
    from cryptography.hazmat.primitives import serialization as s

    locked = s.BestAvailableEncryption(b"a password")
    return s.load_pem_private_key(key, None).private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, locked)


def test_files_are_for_their_owner_alone() -> None:
    right = files("good", "a")
    assert {path.stat().st_mode & 0o777 for path in (right.key, right.certificate, right.authority)} == {0o600}
    assert right.key.parent.stat().st_mode & 0o777 == 0o700
    assert right.key.is_relative_to(folder())


# The cable


def _through(story: Callable[[LinkRig, Endpoint, Endpoint], Awaitable[None]], carry: Carry) -> LinkRig:
    async def whole(rig: LinkRig) -> None:
        b = await rig.endpoint(Role.LISTEN, tls=good(), name="the-second")
        async with relay(b.port, carry) as port:
            a = await rig.endpoint(Role.CONNECT, port, tls=good(), name="the-first")
            await asyncio.gather(a.wait_up(soon()), b.wait_up(soon()))
            try:
                await story(rig, a, b)
            finally:
                await asyncio.gather(a.close(), b.close())

    return play(whole)


def test_cable_sees_neither_names_nor_data() -> None:
    seen = bytearray()
    data = b"a block that nobody needs to see" * 16

    def carry(passing: bytes, _: int) -> bytes:
        seen.extend(passing)
        return passing

    async def story(_rig: LinkRig, a: Endpoint, _b: Endpoint) -> None:
        await a.request(write_of(data))

    _through(story, carry)
    assert len(seen) > len(data)
    for word in (data[:16], b"the-first", b"the-second", b"HWVL"):
        assert word not in seen


def _reconnected(a: Endpoint, b: Endpoint, times: int) -> bool:
    return a.statistics.reconnects == b.statistics.reconnects == times


def test_damaged_record_ends_the_session_and_not_the_link() -> None:
    armed: list[int] = []

    def carry(passing: bytes, way: int) -> bytes:
        if armed and way == armed[0]:
            armed.clear()
            return passing[:-1] + bytes([passing[-1] ^ 1])
        return passing

    async def story(rig: LinkRig, a: Endpoint, b: Endpoint) -> None:
        for times, way in enumerate((THERE, BACK), 1):
            armed.append(way)
            with suppress(LinkError):
                await a.request(m.Flush(1))
            await until(partial(_reconnected, a, b, times))
            assert await a.request(m.Flush(2)) == m.Flushed(2)
        assert (a.statistics.corrupt, b.statistics.corrupt) == (1, 1)

    rig = _through(story, carry)
    reasons = [str(event.fields["reason"]) for event in rig.told("link.down")]
    assert sum(reason.endswith("sent a damaged TLS record. Check the cable.") for reason in reasons) == 2
    assert sum("ended the session because of what it received" in reason for reason in reasons) >= 1


def test_somebody_in_between_with_a_certificate_of_the_same_authority_is_refused() -> None:
    """He ends TLS toward both and passes on what he reads: only the proof, which covers the certificates, stops him."""
    listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listening.load_cert_chain(files("good", "m").certificate, files("good", "m").key)
    connecting = _context(shows=files("good", "m"))
    seen = bytearray()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, far_port: int) -> None:
        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError, ssl.SSLError):
                while data := await source.read(1 << 16):
                    seen.extend(data)
                    target.write(data)
            target.close()

        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", far_port, ssl=connecting)
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    async def story(rig: LinkRig) -> None:
        b = await rig.endpoint(Role.LISTEN, tls=good())
        server = await asyncio.start_server(
            lambda reader, writer: connected(reader, writer, b.port), "127.0.0.1", 0, ssl=listening
        )
        async with server:
            a = await rig.endpoint(Role.CONNECT, server.sockets[0].getsockname()[1], tls=good())
            with pytest.raises(PeerError, match="does not accept the secret of this controller"):
                await a.wait_up(soon())
            assert b.last_error is not None
            assert b.last_error.reason.endswith("calls itself a and does not know the secret.")
            await a.close()
        assert not rig.told("link.up")

    play(story, asyncio.run)
    assert b"HWVL" in seen  # he did read, and it helped him nothing


# Strangers


def test_silent_stranger_is_closed_at_the_deadline() -> None:
    async def story(rig: LinkRig) -> None:
        b = await rig.endpoint(Role.LISTEN, tls=good())
        async with _stranger(b.port) as (reader, _):
            await reader.read()
        assert b.last_error is not None
        assert b.last_error.reason.endswith("did not prove itself within 0.3 s.")

    play(story)


def test_junk_in_every_state_of_the_handshake_ends_it_and_nothing_else() -> None:
    chance = random.Random(3)
    for _ in range(600):
        a, b = _channels()
        for _ in range(chance.randrange(3)):
            with suppress(ssl.SSLError):
                a.shake_hands()
                b.received(a.outgoing())
                b.shake_hands()
                a.received(b.outgoing())
        junk = bytearray(a.outgoing() or chance.randbytes(chance.randrange(1, 300)))
        for _ in range(chance.randint(1, 4)):
            junk[chance.randrange(len(junk))] ^= 1 << chance.randrange(8)
        b.received(junk)
        with suppress(ssl.SSLError):
            if b.shake_hands():
                _read(b, 1000)
        assert len(b.outgoing()) < 10_000
