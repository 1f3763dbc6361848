"""Cables between kernels: Ethernet and serial, relayed by the launcher, which can cut, slow and spoil them.

A cable outlives the power cycles of the kernels at its ends. What arrives at a kernel without power is lost, as on a bench.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import random
import select
import socket
import struct
import termios
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeAlias

from hwvirt.buffers import Buffer

__all__ = ["CableEnd", "DirectEthernet", "EthernetCable", "EthernetEnd", "Lane", "Pacer", "SerialCable", "SerialEnd"]

_BUFFER_BYTES = 4 << 20
_FRAME_BYTES = 1 << 16
_WAITING_BYTES = 4 << 20
_BITS_PER_BYTE = 10  # 8N1: start bit, eight bits, stop bit
_SERIAL_CHUNK_BYTES = 256
_SERIAL_QUANTUM_S = 0.01
_BURST_BYTES = 1024
_BURST_S = 0.02
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


class Pacer:
    """When the last bit of some bytes has gone over a line of `bytes_per_s`. After a pause it may catch up by a short burst,
    because a sleeping relay wakes up late. Pure: time comes as an argument."""

    def __init__(self, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s
        self._busy_until = 0.0

    def gone_at(self, size_bytes: int, now: float) -> float:
        """The moment when `size_bytes`, given to the line now, have gone."""
        start = max(self._busy_until, now - min(_BURST_S, _BURST_BYTES / self.bytes_per_s))
        self._busy_until = start + size_bytes / self.bytes_per_s
        return self._busy_until


class Lane:
    """One direction of a cable: the same bytes or frames, unless it is told otherwise. Settings hold from the next unit on.

    `drop` and `corrupt` are probabilities for each unit: a frame (one bit of it flips), or a byte of a serial line.
    """

    def __init__(self, units: Callable[[Lane, bytes], Buffer], seed: str, pacer: Pacer | None = None) -> None:
        self.drop = 0.0
        self.corrupt = 0.0
        self.delay_s = 0.0
        self.up = True
        self.pacer = pacer
        self.passed_bytes = 0
        self.lost_bytes = 0
        self._units = units
        self.random = random.Random(seed)

    def through(self, data: bytes) -> Buffer:
        """What of `data` comes out at the other end; nothing while the lane is cut. Pure but for the lane's randomness."""
        if not self.up:
            return b""
        if self.drop or self.corrupt:
            return self._units(self, data)
        return data

    def relay(self, source: socket.socket, deliver: Callable[[Buffer], bool], most_bytes: int) -> None:
        """Carries everything from `source` until it is closed."""
        waiting: deque[tuple[float, Buffer]] = deque()
        waiting_bytes = 0
        while True:
            if not waiting or self._readable(source, waiting[0][0], waiting_bytes):
                data = source.recv(most_bytes)
                if not data:
                    return
                if self.pacer is not None:
                    time.sleep(max(0.0, self.pacer.gone_at(len(data), time.monotonic()) - time.monotonic()))
                out = self.through(data)
                self.lost_bytes += len(data) - len(out)
                if out and not waiting and not self.delay_s:
                    self._deliver(out, deliver)
                    continue
                if out:
                    waiting.append((time.monotonic() + self.delay_s, out))
                    waiting_bytes += len(out)
            while waiting and waiting[0][0] <= time.monotonic():
                _, out = waiting.popleft()
                waiting_bytes -= len(out)
                self._deliver(out, deliver)

    def _deliver(self, out: Buffer, deliver: Callable[[Buffer], bool]) -> None:
        if deliver(out):
            self.passed_bytes += len(out)
        else:
            self.lost_bytes += len(out)

    @staticmethod
    def _readable(source: socket.socket, due: float, waiting_bytes: int) -> bool:
        """Waits until `due`, or until there is something to read and room for it."""
        remaining = max(0.0, due - time.monotonic())
        if waiting_bytes >= _WAITING_BYTES:
            time.sleep(remaining)
            return False
        return bool(select.select([source], [], [], remaining)[0])


def _spoil_frame(lane: Lane, frame: bytes) -> Buffer:
    if lane.random.random() < lane.drop:
        return b""
    if lane.random.random() < lane.corrupt:
        spoilt = bytearray(frame)
        spoilt[lane.random.randrange(len(spoilt))] ^= 1 << lane.random.randrange(8)
        return spoilt
    return frame


def _spoil_bytes(lane: Lane, data: bytes) -> Buffer:
    out = bytearray()
    for byte in data:
        if lane.random.random() >= lane.drop:
            out.append(byte ^ 1 << lane.random.randrange(8) if lane.random.random() < lane.corrupt else byte)
    return out


class _Cable:
    """Two lanes and their threads: `lanes[0]` goes from the first end to the second."""

    def __init__(self, lanes: tuple[Lane, Lane], owned: list[socket.socket], relays: list[Callable[[], None]]) -> None:
        self.lanes = lanes
        self._owned = owned
        self._threads = [threading.Thread(target=relay, name="lab-cable", daemon=True) for relay in relays]
        for thread in self._threads:
            thread.start()

    def cut(self) -> None:
        """Nothing passes any more, in neither direction; `lanes[i].up = False` cuts one."""
        for lane in self.lanes:
            lane.up = False

    def heal(self) -> None:
        """What is sent from now on passes again."""
        for lane in self.lanes:
            lane.up = True

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
    """Frames between two kernels, about 100 MB/s. A lane that the receiver does not empty loses frames, as Ethernet does."""

    def __init__(self, seed: int = 0) -> None:
        near, near_relay = _pair(socket.SOCK_SEQPACKET)
        far, far_relay = _pair(socket.SOCK_SEQPACKET)
        cable = next(_numbers)
        self.ends = (EthernetEnd(near, cable, 1), EthernetEnd(far, cable, 2))
        lanes = (Lane(_spoil_frame, f"{seed} there"), Lane(_spoil_frame, f"{seed} back"))
        super().__init__(
            lanes,
            [near_relay, far_relay, near, far],
            [
                lambda: lanes[0].relay(near_relay, lambda frame: _send_frame(far_relay, frame), _FRAME_BYTES),
                lambda: lanes[1].relay(far_relay, lambda frame: _send_frame(near_relay, frame), _FRAME_BYTES),
            ],
        )


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
    """Bytes between two serial lines at `baud`, ten bits each.

    A kernel that does not take its bytes loses them, as a UART without flow control does (`lanes[i].lost_bytes`); a program
    in the guest that lets more than 3.5 KB lie unread in its terminal kills the line until the next power cycle.
    """

    def __init__(self, baud: int, seed: int = 0) -> None:
        near, near_relay = _pair(socket.SOCK_STREAM)
        far, far_relay = _pair(socket.SOCK_STREAM)
        self.ends = (SerialEnd(near), SerialEnd(far))
        rate = baud / _BITS_PER_BYTE
        chunk = max(1, min(_SERIAL_CHUNK_BYTES, int(rate * _SERIAL_QUANTUM_S)))
        lanes = (
            Lane(_spoil_bytes, f"{seed} there", Pacer(rate)),
            Lane(_spoil_bytes, f"{seed} back", Pacer(rate)),
        )
        super().__init__(
            lanes,
            [near_relay, far_relay, near, far],
            [
                lambda: lanes[0].relay(near_relay, lambda data: _send_bytes(far_relay, self.ends[1], data), chunk),
                lambda: lanes[1].relay(far_relay, lambda data: _send_bytes(near_relay, self.ends[0], data), chunk),
            ],
        )


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
