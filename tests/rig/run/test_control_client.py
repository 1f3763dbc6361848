"""A control socket whose controller ends: whoever asks is told so, wherever the reply was cut."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from hwvirt.rig.control_client import ControlClient, ControllerGone
from hwvirt.trace import Trace
from hwvirt.units import Deadline

READY = b'{"ok": true, "result": {"ready": true}}\n'
IN_TIME_S = 60.0


class _Dying:
    """A controller that serves until it is doomed, and then ends within its next reply."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last_words: bytes | None = None

    async def __aenter__(self) -> _Dying:
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if b"events" in line:
                break
            writer.write(READY if self.last_words is None else self.last_words)
            if self.last_words is not None:
                break
        writer.close()


def _within(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, IN_TIME_S))


async def _connected(controller: _Dying) -> ControlClient:
    client = ControlClient("a", str(controller.path), Trace("rig"))
    await client.wait_ready(Deadline.after(IN_TIME_S))
    return client


@pytest.mark.parametrize("cut", [0, 1, 12, len(READY) - 1])
@pytest.mark.parametrize("ask", [ControlClient.status, lambda client: client.call_long("flush", lun=0)])
def test_a_reply_that_is_cut_is_a_controller_that_has_gone(
    tmp_path: Path, cut: int, ask: Callable[[ControlClient], Coroutine[Any, Any, Any]]
) -> None:
    async def work() -> None:
        async with _Dying(tmp_path / "a.sock") as controller:
            client = await _connected(controller)
            controller.last_words = READY[:cut]
            with pytest.raises(ControllerGone, match=r"^controller a closed its control socket\.$"):
                await ask(client)
            await client.close()

    _within(work())


def test_what_the_controller_still_says_is_heard_though_a_question_was_given_up(tmp_path: Path) -> None:
    async def work() -> None:
        asked, asking = 0, asyncio.Event()
        viewer: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
        writers: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal asked
            writers.append(writer)
            while line := await reader.readline():
                if b"events" in line:
                    viewer.set_result(writer)
                    return
                asked += 1
                if asked == 1:
                    writer.write(READY)
                else:
                    asking.set()  # and no answer

        async with await asyncio.start_unix_server(serve, tmp_path / "a.sock"):
            trace, heard = Trace("rig"), list[str]()
            trace.subscribe(lambda event: heard.append(event.name))
            client = ControlClient("a", str(tmp_path / "a.sock"), trace)
            await client.wait_ready(Deadline.after(IN_TIME_S))
            feed = await viewer
            question = asyncio.ensure_future(client.status())
            await asking.wait()
            question.cancel()
            await asyncio.gather(question, return_exceptions=True)
            feed.write(b'{"name": "controller.stopped", "at": 1.0, "source": "a", "fields": {}}\n')
            feed.close()
            await client.ended()
            assert heard == ["controller.stopped"]
            for writer in writers:
                writer.close()
                await writer.wait_closed()

    _within(work())
