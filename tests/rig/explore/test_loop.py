"""The loop of a process moves only when it is told to, in a time and with a chance of its own."""

from __future__ import annotations

import asyncio
import os
import time

from hwvirt.rig.explore.loop import HandLoop


def test_time_passes_only_in_sleep_and_timers_are_called_in_their_order() -> None:
    loop = HandLoop(0)
    called: list[str] = []
    with loop.inside():
        began = time.monotonic()
        loop.call_later(2.0, called.append, "second")
        loop.call_later(1.0, called.append, "first")
        loop.call_later(9.0, called.append, "too late")
        loop.call_later(1.5, called.append, "never").cancel()
        loop.run()
        assert (called, time.monotonic()) == ([], began)
        loop.sleep(3.0)
        assert (called, time.monotonic()) == (["first", "second"], began + 3.0)
    assert [due for due, _ in loop.timers()] == [began + 9.0]


def test_clock_and_chance_of_the_machine_are_untouched_outside() -> None:
    loop, monotonic, urandom = HandLoop(0), time.monotonic, os.urandom
    with loop.inside():
        assert (time.monotonic, os.urandom) != (monotonic, urandom)
    assert (time.monotonic, os.urandom) == (monotonic, urandom)


def test_chance_repeats_itself_and_differs_between_loops() -> None:
    def draws(salt: int) -> list[bytes]:
        loop = HandLoop(salt)
        return [loop.draw(7) for _ in range(100)]

    assert draws(1) == draws(1)
    assert len({*draws(1), *draws(2), *draws(3)}) == 300


def test_slow_job_waits_until_it_is_finished() -> None:
    loop, told = HandLoop(0, slow_jobs=True), []

    def sync() -> str:
        return "synced"

    async def work() -> None:
        told.append(await asyncio.get_running_loop().run_in_executor(None, sync))

    with loop.inside():
        loop.begin(work())
        assert ([job.name for job in loop.jobs], told) == (["sync"], [])
        loop.jobs.pop().finish()
        loop.run()
    assert (told, loop.errors) == (["synced"], [])


def test_bug_in_a_task_and_in_a_callback_is_kept() -> None:
    loop = HandLoop(0)

    async def work() -> None:
        raise KeyError("a bug")

    def callback() -> None:
        raise ValueError("another")

    with loop.inside():
        loop.begin(work())
        loop.call_soon(callback)
        loop.run()
    assert loop.errors == ["KeyError: 'a bug'", "ValueError: another"]


def test_whoever_spins_is_stopped() -> None:
    loop = HandLoop(0)

    def spin() -> None:
        loop.call_soon(spin)

    with loop.inside():
        spin()
        loop.run()
    assert loop.errors == ["it never comes to rest"]


def test_nothing_happens_in_a_loop_that_was_killed() -> None:
    loop, told = HandLoop(0), []

    async def work() -> None:
        try:
            await asyncio.sleep(1.0)
        finally:
            told.append("closed")
        told.append("slept")

    with loop.inside():
        loop.begin(work())
    loop.kill()
    with loop.inside():
        loop.call_later(0.0, told.append, "called")
        loop.sleep(5.0)
    assert (told, loop.tasks, loop.timers()) == (["closed"], [], [])
