"""A serial line between the two controllers of a rig: two ptys, and a relay between them at the line's rate."""

from __future__ import annotations

import asyncio
import os
import time
import tty
from collections.abc import Collection, Iterable
from contextlib import suppress

from hwvirt.link.baud import bytes_per_s
from hwvirt.link.faults import PTY_RUN, FaultKind, Flow, LinkFault, Medium, RememberedLine
from hwvirt.rig.cable import Cable, strikes_of
from hwvirt.rig.file.model import Rig, Serial

__all__ = ["PtyLine", "pty_line_of"]

_AHEAD_S = 0.02
"""So late the loop may come back while the line goes on: a real one does not wait for anybody."""


def pty_line_of(rig: Rig, dialler: str) -> PtyLine | None:
    """The line of a rig whose link is a serial one without devices of its own; for the running asyncio loop."""
    if not isinstance(rig.link, Serial) or rig.link.devices is not None:
        return None
    (listener,) = (name for name in rig.controllers if name != dialler)
    return PtyLine(dialler, listener, strikes_of(rig), rig.seed, rig.link.baud)


class PtyLine(Cable):
    """`devices` are the ttys of the two controllers, by name. What a full tty does not take is lost, as by a UART."""

    medium = Medium.LINE
    remembers = RememberedLine

    def __init__(
        self,
        dialler: str,
        listener: str,
        kinds: Collection[FaultKind],
        seed: int,
        baud: int,
        standing: Iterable[LinkFault] = (),
    ) -> None:
        line = LinkFault(FaultKind.RATE, baud)
        super().__init__(dialler, listener, {*kinds, FaultKind.RATE}, seed, (line, *standing))
        self._baud = baud
        self._ends = {name: os.openpty() for name in (dialler, listener)}
        self.devices: dict[str, str] = {}
        for name, (master, slave) in self._ends.items():
            tty.setraw(slave)  # nothing is echoed before a controller has opened it
            os.set_blocking(master, False)
            self.devices[name] = os.ttyname(slave)
        self._strands = [self._strand(dialler, listener), self._strand(listener, dialler)]
        self.lost_bytes = 0

    def _strand(self, source: str, target: str) -> _Strand:
        return _Strand(self, self._ends[source][0], self._ends[target][0], self.flow(target), self._baud)

    async def start(self) -> None:
        """Begins to carry."""
        for strand in self._strands:
            strand.start()

    async def close(self) -> None:
        """Carries no more. Idempotent."""
        for strand in self._strands:
            strand.stop()
        for master, slave in self._ends.values():
            for descriptor in (master, slave):
                with suppress(OSError):  # closed before
                    os.close(descriptor)
        self._ends.clear()


class _Strand:
    """One direction: reads a little more than the line carries now, delivers what has come out."""

    def __init__(self, cable: PtyLine, source: int, target: int, flow: Flow, baud: int) -> None:
        self._cable = cable
        self._source = source
        self._target = target
        self._flow = flow
        self._chunk_bytes = PTY_RUN.at(baud)
        self._ahead_bytes = max(self._chunk_bytes, int(bytes_per_s(baud) * _AHEAD_S))
        self._reading = False
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Waits for bytes."""
        self._loop.add_reader(self._source, self._readable)
        self._reading = True

    def stop(self) -> None:
        """Waits for nothing any more. Idempotent."""
        self._loop.remove_reader(self._source)
        self._reading = False
        if self._timer is not None:
            self._timer.cancel()

    def _readable(self) -> None:
        try:
            data = os.read(self._source, self._chunk_bytes)
        except OSError:  # nobody has the tty open
            return
        now = time.monotonic()
        self._flow.send(data, now)
        self._cable.passed(now)
        self._deliver()

    def _deliver(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        now = time.monotonic()
        for data in self._flow.arrived(now):
            taken = 0
            with suppress(BlockingIOError):
                taken = os.write(self._target, data)
            self._cable.lost_bytes += len(data) - taken
        room = self._flow.waiting_bytes < self._ahead_bytes
        if room and not self._reading:
            self.start()
        elif self._reading and not room:  # the sender's tty fills, and holds it back
            self._loop.remove_reader(self._source)
            self._reading = False
        if self._flow.waiting_bytes:
            self._timer = self._loop.call_later(max(0.0, self._flow.next_due() - now), self._deliver)
