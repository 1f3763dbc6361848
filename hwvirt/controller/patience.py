"""Requests that outlive sessions of the link.

Rules of this file:
1. A request is answered once, by the reply to its newest sending; replies of ended sessions never arrive here.
2. After `stall` without a link a request fails for its caller and is never sent again. Where the store may have seen a
   change that was reported failed, its volume is `lost`: mending decides, before anybody asks, whether it has happened.
3. When the link is back, first the volumes are attached and mended, then the requests go out in their old order.
4. A forwarded command that changes a medium goes to one life of the peer only: another one does not know whether it has
   been executed, and by now others may have written there. It fails, and whether it has happened stays open.
5. A store that may have lost what it had answered says so to a flush (SEND_AGAIN), and has a new epoch: a new session
   mends the volumes, then the flush is asked again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

from hwvirt.controller.store import SEND_AGAIN
from hwvirt.errors import HwvirtError, LinkError
from hwvirt.link.errors import LinkDown
from hwvirt.link.messages import Execute, Refused, Reply, Request, Unmap, Write
from hwvirt.scsi.sense import COMMUNICATION_TIMEOUT, CheckCondition
from hwvirt.trace import Trace
from hwvirt.units import Deadline

__all__ = ["PatientLink"]

_SWEEP_S = 0.05
_MEND_AGAIN_S = 1.0


class _Waiting:
    """One request and who waits for it."""

    __slots__ = ("answer", "asked_at", "message", "sent_to")

    def __init__(self, message: Request, answer: asyncio.Future[Reply], asked_at: float) -> None:
        self.message = message
        self.answer = answer
        self.asked_at = asked_at
        self.sent_to: int | None = None  # the boot epoch of the peer that got it last

    @property
    def for_one_life(self) -> bool:
        """See rule 4."""
        return isinstance(self.message, Execute) and self.message.number > 0


class PatientLink:
    """An `Asker` over an endpoint whose sessions come and go. For one asyncio loop."""

    def __init__(
        self,
        request: Callable[[Request], asyncio.Future[Reply]],
        stall_s: float,
        trace: Trace,
        renew: Callable[[str], None] = lambda why: None,
    ) -> None:
        """`renew`: ends the session, so that a new one begins."""
        self._request = request
        self._renew = renew
        self._stall_s = stall_s
        self._trace = trace
        self._waiting: dict[int, _Waiting] = {}
        self._writes: dict[int, dict[int, int]] = {}  # by volume: sequence numbers of those that wait, in order
        self._settled: dict[int, int] = {}
        self._number = 0
        self._session = self._peer_boot = 0
        self._ready = False
        self._answered = self._answered_before = 0
        self._down_at = time.monotonic()
        self._sweep: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._failed: LinkError | None = None
        self.store_epoch = 0
        self.lost: set[int] = set()

    @property
    def ready(self) -> bool:
        """Whether requests go out at once."""
        return self._ready

    async def wait_ready(self, deadline: Deadline) -> None:
        """Returns when requests go out at once. Raises LinkError: what mending failed with, or the deadline's passing."""
        while not self._ready:
            if self._failed is not None:
                raise self._failed
            self._changed.clear()
            try:
                async with asyncio.timeout(deadline.remaining):
                    await self._changed.wait()
            except TimeoutError:
                raise LinkError("link: the other controller does not answer.") from None

    def settled_sequence(self, volume: int) -> int:
        """See `Asker`."""
        if waiting := self._writes.get(volume):
            return next(iter(waiting.values())) - 1
        return self._settled.get(volume, 0)

    def ask(self, message: Request) -> Awaitable[Reply]:
        """See `Asker`. Raises CheckCondition COMMUNICATION TIMEOUT after `stall_s` without a link."""
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._number += 1
        waiting = _Waiting(message, answer, time.monotonic())
        self._waiting[self._number] = waiting
        if isinstance(message, Write):
            self._writes.setdefault(message.volume, {})[self._number] = message.slices[0].sequence
        if self._ready:
            self._send(self._number, waiting)
        else:
            self._arm()
        return answer

    def _send(self, number: int, waiting: _Waiting) -> None:
        try:
            reply = self._request(waiting.message)
        except LinkError as error:  # it can never be sent, so nothing may send it later
            self._fail(number, waiting, error)
            return
        waiting.sent_to = self._peer_boot
        reply.add_done_callback(partial(self._replied, number))

    def _replied(self, number: int, reply: asyncio.Future[Reply]) -> None:
        error = reply.exception() if not reply.cancelled() else LinkDown("link: the request was given up.")
        if isinstance(error, LinkDown):
            return  # it is still waiting; the next session asks again
        if number not in self._waiting:
            return
        self._answered += 1
        if error is None and _asks_again(reply.result()):
            self._renew("link: the other controller's store asks for what it has lost.")
            return
        waiting = self._forget(number)
        if waiting.answer.done():
            return  # whoever waited has given up
        if error is not None:
            waiting.answer.set_exception(error)
        else:
            waiting.answer.set_result(reply.result())

    def _forget(self, number: int) -> _Waiting:
        waiting = self._waiting.pop(number)
        if isinstance(waiting.message, Write):
            volume = waiting.message.volume
            sequence = self._writes[volume].pop(number)
            self._settled[volume] = max(sequence, self._settled.get(volume, 0))
        return waiting

    def went_down(self, silent_s: float = 0.0) -> None:
        """The session is over, and nothing had been heard in it for the last `silent_s`: requests wait."""
        self._session += 1
        self._ready = False
        if self._answered != self._answered_before:
            # A session in which nothing was answered was no link for who waits: his time goes on.
            self._answered_before = self._answered
            self._down_at = time.monotonic() - silent_s
        self._arm()

    async def came_up(self, mend: Callable[[], Awaitable[int]], peer_boot: int) -> None:
        """A session has begun: runs `mend`, which returns the store's epoch, and then asks again what waits.

        `peer_boot`: the boot epoch of the peer, which tells its lives apart.

        `mend` takes volumes off `lost` when it has decided. What it cannot mend now is tried again while the session lasts.
        """
        self._session += 1
        session = self._session
        self._failed = None
        epoch, mended, in_vain = 0, False, False
        while session == self._session and not (mended and not self.lost):
            try:
                epoch, mended = await mend(), True
            except LinkDown:
                return  # the next session begins anew
            except (HwvirtError, CheckCondition) as error:
                mended, in_vain = False, True
                self._cannot_mend(error if isinstance(error, LinkError) else LinkError(f"link: {error}"))
                await asyncio.sleep(_MEND_AGAIN_S)
        if session != self._session:
            return
        self.store_epoch, self._peer_boot = epoch, peer_boot
        self._failed = None
        if in_vain:
            self._trace.emit("link.mended")
        self._ready = True
        self._changed.set()
        for number, waiting in list(self._waiting.items()):
            if waiting.for_one_life and waiting.sent_to not in (None, peer_boot):
                self._fail(number, waiting, CheckCondition(COMMUNICATION_TIMEOUT))
            else:
                self._send(number, waiting)

    def _cannot_mend(self, error: LinkError) -> None:
        if self._failed is None or str(self._failed) != str(error):
            self._trace.emit("link.mend-failed", reason=str(error))
        self._failed = error
        self._changed.set()

    def _arm(self) -> None:
        if self._sweep is None and self._waiting:
            self._sweep = asyncio.get_running_loop().call_later(_SWEEP_S, self._fail_stalled)

    def _fail_stalled(self) -> None:
        self._sweep = None
        if self._ready:
            return
        now = time.monotonic()
        for number, waiting in list(self._waiting.items()):
            if not waiting.answer.done() and now - max(waiting.asked_at, self._down_at) > self._stall_s:
                self._fail(number, waiting, CheckCondition(COMMUNICATION_TIMEOUT))
                if waiting.sent_to is not None and isinstance(waiting.message, Write | Unmap):
                    self.lost.add(waiting.message.volume)
        self._arm()

    def _fail(self, number: int, waiting: _Waiting, error: Exception) -> None:
        self._forget(number)
        if not waiting.answer.done():  # else whoever waited has given up
            waiting.answer.set_exception(error)

    def close(self) -> None:
        """Fails everything that waits."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for number, waiting in list(self._waiting.items()):
            self._fail(number, waiting, CheckCondition(COMMUNICATION_TIMEOUT))


def _asks_again(reply: Reply) -> bool:
    return isinstance(reply, Refused) and reply.sense == SEND_AGAIN
