"""Who holds switches and cables does what is asked, tells when it is done, and leaves nothing at work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import cast

from hwvirt.lab.cables import EthernetCable
from hwvirt.lab.process import LabError
from hwvirt.link.faults import FaultKind, LinkFault
from hwvirt.rig.errands import Answer, Errand, What
from hwvirt.rig.operator import Operator
from hwvirt.rig.seat import Seat
from hwvirt.trace import Event, Trace

KINDS = (FaultKind.CUT, FaultKind.DROP)
CUT = LinkFault(FaultKind.CUT, for_s=600.0)


class PlayedSeat(Seat):
    """No kernel: it remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.how = ""

    def start(self) -> None:
        self.told.append("start")

    def stop(self) -> None:
        raise LabError("controller b does not end.", next_step="Look at it.")

    def cut_power(self) -> None:
        self.told.append("cut")

    def ended(self) -> str:
        return self.how


@dataclass
class Desk:
    """An operator, the cable that he holds, and what he says."""

    operator: Operator
    seat: PlayedSeat
    cable: EthernetCable
    answers: SimpleQueue[Answer]
    events: list[Event] = field(default_factory=list)

    def answer(self) -> Answer:
        return self.answers.get(timeout=20)


@contextmanager
def desk() -> Iterator[Desk]:
    answers: SimpleQueue[Answer] = SimpleQueue()
    trace, events, seat = Trace("lab"), list[Event](), PlayedSeat()
    trace.subscribe(events.append)
    with EthernetCable(kinds=KINDS) as cable, Operator({"b": cast(Seat, seat)}, cable, answers.put, trace) as operator:
        yield Desk(operator, seat, cable, answers, events)


def test_power_is_cut_and_comes_back_as_asked() -> None:
    with desk() as at:
        at.operator.take(Errand(1, What.CUT, "b"))
        assert at.answer() == Answer(1)
        at.operator.take(Errand(2, What.START, "b"))
        assert at.answer() == Answer(2)
        assert at.seat.told == ["cut", "start"]
        assert [(event.name, event.fields) for event in at.events] == [("lab.power-cut", {"kernel": "b"})]


def test_what_cannot_be_done_is_answered_with_the_reason() -> None:
    with desk() as at:
        at.operator.take(Errand(1, What.STOP, "b"))
        assert at.answer() == Answer(1, error="controller b does not end.", next_step="Look at it.")


def test_a_strike_is_answered_when_it_is_at_work_and_when_its_frames_were_hit() -> None:
    with desk() as at:
        near, far = (end.socket for end in at.cable.ends)
        at.operator.take(Errand(1, What.STRIKE, "b", LinkFault(FaultKind.DROP, count=2)))
        assert at.answer() == Answer(1, begun=True)
        for number in range(3):
            near.send(bytes([number]))
        assert far.recv(10) == b"\2"
        assert at.answer() == Answer(1, struck=2)


def test_a_strike_that_is_ended_is_answered_at_once_and_strikes_no_more() -> None:
    with desk() as at:
        near, far = (end.socket for end in at.cable.ends)
        at.operator.take(Errand(1, What.STRIKE, None, CUT))
        assert at.answer() == Answer(1, begun=True)
        at.operator.take(Errand(1, What.END))
        assert at.answer() == Answer(1, struck=0)
        at.operator.take(Errand(1, What.END))
        near.send(b"kept")
        assert far.recv(10) == b"kept"


def test_when_the_operator_leaves_nothing_is_at_work() -> None:
    with desk() as at:
        at.operator.take(Errand(1, What.STRIKE, None, CUT))
        assert at.answer() == Answer(1, begun=True)
    assert at.answer() == Answer(1, struck=0)


def test_who_has_ended_unasked_is_told_once() -> None:
    with desk() as at:
        at.operator.look()
        at.seat.how = "the kernel of controller b has gone."
        at.operator.look()
        at.operator.look()
        assert at.answer() == Answer(0, error="the kernel of controller b has gone.", controller="b")
        assert at.answers.empty()
