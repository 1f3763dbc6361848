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
