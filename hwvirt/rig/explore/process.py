"""One controller of a world: the real volume, store and link side in a loop of their own, and what goes in and out."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, IntEnum
from functools import lru_cache
from typing import Literal, NamedTuple

from typing_extensions import override

from hwvirt.buffers import Buffer
from hwvirt.controller.config import LinkConfig
from hwvirt.controller.correlation import CorrelationMap
from hwvirt.controller.lifecycle import Lifecycle
from hwvirt.controller.link_side import LinkSide
from hwvirt.controller.link_store import LinkStore
from hwvirt.controller.map_journal import MapJournal
from hwvirt.controller.redirect import RedirectVolume
from hwvirt.controller.service import Service
from hwvirt.controller.store import LocalStore
from hwvirt.errors import HwvirtError
from hwvirt.link.config import EthernetLink, Identity, LinkTiming, Role
from hwvirt.link.connection import Connection
from hwvirt.link.endpoint import Endpoint
from hwvirt.link.errors import LinkDown
from hwvirt.link.session import State as SessionState
from hwvirt.rig.explore.coverage import Happening, Visits, happening
from hwvirt.rig.explore.frames import CLOSED, FrameTable
from hwvirt.rig.explore.loop import HandLoop
from hwvirt.rig.explore.memory import BLOCK_BYTES, Image, MemoryDisk, MemoryJournal
from hwvirt.rig.explore.scenario import Ask, Scenario, Verb
from hwvirt.rig.judge.block import make_extent, versions_in
from hwvirt.rig.judge.history import WRITES, Fate, Kind
from hwvirt.scsi.sense import WRITE_ERROR, CheckCondition
from hwvirt.scsi.volume import Durability, Extent, Write
from hwvirt.trace import Event, Trace

__all__ = ["SEED", "SILENCE_S", "STALL_S", "Answer", "First", "Input", "Output", "Process", "Second", "Side", "What"]

SEED, _WRITER = 7, 1
STALL_S = 1.0
SILENCE_S = 8.0
_TIMING = LinkTiming(handshake_s=SILENCE_S, ping_s=SILENCE_S - 0.5, silence_s=SILENCE_S)
_SECRET = b"the secret of both"
_WRONG = ("link.mend-failed", "service.failed", "store.digest-mismatch")
"""Events of a controller that has met what no fault of a cable and no crash excuses."""
_FAILED_FLUSH = f"link: {CheckCondition(WRITE_ERROR)}"
"""Why a link is not mended while the second disk fails: that is excused."""


class Side(Enum):
    """Who: the controller that redirects and connects, the one that stores and listens."""

    A = "A"
    B = "B"

    @property
    def other(self) -> Side:
        """The one at the other end of the cable."""
        return Side.B if self is Side.A else Side.A


class What(IntEnum):
    """What can reach a process. Each has a number or two; see `Input`."""

    JOIN = 0  # a connection begins; `at` numbers the connections of the process
    ARRIVE = 1  # frame `which` arrives on connection `at`
    BREAK = 2  # connection `at` is found broken
    SLEEP = 3  # `at` milliseconds pass
    ASK = 4  # the host asks `asks[at]` as its request number `which`
    FINISH = 5  # slow job `at` ends
    SPOIL = 6  # the next flush of the disk will fail (1), or not (0), which `at` says


class Input(NamedTuple):
    """Something that reaches a process, the only reason for it to act."""

    what: What
    at: int = 0
    which: int = 0


class Answer(NamedTuple):
    """The host's request `number` has ended; of an operator's command the number is 0."""

    number: int
    fate: Fate
    seen: tuple[int, ...] = ()


class Output(NamedTuple):
    """What a process did: frames it sent, as (connection, frame), connections it closed, requests it answered."""

    sent: tuple[tuple[int, int], ...]
    closed: tuple[int, ...]
    answers: tuple[Answer, ...]


class Process(ABC):
    """A controller that acts when `apply` is called, and at no other time."""

    def __init__(self, name: str, role: Role, scenario: Scenario, image: Image, boot: int, frames: FrameTable) -> None:
        self.scenario = scenario
        self.wrong: list[str] = []
        self.visits: Visits = Visits()
        self.plugs: dict[int, _Plug] = {}
        self.loop = HandLoop(boot << 1 | (role is Role.LISTEN), slow_jobs=scenario.slow)
        self.frames = frames
        self.sent: list[tuple[int, int]] = []
        self.closed: list[int] = []
        self.answers: list[Answer] = []
        self.trace = Trace(name)
        self.trace.subscribe(self._note)
        with self.loop.inside():
            self.disk = MemoryDisk(image, self.loop, slow=scenario.slow)
            self.journal = MemoryJournal(image)
            link = EthernetLink(role, "cable", 0, _SECRET, timing=_TIMING)
            self.endpoint = _CableEndpoint(Identity(name, boot), link, self.trace)
            self._build(boot)

    side: LinkSide

    @abstractmethod
    def _build(self, boot: int) -> None:
        """Everything above disk, journal and endpoint."""

    def _note(self, event: Event) -> None:
        if event.name in _WRONG and event.fields.get("reason") != _FAILED_FLUSH:
            self.wrong.append(f"{event.name}: {event.fields.get('reason', event.fields)}")

    def end(self) -> None:
        """The process is no more; its parts let go of each other, so that nobody has to look for them in memory."""
        self.loop.kill()
        self._end_work()
        for plug in self.plugs.values():
            if plug.open:
                vars(plug.connection.session).clear()
                vars(plug.connection).clear()
        for part in (self.side, self.side.patient, self.endpoint):
            vars(part).clear()
        self.plugs.clear()

    @abstractmethod
    def _end_work(self) -> None:
        """What goes on outside of tasks is over, too."""

    def image(self) -> Image:
        """What the machine would keep."""
        disk, journal = self.disk, self.journal
        return Image(
            tuple(disk.content), tuple(disk.durable), tuple(journal.records), journal.synced, frozenset(disk.lost)
        )

    def apply(self, given: Input) -> Output:
        """It arrives; the process acts until it waits again."""
        with self.loop.inside():
            _APPLY[given.what](self, given)
            self.loop.run()
        for plug in self.plugs.values():
            plug.forget()
        output = Output(tuple(self.sent), tuple(self.closed), tuple(self.answers))
        self.sent.clear()
        self.closed.clear()
        self.answers.clear()
        return output

    def _join(self, given: Input) -> None:
        plug = self.plugs[given.at] = _Plug(self, given.at)
        plug.connection = self.endpoint.joined(plug)

    def _arrive(self, given: Input) -> None:
        plug = self.plugs[given.at]
        if given.which == CLOSED:
            self._visit(plug, Happening.CLOSED)
            plug.connection.end(LinkDown("link: the other side closed the connection."))
            return
        frame = self.frames[given.which]
        self._visit(plug, happening(plug.connection.session, frame.header))
        rest = memoryview(frame.data)
        while rest and plug.open:
            room = plug.connection.writable()
            size = min(len(room), len(rest))
            room[:size] = rest[:size]
            plug.connection.received(size)
            rest = rest[size:]

    def _break(self, given: Input) -> None:
        plug = self.plugs[given.at]
        self._visit(plug, Happening.CLOSED)
        plug.open = False  # it has nothing more to say on it
        plug.connection.end(LinkDown("link: the connection broke."))

    def _sleep(self, given: Input) -> None:
        for plug in self.plugs.values():
            if plug.open and plug.connection.session.next_deadline() <= self.loop.now + given.at / 1000:
                self._visit(plug, Happening.DEADLINE)
        self.loop.sleep(given.at / 1000)

    def _ask(self, given: Input) -> None:
        raise NotImplementedError

    def _finish(self, given: Input) -> None:
        self.loop.jobs.pop(given.at).finish()

    def _spoil(self, given: Input) -> None:
        self.disk.fails = bool(given.at)

    def _visit(self, plug: _Plug, what: Happening) -> None:
        session = plug.connection.session
        if session.state is not SessionState.CLOSED:
            self.visits[session.role, session.state, what] += 1


class Second(Process):
    """B: the store on its disk."""

    @override
    def _build(self, boot: int) -> None:
        self.store = LocalStore(self.disk, self.journal, self.trace)
        self.service = Service(self.store, {}, self.trace)
        self.side = LinkSide("b", _config("listen", "a"), boot, self.trace, self.endpoint)
        self.loop.begin(self.side.start({}, self.service))

    @override
    def _end_work(self) -> None:
        for errand in tuple(self.service._errands):
            with suppress(Exception, asyncio.CancelledError):
                errand._work.close()


class First(Process):
    """A: the volume that redirects. `serving`: hosts are let in. `failure`: why it could not start, if it could not."""

    @override
    def _build(self, boot: int) -> None:
        self.serving = False
        self.failure: Exception | None = None
        self.side = LinkSide("a", _config("connect", "b"), boot, self.trace, self.endpoint)
        store, correlation = LinkStore(self.side.patient, BLOCK_BYTES), CorrelationMap(self.disk.blocks)
        self.volume = RedirectVolume(0, self.disk, store, MapJournal(self.journal, correlation), correlation)
        self.lifecycle = Lifecycle(self.volume, self.trace)
        self.lifecycle.chunk_bytes, self.lifecycle.chunks_most = BLOCK_BYTES, 1  # so that hosts meet what is half done
        self.asks = self.scenario.all_asks
        self.loop.begin(self._start())

    @override
    def _end_work(self) -> None:
        """There is none."""

    async def _start(self) -> None:
        """As the daemon does it."""
        try:
            self.lifecycle.load()
            await self.side.start({0: self.volume}, Service(None, {}, self.trace))
            await self.side.wait_up()
            await self.lifecycle.start(self.scenario.initial)
        except Exception as error:  # the daemon would end with it
            self.failure = error
        else:
            self.serving = True

    @override
    def _ask(self, given: Input) -> None:
        ask = self.asks[given.at]
        self.loop.begin(self._operate(ask.what) if isinstance(ask.what, Verb) else self._request(given.which, ask))

    async def _request(self, number: int, ask: Ask) -> None:
        acknowledged = Fate.DURABLE if ask.what is Kind.WRITE_FUA else Fate.ACKNOWLEDGED
        try:
            failed, seen = await self._answer(number, ask)
        except (CheckCondition, HwvirtError):  # as the device server: it belongs to every request of the batch
            failed, seen = True, ()
        self.answers.append(Answer(number, Fate.FAILED if failed else acknowledged, seen))

    async def _answer(self, number: int, ask: Ask) -> tuple[bool, tuple[int, ...]]:
        """Whether it failed, and what a read has seen."""
        volume, extent = self.volume, Extent(ask.lba, ask.blocks)
        if ask.what is Kind.FLUSH:
            return await volume.flush() is not None, ()
        if ask.what is Kind.READ:
            (result,) = await volume.read([extent])
            if isinstance(result, CheckCondition):
                return True, ()
            return False, tuple(versions_in(result, 0, SEED, ask.lba, BLOCK_BYTES))
        if ask.what in WRITES:
            durability = Durability.DURABLE if ask.what is Kind.WRITE_FUA else Durability.VOLATILE
            (failed,) = await volume.write([Write(ask.lba, (_data(number, ask.lba, ask.blocks),))], durability)
        else:
            (failed,) = await volume.unmap([extent])
        return failed is not None, ()

    async def _operate(self, verb: Verb) -> None:
        fate = Fate.ACKNOWLEDGED
        try:
            if verb is Verb.REDIRECT:
                await self.lifecycle.redirect()
            elif verb is Verb.COMMIT:
                await self.lifecycle.commit()
                await self.lifecycle.settled()
            else:
                await self.lifecycle.discard()
        except (HwvirtError, CheckCondition):
            fate = Fate.FAILED
        self.answers.append(Answer(0, fate))


class _Plug:
    """One end of a connection: the `Port` of the link's connection."""

    connection: Connection

    def __init__(self, process: Process, number: int) -> None:
        self.open = True
        self._process = process
        self._number = number

    def send(self, buffers: list[Buffer]) -> None:
        """See `Port`."""
        if self.open:
            frames = self._process.frames.numbers_of(b"".join(buffers), self.connection.session.seal)
            self._process.sent += [(self._number, frame) for frame in frames]

    def close(self) -> None:
        """See `Port`."""
        if self.open:
            self.open = False
            self._process.closed.append(self._number)

    def forget(self) -> None:
        """The connection is over: nothing will be asked of it any more."""
        if not self.open:
            vars(self).pop("connection", None)


