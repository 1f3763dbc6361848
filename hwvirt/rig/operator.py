"""Who stands at the bench of a rig on three kernels: switches power and spoils the cable, as the runner inside asks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from hwvirt.errors import HwvirtError
from hwvirt.lab.cables import CableStrike, EthernetCable, SerialCable
from hwvirt.rig.errands import Answer, Errand, What
from hwvirt.rig.seat import Seat
from hwvirt.trace import Trace

__all__ = ["Operator"]


class Operator:
    """Does errands, each in a thread of its own; `answer` is called in it. Left, it has ended all of them.

    `cable` is the one between the controllers, where faults can strike it.
    """

    def __init__(
        self,
        seats: Mapping[str, Seat],
        cable: EthernetCable | SerialCable | None,
        answer: Callable[[Answer], None],
        trace: Trace,
    ) -> None:
        self._seats = seats
        self._cable = cable
        self._answer = answer
        self._trace = trace
        self._strikes: dict[int, CableStrike] = {}
        self._threads: list[threading.Thread] = []
        self._told: set[str] = set()

    def take(self, errand: Errand) -> None:
        """Begins an errand and returns at once."""
        if errand.what is What.END:
            if (ending := self._strikes.get(errand.number)) is not None:
                ending.end()
            return
        if errand.what is What.STRIKE:
            assert self._cable is not None, "a rig with faults of the link has a cable that they can strike"
            assert errand.fault is not None
            self._strikes[errand.number] = self._cable.strike(errand.fault, errand.controller)
            self._answer(Answer(errand.number, begun=True))
        if errand.what is What.CUT:
            self._trace.emit("lab.power-cut", kernel=errand.controller)
        thread = threading.Thread(target=self._do, args=(errand,), name=f"errand {errand.number}", daemon=True)
        self._threads = [one for one in self._threads if one.is_alive()]
        self._threads.append(thread)
        thread.start()

    def look(self) -> None:
        """Tells of each controller that has ended without being asked to."""
        for name, seat in self._seats.items():
            if name not in self._told and (how := seat.ended()):
                self._told.add(name)
                self._answer(Answer(0, error=how, controller=name))

    def _do(self, errand: Errand) -> None:
        answer = Answer(errand.number, error=f"a bug of the lab: see what it said of {errand.what.value}.")
        try:
            answer = Answer(errand.number, struck=self._done(errand))
        except HwvirtError as error:
            answer = Answer(errand.number, error=error.reason, next_step=error.next_step)
        except OSError as error:
            answer = Answer(errand.number, error=f"the lab cannot {errand.what.value} {errand.controller}: {error}.")
        finally:
            self._strikes.pop(errand.number, None)
            self._answer(answer)

    def _done(self, errand: Errand) -> int:
        """Does it, and returns how many units a strike has hit."""
        if errand.what is What.STRIKE:
            return self._strikes[errand.number].wait()
        assert errand.controller is not None
        seat = self._seats[errand.controller]
        match errand.what:
            case What.CUT:
                seat.cut_power()
            case What.STOP:
                seat.stop()
            case What.START:
                seat.start()
        return 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for strike in tuple(self._strikes.values()):
            strike.end()
        for thread in self._threads:
            thread.join()

