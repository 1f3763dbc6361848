"""Cables between kernels: Ethernet and serial, relayed by the launcher; faults of `hwvirt.link.faults` strike them.

The unit of a fault is an Ethernet frame, or a run of bytes on a serial line: nobody here knows what they mean. A cable
outlives the power cycles of the kernels at its ends. What arrives at a kernel without power is lost, as on a bench.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from types import TracebackType
from typing import Self, TypeAlias

from hwvirt.buffers import Buffer
from hwvirt.link.baud import bytes_per_s
from hwvirt.link.faults import KERNEL_RUN, Blow, FaultKind, Flow, Lanes, LinkFault, Medium, RememberedLine, Runs

__all__ = ["CableEnd", "CableStrike", "DirectEthernet", "EthernetCable", "EthernetEnd", "SerialCable", "SerialEnd"]

_BUFFER_BYTES = 4 << 20
_FRAME_BYTES = 1 << 16
_WAITING_BYTES = 4 << 20
_SERIAL_AHEAD_S = 0.02  # a relay that wakes up late finds the line still busy
_OVERRUN_BYTES = 2048  # a guest's serial line dies for good when its terminal throttles, at about 3900 unread bytes

_numbers = itertools.count(1)


class _End:
    """What a kernel gets of a cable: a socket that the launcher keeps, so that it survives the kernel."""

    def __init__(self, wire: socket.socket) -> None:
        self.socket = wire

    def fileno(self) -> int:
        """The descriptor to hand to the kernel."""
        return self.socket.fileno()

    def discard_waiting(self) -> None:
        """Forgets what arrived while no kernel listened."""
        try:
            while self.socket.recv(_FRAME_BYTES, socket.MSG_DONTWAIT):
                pass
        except BlockingIOError:
            return


class EthernetEnd(_End):
    """One end of an Ethernet cable with the MAC address and the IP address that the kernel takes there."""

    def __init__(self, wire: socket.socket, cable: int, number: int) -> None:
        super().__init__(wire)
        self.mac = f"02:00:00:{cable >> 8:02x}:{cable & 255:02x}:{number:02x}"
        self.ip = f"10.{99 + cable // 250}.{cable % 250}.{number}"

    @property
    def address(self) -> str:
        """The IP address with its prefix length; both ends of a cable are a network of their own."""
        return f"{self.ip}/24"


class SerialEnd(_End):
    """One end of a serial cable."""

    def unread_bytes(self) -> int:
        """What the kernel has not yet taken."""
        answer = fcntl.ioctl(self.socket, termios.FIONREAD, b"\0\0\0\0")
        return int(struct.unpack("i", answer)[0])


CableEnd: TypeAlias = EthernetEnd | SerialEnd


class CableStrike:
    """A fault at work on a cable; `wait` for its end, `end` is its end. Every method may be called from any thread."""

    def __init__(self, blow: Blow, changed: threading.Condition) -> None:
        self._blow = blow
        self._changed = changed

    def wait(self) -> int:
        """Returns when the fault is over or was ended, with the number of units that it has hit."""
        with self._changed:
            while not self._blow.is_over(now := time.monotonic()):
                until = self._blow.until
                self._changed.wait(None if until == float("inf") else max(0.0, until - now))
            return self._blow.struck

    @property
    def struck(self) -> int:
        """How many units it has hit so far."""
        return self._blow.struck

    def end(self) -> None:
        """It strikes no more. Idempotent."""
        with self._changed:
            self._blow.withdraw()
            self._changed.notify_all()


class _Strand:
    """One direction of a cable: carries what `source` gives to `deliver`, which says whether the receiver took it.

    At most `ahead_bytes` are under way; then the sender waits.
    """

    def __init__(
        self,
        flow: Flow,
        changed: threading.Condition,
        source: socket.socket,
        deliver: Callable[[Buffer], bool],
        most_bytes: int,
        ahead_bytes: int,
    ) -> None:
        self._flow = flow
        self._changed = changed
        self._source = source
        self._deliver = deliver
        self._most_bytes = most_bytes
        self._ahead_bytes = ahead_bytes
        self.passed_bytes = 0
        self.lost_bytes = 0
        """What the receiver did not take; not what a fault made of it."""

    def carry(self) -> None:
        """Carries everything until the source is closed."""
        while True:
            with self._changed:
                arrived = self._flow.arrived(time.monotonic())
                due, room = self._flow.next_due(), self._flow.waiting_bytes < self._ahead_bytes
            for unit in arrived:
                if self._deliver(unit):
                    self.passed_bytes += len(unit)
                else:
                    self.lost_bytes += len(unit)
            if not room:
                time.sleep(max(0.0, due - time.monotonic()))
            elif due == float("inf") or select.select([self._source], [], [], max(0.0, due - time.monotonic()))[0]:
                data = self._source.recv(self._most_bytes)
                if not data:
                    return
                with self._changed:
                    self._flow.send(data, time.monotonic())
                    self._changed.notify_all()


class _Cable:
    """Two strands and their threads, by the name of the end that they lead to."""

    def __init__(
        self, strands: Mapping[str, _Strand], lanes: Lanes, changed: threading.Condition, owned: list[socket.socket]
    ) -> None:
        self.strands = strands
        self._lanes = lanes
        self._changed = changed
        self._owned = owned
        self._threads = [threading.Thread(target=one.carry, name="lab-cable", daemon=True) for one in strands.values()]
        for thread in self._threads:
            thread.start()

    def strike(self, fault: LinkFault, toward: str | None = None) -> CableStrike:
        """The fault is at work from now on: on what goes to that end, or (None) on what passes next in any direction.

        Raises KeyError for a kind that is not of this cable.
        """
        with self._changed:
            return CableStrike(self._lanes.strike(fault, toward, time.monotonic()), self._changed)

    def close(self) -> None:
        """Ends the relays and gives up the ends. Idempotent."""
        for wire in self._owned:
            try:
                wire.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                if error.errno not in {errno.ENOTCONN, errno.EBADF}:
                    raise
        for thread in self._threads:
            thread.join()
        for wire in self._owned:
            wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class EthernetCable(_Cable):
    """Frames between two kernels, about 100 MB/s. A strand that the receiver does not empty loses frames, as Ethernet does.

    `kinds` are the faults that can strike, `standing` ones are at work all the time; the same `seed` draws the same bits.
    """

    def __init__(
        self,
        names: tuple[str, str] = ("a", "b"),
        kinds: Collection[FaultKind] = (),
        seed: int = 0,
        standing: Iterable[LinkFault] = (),
    ) -> None:
        near, near_relay = _pair(socket.SOCK_SEQPACKET)
        far, far_relay = _pair(socket.SOCK_SEQPACKET)
        cable = next(_numbers)
        self.ends = (EthernetEnd(near, cable, 1), EthernetEnd(far, cable, 2))
        lanes, changed = Lanes(names, kinds, seed, standing, Medium.PACKETS), threading.Condition()

        def strand(name: str, source: socket.socket, target: socket.socket) -> _Strand:
            flow = Flow(lanes.toward[name], Runs())
            return _Strand(flow, changed, source, lambda it: _send_frame(target, it), _FRAME_BYTES, _WAITING_BYTES)

        strands = {names[1]: strand(names[1], near_relay, far_relay), names[0]: strand(names[0], far_relay, near_relay)}
        super().__init__(strands, lanes, changed, [near_relay, far_relay, near, far])


class DirectEthernet:
    """Frames between two kernels without a relay: 150 to 300 MB/s, and nothing that could be cut."""

    def __init__(self) -> None:
        near, far = _pair(socket.SOCK_SEQPACKET)
        cable = next(_numbers)
        self.ends = (EthernetEnd(near, cable, 1), EthernetEnd(far, cable, 2))

    def close(self) -> None:
        """Gives up the ends. Idempotent."""
        for end in self.ends:
            end.socket.close()


class SerialCable(_Cable):
    """Bytes between two serial lines at `baud`, ten bits each; faults as on an `EthernetCable`.

    A kernel that does not take its bytes loses them, as a UART without flow control does (`strands[name].lost_bytes`); a
    program in the guest that lets more than 3.5 KB lie unread in its terminal kills the line until the next power cycle.
    """

    def __init__(
        self, baud: int, names: tuple[str, str] = ("a", "b"), kinds: Collection[FaultKind] = (), seed: int = 0
    ) -> None:
        near, near_relay = _pair(socket.SOCK_STREAM)
        far, far_relay = _pair(socket.SOCK_STREAM)
        self.ends = (SerialEnd(near), SerialEnd(far))
        chunk_bytes = KERNEL_RUN.at(baud)
        ahead_bytes = max(chunk_bytes, int(bytes_per_s(baud) * _SERIAL_AHEAD_S))
        lanes = Lanes(names, kinds, seed, (LinkFault(FaultKind.RATE, baud),), Medium.LINE, RememberedLine)
        changed = threading.Condition()

        def strand(name: str, source: socket.socket, target: socket.socket, end: SerialEnd) -> _Strand:
            flow = Flow(lanes.toward[name], Runs())
            return _Strand(flow, changed, source, lambda it: _send_bytes(target, end, it), chunk_bytes, ahead_bytes)

        strands = {
            names[1]: strand(names[1], near_relay, far_relay, self.ends[1]),
            names[0]: strand(names[0], far_relay, near_relay, self.ends[0]),
        }
        super().__init__(strands, lanes, changed, [near_relay, far_relay, near, far])


def _pair(kind: socket.SocketKind) -> tuple[socket.socket, socket.socket]:
    near, far = socket.socketpair(socket.AF_UNIX, kind)
    for end in (near, far):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    return near, far


def _send_frame(wire: socket.socket, frame: Buffer) -> bool:
    try:
        wire.send(frame, socket.MSG_DONTWAIT)
    except OSError:  # full, or the cable is being closed
        return False
    return True


def _send_bytes(wire: socket.socket, end: SerialEnd, data: Buffer) -> bool:
    try:
        if end.unread_bytes() + len(data) > _OVERRUN_BYTES:
            return False
        wire.sendall(data)
    except OSError:  # the cable is being closed
        return False
    return True
