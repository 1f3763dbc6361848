"""Whoever starts a program may hold it by its standard input."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
import uvloop

from hwvirt.stopping import on_end_of_input

WITHIN_S = 20.0


def test_end_of_a_pipe_is_told_once_and_what_comes_before_is_no_end() -> None:
    async def scene() -> None:
        reading, writing = os.pipe()
        stopped = asyncio.Semaphore(0)
        on_end_of_input(stopped.release, reading)
        os.write(writing, b"not yet")
        await asyncio.sleep(0)
        assert stopped.locked()
        os.close(writing)
        async with asyncio.timeout(WITHIN_S):
            await stopped.acquire()
        await asyncio.sleep(0)
        assert stopped.locked()
        os.close(reading)

    uvloop.run(scene())


@pytest.mark.parametrize("path", ["/dev/null", __file__], ids=["/dev/null", "a file"])
def test_what_cannot_be_waited_for_has_ended(path: str) -> None:
    async def scene(fd: int) -> None:
        stopped = asyncio.Event()
        on_end_of_input(stopped.set, fd)
        async with asyncio.timeout(WITHIN_S):
            await stopped.wait()

    with Path(path).open("rb") as file:
        uvloop.run(scene(file.fileno()))