class _CableEndpoint(Endpoint):
    """The endpoint of a controller whose connections are made by the world."""

    def __init__(self, identity: Identity, link: EthernetLink, trace: Trace) -> None:
        super().__init__(identity, link, trace)
        self._transport = _NoTransport()  # type: ignore[assignment]  # it only has to start and to close

    def joined(self, plug: _Plug) -> Connection:
        """The session on a new connection."""
        return self._connected(plug, "the cable")


class _NoTransport:
    """Neither listens nor dials."""

    port = 0

    async def start(self) -> None:
        """Nothing to start."""

    async def close(self) -> None:
        """Nothing to close."""


def _config(role: Literal["listen", "connect"], peer: str) -> LinkConfig:
    """What the link side asks of it: the endpoint is made already, and whoever starts A has patience without end."""
    return LinkConfig(role=role, host="cable", port=0, peer=peer, secret_file="", stall_s=STALL_S, up_within_s=1e6)


@lru_cache(maxsize=1000)
def _data(number: int, lba: int, blocks: int) -> bytes:
    return make_extent(0, lba, blocks, number, _WRITER, SEED, BLOCK_BYTES)


_APPLY: dict[What, Callable[[Process, Input], None]] = {
    What.JOIN: Process._join,
    What.ARRIVE: Process._arrive,
    What.BREAK: Process._break,
    What.SLEEP: Process._sleep,
    What.ASK: lambda process, given: process._ask(given),
    What.FINISH: Process._finish,
    What.SPOIL: Process._spoil,
}
