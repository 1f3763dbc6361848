"""The control socket: who comes late is told what has been, who reads is told the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwvirt.controller import control, verbs
from hwvirt.controller.control import EVENTS, ControlServer, Verb
from hwvirt.controller.misfit import read_arguments
from hwvirt.errors import UsageError
from hwvirt.trace import Trace

WITHIN_S = 10.0


@asynccontextmanager
async def asked(path: Path, request: bytes) -> AsyncIterator[asyncio.StreamReader]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(request + b"\n")
        async with asyncio.timeout(WITHIN_S):
            yield reader
    finally:
        writer.close()


async def viewed(server: ControlServer) -> None:
    while not server.viewers:  # noqa: ASYNC110  a server announces no viewer
        await asyncio.sleep(0)


@asynccontextmanager
async def followed(path: Path) -> AsyncIterator[tuple[Trace, ControlServer, asyncio.StreamReader]]:
    """A server with one viewer, who may read."""
    trace = Trace("a")
    server = ControlServer(path, {}, trace)
    await server.start()
    async with asked(path, b'{"verb": "events"}') as reader:
        await viewed(server)
        yield trace, server, reader


async def named(reader: asyncio.StreamReader, count: int) -> list[str]:
    return [msgspec.json.decode(await reader.readline())["name"] for _ in range(count)]


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (b'{"verb": "events", "last": 4096}', ["before.0", "before.1", "before.2"]),
        (b'{"verb": "events", "last": 2}', ["before.1", "before.2"]),
        (b'{"verb": "events", "last": 0}', []),
        (b'{"verb": "events"}', []),
    ],
)
def test_viewer_is_told_the_newest_events_that_have_been_and_then_all_to_the_end(
    request_: bytes, told: list[str], tmp_path: Path
) -> None:
    async def scene() -> None:
        trace = Trace("a")
        server = ControlServer(tmp_path / "a.sock", {}, trace)
        trace.emit("before.0")
        trace.emit("before.1")
        await server.start()
        trace.emit("before.2")
        async with asked(tmp_path / "a.sock", request_) as reader:
            await viewed(server)
            trace.emit("later")
            assert await named(reader, len(told) + 1) == [*told, "later"]
            for number in range(1000):
                trace.emit(f"last.{number}")
            await server.close()
            assert await named(reader, 1000) == [f"last.{number}" for number in range(1000)]
            assert await reader.read() == b""
        assert not (tmp_path / "a.sock").exists()

    asyncio.run(scene())


def test_viewer_who_asks_wrongly_is_told_why_and_may_ask_again(tmp_path: Path) -> None:
    async def scene() -> None:
        trace = Trace("a")
        server = ControlServer(tmp_path / "a.sock", {}, trace)
        trace.emit("before")
        await server.start()
        questions = b'{"verb": "events", "last": -1}\n{"verb": "events", "lats": 1}\n{"verb": "events", "last": 1}'
        async with asked(tmp_path / "a.sock", questions) as reader:
            assert msgspec.json.decode(await reader.readline()) == {
                "ok": False,
                "error": "last: must be at least 0, not -1.",
                "next_step": "See docs/controller.md for the verbs.",
                "exit_code": 2,
            }
            second = msgspec.json.decode(await reader.readline())
            assert (second["error"], second["next_step"]) == ("unknown argument 'lats'.", "Did you mean 'last'?")
            assert await named(reader, 1) == ["before"]
        await server.close()

    asyncio.run(scene())


@pytest.mark.parametrize("key", ["a", "a - at `$.b", "a` - at `$.b"])
def test_argument_of_a_verb_that_takes_none_is_named(key: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_arguments({key: 1}, verbs._Nothing)
    assert str(caught.value) == f"unknown argument {key!r}. It takes none."


FORMS: tuple[type[msgspec.Struct], ...] = (verbs._Nothing, verbs._OfUnit, verbs._Commit, verbs._Page, verbs._MapPage)
NUMBERS = st.integers() | st.integers(-(10**400), 10**400) | st.floats()
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(["lun", "wait", "after", "limit", "last", "a - at `$.b", "a` - at `$.b", "a` - at `$.lun", "verb"])
QUESTIONS = st.builds(
    lambda verb, arguments: {"verb": verb, **arguments},
    st.sampled_from([*(str(number) for number in range(len(FORMS))), EVENTS, "x"]),
    st.dictionaries(KEYS | st.text(max_size=20), VALUES, max_size=3),
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(QUESTIONS | VALUES, min_size=20, max_size=20))
def test_whatever_json_is_asked_the_answer_is_a_result_or_a_refusal(questions: list[Any]) -> None:
    """And where events are asked for, a stream of them; that the daemon itself fails is never the answer."""

    def verb(form: type[msgspec.Struct]) -> Verb:
        async def answer(arguments: dict[str, Any]) -> Any:
            return str(read_arguments(arguments, form))

        return answer

    async def scene(path: Path) -> None:
        trace = Trace("a")
        server = ControlServer(path, {str(number): verb(form) for number, form in enumerate(FORMS)}, trace)
        await server.start()
        for question in questions:
            async with asked(path, json.dumps(question).encode()) as reader:
                answering = asyncio.ensure_future(reader.readline())
                while not answering.done():
                    trace.emit("tick")
                    await asyncio.sleep(0)
                line = await answering
                answer = msgspec.json.decode(line)
                assert answer.get("ok") or answer.get("exit_code") == 2 or answer.get("name") == "tick", (question, line)
        await server.close()

    with TemporaryDirectory() as folder:
        asyncio.run(scene(Path(folder) / "a.sock"))


@pytest.mark.parametrize("burst", [4095, 4096, 10_000])
def test_viewer_that_reads_is_told_the_end_after_a_burst_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, burst: int
) -> None:
    monkeypatch.setattr(control, "_LAST_WORDS_S", WITHIN_S)

    async def scene() -> None:
        async with followed(tmp_path / "a.sock") as (trace, server, reader):
            for number in range(burst):
                trace.emit(f"burst.{number}")
            trace.emit("controller.stopped")
            told, _ = await asyncio.gather(reader.read(), server.close())
            names = [msgspec.json.decode(line)["name"] for line in told.splitlines()]
        every = [*(f"burst.{number}" for number in range(burst)), "controller.stopped"]
        assert names == every[-len(names) :]
        assert len(names) >= min(len(every), 4095), "what is kept is 4096, and one of them may be the end itself"

    asyncio.run(scene())


def test_viewer_that_does_not_read_delays_the_end_by_little(tmp_path: Path) -> None:
    async def scene() -> None:
        async with followed(tmp_path / "a.sock") as (trace, server, reader):
            for _ in range(4096):
                trace.emit("much", text="x" * 4096)
            await server.close()
            assert reader is not None
        assert server.viewers == 0

    asyncio.run(scene())
