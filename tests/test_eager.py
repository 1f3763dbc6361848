"""Coroutines without tasks: what they promise about when they run and how they end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from hwvirt.eager import Errand, begin

Runner = Callable[[Coroutine[Any, Any, None]], None]
on_every_loop = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


@on_every_loop
def test_what_never_waits_is_over_at_once(run: Runner) -> None:
    done: list[str] = []

    async def work() -> None:
        done.append("work")

    async def story() -> None:
        assert begin(work(), lambda _: done.append("ended")) is None
        assert done == ["work"]

    run(story())


@on_every_loop
def test_it_goes_on_behind_every_kind_of_wait(run: Runner) -> None:
    done: list[object] = []

    async def story() -> None:
        loop = asyncio.get_running_loop()
        lock, event, over = asyncio.Lock(), asyncio.Event(), loop.create_future()
        future: asyncio.Future[int] = loop.create_future()

        async def work() -> None:
            done.append(await future)
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)
            async with lock:
                done.append("lock")
            await event.wait()
            done.append(await asyncio.shield(loop.run_in_executor(None, lambda: 8)))
            done.extend(await asyncio.gather(asyncio.sleep(0, 9), asyncio.sleep(0, 10)))

        await lock.acquire()
        errand = begin(work(), over.set_result)
        assert isinstance(errand, Errand)
        assert done == []
        loop.call_soon(future.set_result, 7)
        loop.call_later(0.005, lock.release)
        loop.call_later(0.01, event.set)
        async with asyncio.timeout(20):
            assert await over is errand
        assert done == [7, "lock", 8, 9, 10]

    run(story())


@on_every_loop
def test_a_failure_of_what_is_waited_for_is_raised_in_it(run: Runner) -> None:
    caught: list[str] = []

    async def story() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        over: asyncio.Future[Errand] = asyncio.get_running_loop().create_future()

        async def work() -> None:
            try:
                await future
            except OSError as error:
                caught.append(str(error))

        begin(work(), over.set_result)
        future.set_exception(OSError("gone"))
        async with asyncio.timeout(20):
            await over
        assert caught == ["gone"]

    run(story())


@on_every_loop
def test_what_it_raises_comes_to_the_caller_or_to_the_loop_but_it_ends(run: Runner) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        told: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: told.append(context))
        over: asyncio.Future[Errand] = loop.create_future()

        async def work(waits: float) -> None:
            if waits:
                await asyncio.sleep(waits)
            raise ValueError("wrong")

        with pytest.raises(ValueError, match="wrong"):
            begin(work(0), over.set_result)
        assert not over.done()
        begin(work(0.001), over.set_result)
        async with asyncio.timeout(20):
            await over
        await asyncio.sleep(0)
        assert [str(context["exception"]) for context in told] == ["wrong"]

    run(story())


@on_every_loop
def test_what_waits_for_something_that_is_cancelled_is_over_and_no_error(run: Runner) -> None:
    told: list[object] = []

    async def story() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context))
        future: asyncio.Future[None] = loop.create_future()
        over: asyncio.Future[Errand] = loop.create_future()

        async def work() -> None:
            await asyncio.shield(future)

        errand = begin(work(), over.set_result)
        future.cancel()
        async with asyncio.timeout(20):
            assert await over is errand
        assert told == []

    run(story())
