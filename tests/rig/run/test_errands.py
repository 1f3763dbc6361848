"""The runner inside asks, the runner outside answers: lines between them, and what comes of each."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine

import msgspec
import pytest

from hwvirt.lab.process import LabError
from hwvirt.link.faults import FaultKind, LinkFault
from hwvirt.rig.errands import Answer, Errand, Outside, Streamed, What
from hwvirt.rig.far_cable import FarCable

Script = Callable[["Inside"], Coroutine[None, None, None]]


class Inside:
    """An `Outside` whose lines a test reads and writes."""

    def __init__(self, capture: pytest.CaptureFixture[bytes]) -> None:
        source, self.answers = os.pipe()
        self.lost: list[tuple[str, str]] = []
        self.outside = Outside(lambda name, why: self.lost.append((name, why)), source)
        self.source = source
        self._capture = capture

    def asked(self) -> list[Errand]:
        """The errands since the last call, as the other side reads them."""
        lines = self._capture.readouterr().out.splitlines()
        return [errand for line in lines if (errand := msgspec.json.decode(line, type=Streamed).errand)]

    def answer(self, *answers: Answer) -> None:
        """Lines from outside."""
        os.write(self.answers, b"".join(msgspec.json.encode(answer) + b"\n" for answer in answers))


@pytest.fixture
def act(capfdbinary: pytest.CaptureFixture[bytes]) -> Callable[[Script], None]:
    def run(script: Script) -> None:
        async def played() -> None:
            inside = Inside(capfdbinary)
            end = inside.outside.listen()
            try:
                async with asyncio.timeout(20):
                    await script(inside)
            finally:
                end()
                os.close(inside.source)

        asyncio.run(played())

    return run


def test_an_errand_is_done_when_its_own_answer_comes(act: Callable[[Script], None]) -> None:
    async def script(inside: Inside) -> None:
        cut = asyncio.ensure_future(inside.outside.do(What.CUT, "b"))
        start = asyncio.ensure_future(inside.outside.do(What.START, "a"))
        await asyncio.sleep(0)
        assert inside.asked() == [Errand(1, What.CUT, "b"), Errand(2, What.START, "a")]
        inside.answer(Answer(2))
        await start
        assert not cut.done()
        inside.answer(Answer(1))
        await cut

    act(script)


def test_an_errand_that_failed_says_why_and_what_next(act: Callable[[Script], None]) -> None:
    async def script(inside: Inside) -> None:
        start = asyncio.ensure_future(inside.outside.do(What.START, "b"))
        await asyncio.sleep(0)
        inside.answer(Answer(1, error="kernel b did not come up in time.", next_step="See its console."))
        with pytest.raises(LabError, match=r"^kernel b did not come up in time\. See its console\.$"):
            await start

    act(script)


def test_when_the_runner_outside_goes_nobody_waits_for_it(act: Callable[[Script], None]) -> None:
    async def script(inside: Inside) -> None:
        start = asyncio.ensure_future(inside.outside.do(What.START, "b"))
        await asyncio.sleep(0)
        os.close(inside.answers)
        with pytest.raises(LabError, match=r"^the runner outside has gone\.$"):
            await start

    act(script)


def test_who_ends_unasked_is_heard_of(act: Callable[[Script], None]) -> None:
    async def script(inside: Inside) -> None:
        inside.answer(Answer(0, error="the kernel of controller b has gone.", controller="b"))
        start = asyncio.ensure_future(inside.outside.do(What.START, "a"))
        await asyncio.sleep(0)
        inside.answer(Answer(1))
        await start
        assert inside.lost == [("b", "the kernel of controller b has gone.")]

    act(script)


def test_a_strike_is_at_work_and_is_over_when_the_cable_says_so(act: Callable[[Script], None]) -> None:
    async def script(inside: Inside) -> None:
        drop = LinkFault(FaultKind.DROP, count=3)
        striking = asyncio.ensure_future(FarCable(inside.outside).strike(drop, "a"))
        await asyncio.sleep(0)
        assert inside.asked() == [Errand(1, What.STRIKE, "a", drop)]
        assert not striking.done()
        inside.answer(Answer(1, begun=True))
        strike = await striking
        assert strike.struck == 0
        inside.answer(Answer(1, struck=3))
        await strike.over()
        await strike.end()
        assert strike.struck == 3
        assert inside.asked() == []

    act(script)


def test_a_strike_that_is_given_up_is_ended_and_tells_what_it_has_hit(act: Callable[[Script], None]) -> None:
    async def script(inside: Inside) -> None:
        inside.answer(Answer(1, begun=True))
        strike = await FarCable(inside.outside).strike(LinkFault(FaultKind.FLIP, count=3), None)
        waiting = asyncio.ensure_future(strike.over())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        ending = asyncio.ensure_future(strike.end())
        await asyncio.sleep(0)
        assert inside.asked()[-1] == Errand(1, What.END)
        inside.answer(Answer(1, struck=2))
        await ending
        assert strike.struck == 2

    act(script)


def test_a_strike_that_is_given_up_before_it_is_at_work_is_ended(act: Callable[[Script], None]) -> None:
    async def script(inside: Inside) -> None:
        striking = asyncio.ensure_future(FarCable(inside.outside).strike(LinkFault(FaultKind.FLIP, count=3), None))
        await asyncio.sleep(0)
        striking.cancel()
        await asyncio.sleep(0)
        assert inside.asked()[-1] == Errand(1, What.END)
        inside.answer(Answer(1))
        with pytest.raises(asyncio.CancelledError):
            await striking

    act(script)


def test_a_strike_that_the_cable_refuses_fails_where_its_end_is_waited_for(act: Callable[[Script], None]) -> None:
    async def script(inside: Inside) -> None:
        inside.answer(Answer(1, error="the cable is no more."))
        strike = await FarCable(inside.outside).strike(LinkFault(FaultKind.FLIP, count=3), None)
        with pytest.raises(LabError, match=r"^the cable is no more\.$"):
            await strike.over()

    act(script)
