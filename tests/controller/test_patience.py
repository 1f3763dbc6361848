"""What is settled, volume by volume: what A says so, B forgets."""

from __future__ import annotations

import asyncio
import time
from array import array
from pathlib import Path

import pytest

from hwvirt.controller.config import LinkConfig, SerialConfig
from hwvirt.controller.link_side import LinkSide
from hwvirt.controller.patience import PatientLink
from hwvirt.digest import block_digests
from hwvirt.errors import LocalLinkError, PeerError
from hwvirt.link.config import LinkTiming
from hwvirt.link.messages import Reply, Request, Slice, Write, Written
from hwvirt.scsi.sense import CheckCondition
from hwvirt.trace import Trace

from .desk import BLOCK, Desk

PEER_BOOT = 2


def _write(volume: int, sequence: int) -> Write:
    return Write(volume, 0, [Slice(0, 1, sequence)], (bytes(BLOCK),), array("I", [0]))


class _Peer:
    """Keeps what is asked; the test answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[Request, asyncio.Future[Reply]]] = []

    def request(self, message: Request) -> asyncio.Future[Reply]:
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.asked.append((message, answer))
        return answer

    async def answer(self, index: int) -> None:
        self.asked[index][1].set_result(Written(1, []))
        await asyncio.sleep(0)


async def _mended() -> int:
    return 1


def test_what_waits_in_one_volume_settles_nothing_in_another() -> None:
    async def story() -> None:
        peer = _Peer()
        patient = PatientLink(peer.request, 30.0, Trace("a"))
        await patient.came_up(_mended, PEER_BOOT)
        for volume, sequence in ((0, 100), (1, 5), (0, 101), (1, 6)):
            patient.ask(_write(volume, sequence))
        assert [patient.settled_sequence(volume) for volume in range(3)] == [99, 4, 0]
        await peer.answer(0)
        await peer.answer(3)
        assert [patient.settled_sequence(volume) for volume in range(3)] == [100, 4, 0]
        await peer.answer(1)
        await peer.answer(2)
        assert [patient.settled_sequence(volume) for volume in range(3)] == [101, 6, 0]
        patient.close()

    asyncio.run(story())


def test_silence_that_ended_the_session_counts_as_time_without_a_link() -> None:
    async def story() -> None:
        patient = PatientLink(_Peer().request, 15.0, Trace("a"))
        await patient.came_up(_mended, PEER_BOOT)
        patient.went_down()
        await patient.came_up(_mended, PEER_BOOT)
        answered = patient.ask(_write(0, 1))
        patient._waiting[1].asked_at -= 16.0
        patient._answered += 1
        patient.went_down(silent_s=16.0)
        async with asyncio.timeout(10):
            with pytest.raises(CheckCondition):
                await answered
        patient.close()

    asyncio.run(story())


@pytest.mark.parametrize("serial", [None, SerialConfig("/dev/ttyS0", 115_200)], ids=["ethernet", "serial"])
@pytest.mark.parametrize(("stall_s", "silence_s"), [(0.0, 1.0), (0.5, 1.0), (2.0, 2.0), (5.0, 5.0), (30.0, 5.0)])
def test_who_waits_for_a_short_time_hears_of_silence_in_time(
    tmp_path: Path, stall_s: float, silence_s: float, serial: SerialConfig | None
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the secret")
    host, port = (None, None) if serial else ("127.0.0.1", 7001)
    config = LinkConfig("connect", "b", str(secret), host, port, serial=serial, stall_s=stall_s)

    async def story() -> LinkTiming:
        return LinkSide("a", config, 1, Trace("a")).endpoint._link.timing

    timing = asyncio.run(story())
    assert (timing.silence_s, timing.ping_s) == (silence_s, silence_s / 5)


def test_a_write_of_one_volume_that_waits_for_long_keeps_nothing_of_another(tmp_path: Path) -> None:
    async def story() -> None:
        desk = Desk(tmp_path)
        await desk.start()
        data = (bytes(BLOCK),)
        digests = block_digests(data, BLOCK)
        await desk.store.write(0, [Slice(0, 1, 1)], data, digests)
        first = await desk.store.write(1, [Slice(0, 1, 1)], data, digests)
        assert await desk.store.write(1, [Slice(0, 1, 1)], data, digests) == first
        for sequence in range(2, 40):
            desk.store.settled(1, sequence - 1)
            await desk.store.write(1, [Slice(0, 1, sequence)], data, digests)
        assert sum(map(len, desk.store._answers.values())) == 2
        desk.close()

    asyncio.run(story())


def test_request_that_can_never_be_sent_fails_at_once_and_is_not_sent_later() -> None:
    async def story() -> None:
        peer = _Peer()

        def refuse(message: Request) -> asyncio.Future[Reply]:
            if isinstance(message, Write) and message.volume == 9:
                raise LocalLinkError("link: a WRITE of 99 bytes is too large.")
            return peer.request(message)

        patient = PatientLink(refuse, 30.0, Trace("a"))
        early = [patient.ask(_write(volume, 100)) for volume in (0, 9, 1)]
        await patient.came_up(_mended, PEER_BOOT)
        assert [message.volume for message, _ in peer.asked] == [0, 1]  # type: ignore[union-attr]  # Writes
        for asked in (early[1], patient.ask(_write(9, 101))):
            with pytest.raises(LocalLinkError):
                await asked
        assert patient.settled_sequence(9) == 101
        await patient.came_up(_mended, PEER_BOOT)
        assert [message.volume for message, _ in peer.asked] == [0, 1, 0, 1]  # type: ignore[union-attr]
        patient.close()

    asyncio.run(story())


def test_mending_that_ends_after_its_session_lets_nothing_out() -> None:
    """What it has found out is of a session that is over; the next one mends anew."""

    async def story() -> None:
        peer, gate = _Peer(), asyncio.Event()
        patient = PatientLink(peer.request, 30.0, Trace("a"))

        async def slow() -> int:
            await gate.wait()
            return 5

        mending = asyncio.create_task(patient.came_up(slow, PEER_BOOT))
        await asyncio.sleep(0)
        waiting = patient.ask(_write(0, 1))
        patient.went_down()
        gate.set()
        await mending
        assert (patient.ready, patient.store_epoch, peer.asked) == (False, 0, [])
        await patient.came_up(_mended, PEER_BOOT)
        assert (patient.ready, patient.store_epoch, len(peer.asked)) == (True, 1, 1)
        await peer.answer(0)
        await waiting
        patient.close()

    asyncio.run(story())


def test_who_asks_long_after_the_link_was_lost_still_has_his_own_time() -> None:
    async def story() -> None:
        patient = PatientLink(_Peer().request, 0.3, Trace("a"))
        await patient.came_up(_mended, PEER_BOOT)
        patient.went_down()
        patient._down_at -= 100
        asked_at = time.monotonic()
        with pytest.raises(CheckCondition):
            await patient.ask(_write(0, 1))
        assert time.monotonic() - asked_at >= 0.3
        patient.close()

    asyncio.run(story())


def test_mending_in_vain_is_told_once_a_session_and_so_is_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwvirt.controller.patience._MEND_AGAIN_S", 0.001)

    async def story() -> None:
        failures = 3
        trace, told = Trace("a"), []
        trace.subscribe(lambda event: told.append(event.name))
        patient = PatientLink(_Peer().request, 30.0, trace)

        async def mend() -> int:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise PeerError("link: b has lost its ledger.")
            return 1

        await patient.came_up(mend, PEER_BOOT)
        assert told == ["link.mend-failed", "link.mended"]
        patient.went_down()
        await patient.came_up(mend, PEER_BOOT)
        assert told == ["link.mend-failed", "link.mended"]  # nothing to tell of a session without trouble
        patient.went_down()
        failures = 1
        await patient.came_up(mend, PEER_BOOT)
        assert told == ["link.mend-failed", "link.mended"] * 2
        patient.close()

    asyncio.run(story())
