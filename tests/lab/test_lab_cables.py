"""Cables carry everything unless they are told otherwise, and outlive a power cycle."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from hwvirt.lab.cables import DirectEthernet, EthernetCable, SerialCable
from hwvirt.lab.kernel import Kernel, ProgramFailed
from hwvirt.lab.pacer import Pacer
from hwvirt.link.faults import SEALED, FaultKind, LinkFault
from hwvirt.units import Deadline

lab = pytest.mark.lab

ALL_BYTES = bytes(range(256))
KINDS = frozenset(FaultKind) - SEALED
CUT = LinkFault(FaultKind.CUT)


def soon() -> Deadline:
    return Deadline.after(20)


def received(end: socket.socket, size: int) -> bytes:
    """`size` bytes from a stream; what came so far when nothing more comes for a second."""
    end.settimeout(1.0)
    data = b""
    try:
        while len(data) < size:
            data += end.recv(size - len(data))
    except TimeoutError:
        pass
    return data


def until(holds: Callable[[], bool]) -> None:
    deadline = soon()
    while not holds():
        assert not deadline.expired
        time.sleep(0.001)


@pytest.fixture
def ethernet() -> Iterator[EthernetCable]:
    with EthernetCable(kinds=KINDS, seed=1) as cable:
        yield cable


@pytest.fixture
def serial() -> Iterator[SerialCable]:
    with SerialCable(1_000_000, kinds=KINDS, seed=1) as cable:
        yield cable


def test_frames_cross_whole_and_in_order(ethernet: EthernetCable) -> None:
    near, far = (end.socket for end in ethernet.ends)
    for size in (1, 60, 1514, 9014):
        near.send(bytes([size & 255]) * size)
        far.send(b"back" * size)
        assert far.recv(65536) == bytes([size & 255]) * size
        assert near.recv(65536) == b"back" * size


def test_a_cut_cable_loses_frames_until_it_is_healed(ethernet: EthernetCable) -> None:
    near, far = (end.socket for end in ethernet.ends)
    cut = ethernet.strike(CUT)
    near.send(b"lost")
    far.send(b"lost")
    until(lambda: cut.struck == 2)
    cut.end()
    assert cut.wait() == 2
    near.send(b"kept")
    assert far.recv(100) == b"kept"


def test_one_direction_may_be_dead_alone(ethernet: EthernetCable) -> None:
    near, far = (end.socket for end in ethernet.ends)
    silence = ethernet.strike(LinkFault(FaultKind.HALF_OPEN), toward="b")
    near.send(b"lost")
    far.send(b"kept")
    assert near.recv(100) == b"kept"
    until(lambda: silence.struck == 1)
    silence.end()
    near.send(b"kept")
    assert far.recv(100) == b"kept"


def test_a_fault_is_over_when_its_frames_were_hit_or_its_time_has_passed(ethernet: EthernetCable) -> None:
    near, far = (end.socket for end in ethernet.ends)
    drop = ethernet.strike(LinkFault(FaultKind.DROP, count=2))
    cut = ethernet.strike(LinkFault(FaultKind.CUT, for_s=0.05), toward="a")
    for number in range(3):
        near.send(bytes([number]))
    assert drop.wait() == 2
    assert far.recv(100) == b"\2"
    assert cut.wait() == 0
    far.send(b"kept")
    assert near.recv(100) == b"kept"


def test_a_slow_cable_carries_frames_whole() -> None:
    slow = LinkFault(FaultKind.RATE, 800_000)
    with EthernetCable(standing=[slow]) as cable:
        near, far = (end.socket for end in cable.ends)
        started = time.monotonic()
        for number in range(10):
            near.send(bytes([number]) * 1500)
        assert [far.recv(65536) for _ in range(10)] == [bytes([number]) * 1500 for number in range(10)]
        assert time.monotonic() - started > 0.149


def test_a_fault_that_is_not_of_the_cable_is_refused() -> None:
    with EthernetCable(kinds=[FaultKind.DROP]) as cable, pytest.raises(KeyError):
        cable.strike(CUT)


def test_what_reaches_an_end_without_a_kernel_can_be_discarded(ethernet: EthernetCable) -> None:
    near, far = (end.socket for end in ethernet.ends)
    near.send(b"old")
    near.send(b"older")
    until(lambda: ethernet.strands["b"].passed_bytes == 8)
    ethernet.ends[1].discard_waiting()
    near.send(b"new")
    assert far.recv(100) == b"new"


def test_a_delayed_lane_keeps_order_and_time(ethernet: EthernetCable) -> None:
    near, far = (end.socket for end in ethernet.ends)
    ethernet.strike(LinkFault(FaultKind.DELAY, 0.2), toward="b")
    started = time.monotonic()
    for number in range(20):
        near.send(bytes([number]))
    assert [far.recv(100)[0] for _ in range(20)] == list(range(20))
    assert 0.2 <= time.monotonic() - started < 3  # one after the other they would need 4 seconds


def test_lost_and_spoilt_frames_repeat_with_the_seed() -> None:
    def run() -> list[bytes]:
        with EthernetCable(kinds=KINDS, seed=7) as cable:
            near, far = (end.socket for end in cable.ends)
            cable.strike(LinkFault(FaultKind.DROP, count=2))
            cable.strike(LinkFault(FaultKind.FLIP, count=3))
            cable.strike(LinkFault(FaultKind.GARBAGE, 64, count=1))
            for number in range(8):
                near.send(bytes([number]) * 100)
            return [far.recv(200) for _ in range(7)]

    first = run()
    assert run() == first
    junk, *spoilt, _, _, _ = first
    assert len(junk) == 64
    assert [one.count(number) for number, one in enumerate(spoilt, 2)] == [99, 99, 99]
    assert first[4:] == [bytes([number]) * 100 for number in (5, 6, 7)]


def test_all_bytes_cross_a_serial_cable_both_ways(serial: SerialCable) -> None:
    near, far = (end.socket for end in serial.ends)
    near.sendall(ALL_BYTES)
    far.sendall(ALL_BYTES[::-1])
    assert received(far, 256) == ALL_BYTES
    assert received(near, 256) == ALL_BYTES[::-1]


def test_a_serial_cable_holds_its_rate() -> None:
    with SerialCable(115_200) as cable:
        near, far = (end.socket for end in cable.ends)
        started = time.monotonic()
        near.sendall(bytes(11_520))
        assert len(received(far, 11_520)) == 11_520
        assert 0.9 < time.monotonic() - started < 1.9


def test_a_receiver_that_does_not_read_loses_bytes_and_no_more_than_2048_wait(serial: SerialCable) -> None:
    near, far = (end.socket for end in serial.ends)
    near.sendall(bytes(10_000))
    until(lambda: serial.strands["b"].passed_bytes + serial.strands["b"].lost_bytes == 10_000)
    assert serial.ends[1].unread_bytes() == serial.strands["b"].passed_bytes <= 2048
    assert len(received(far, 2048)) == serial.strands["b"].passed_bytes


def test_a_serial_cable_spoils_runs_of_bytes(serial: SerialCable) -> None:
    near, far = (end.socket for end in serial.ends)
    flip = serial.strike(LinkFault(FaultKind.FLIP, count=1), toward="b")
    near.sendall(bytes(100))
    assert flip.wait() == 1
    assert sum(byte.bit_count() for byte in received(far, 100)) == 1
    drop = serial.strike(LinkFault(FaultKind.DROP, count=1))
    far.sendall(b"lost")
    assert drop.wait() == 1
    far.sendall(b"kept")
    assert received(near, 4) == b"kept"


def test_a_serial_cable_is_at_its_rate_again_after_a_slower_time() -> None:
    with SerialCable(1_000_000, kinds=KINDS) as cable:
        near, far = (end.socket for end in cable.ends)
        slow = cable.strike(LinkFault(FaultKind.RATE, 8000.0))
        started = time.monotonic()
        near.sendall(bytes(200))
        assert len(received(far, 200)) == 200
        assert time.monotonic() - started > 0.19
        slow.end()
        started = time.monotonic()
        near.sendall(bytes(2000))
        assert len(received(far, 2000)) == 2000
        assert time.monotonic() - started < 2.4  # 2.5 at the slower rate


def test_a_rate_that_is_struck_makes_no_serial_cable_faster() -> None:
    with SerialCable(9600, kinds=KINDS) as cable:
        near, far = (end.socket for end in cable.ends)
        fast = cable.strike(LinkFault(FaultKind.RATE, 10e6))
        started = time.monotonic()
        near.sendall(bytes(200))
        assert len(received(far, 200)) == 200
        assert time.monotonic() - started > 0.18
        fast.end()


def test_a_pacer_catches_up_by_a_short_burst_only() -> None:
    slow = Pacer(bytes_per_s=1000.0)
    assert slow.gone_at(100, now=10.0) == pytest.approx(10.0 - 0.02 + 0.1)
    assert slow.gone_at(1000, now=10.0) == pytest.approx(11.08)
    assert slow.gone_at(10, now=10.5) == pytest.approx(11.09)
    assert slow.gone_at(10, now=20.0) == pytest.approx(20.0 - 0.02 + 0.01)
    fast = Pacer(bytes_per_s=1_024_000.0)
    assert fast.gone_at(1024, now=10.0) == pytest.approx(10.0)


@dataclass(frozen=True)
class Pair:
    """Two kernels with an Ethernet cable and a serial cable between them."""

    a: Kernel
    b: Kernel
    ethernet: EthernetCable
    serial: SerialCable

    def ping(self) -> str:
        """One ping from a to b. Raises ProgramFailed when no answer comes within 3 seconds."""
        return self.a.run(["busybox", "ping", "-c", "1", "-W", "3", self.ethernet.ends[1].ip], soon())


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with ExitStack() as stack:
        ethernet = stack.enter_context(EthernetCable(kinds=KINDS))
        serial = stack.enter_context(SerialCable(115_200))
        a, b = (
            stack.enter_context(Kernel(name, tmp_path_factory.mktemp(name), cables=[ethernet.ends[end], serial.ends[end]]))
            for end, name in enumerate("ab")
        )
        b.wait_up(soon())
        yield Pair(a, b, ethernet, serial)


@lab
def test_two_kernels_ping_until_the_cable_is_cut_and_again_when_it_is_healed(pair: Pair) -> None:
    pair.ping()
    cut = pair.ethernet.strike(CUT)
    with pytest.raises(ProgramFailed):
        pair.ping()
    cut.end()
    pair.ping()


@lab
def test_a_cable_outlives_the_power_cycle_of_a_kernel(pair: Pair) -> None:
    pair.ping()
    pair.b.power_cut()
    with pytest.raises(ProgramFailed):
        pair.ping()
    pair.b.power_on()
    pair.b.wait_up(soon())
    pair.ping()


@lab
def test_all_bytes_cross_a_serial_cable_between_two_kernels_at_its_rate(pair: Pair) -> None:
    sent = ALL_BYTES * 9
    (pair.b.share / "sent").write_bytes(sent)
    echo = pair.a.start(["sh", "-c", "stty raw -echo </dev/ttyS0; echo ready; exec cat </dev/ttyS0 >/dev/ttyS0"])
    program = "exec 3<>/dev/ttyS0; stty raw -echo <&3; echo ready; head -n 1; cat sent >&3; head -c 2304 <&3 >back"
    send = pair.b.start(["sh", "-c", program])
    assert echo.line(soon()) == send.line(soon()) == "ready"
    started = time.monotonic()
    send.send(b"go\n", soon())
    assert send.line(soon()) == "go"
    assert send.wait(soon()) == 0
    assert 0.18 < time.monotonic() - started < 10
    assert (pair.b.share / "back").read_bytes() == sent
    pair.a.signal(echo, "TERM")


@lab
def test_the_first_descriptors_of_a_process_are_good_enough_for_a_cable(tmp_path: Path) -> None:
    program = (
        "import socket, sys; near, far = socket.socketpair()\n"
        "from pathlib import Path; from hwvirt.lab.cables import SerialEnd; from hwvirt.lab.kernel import Kernel\n"
        "from hwvirt.units import Deadline\n"
        "with Kernel('a', Path(sys.argv[1]), cables=[SerialEnd(near)]) as kernel:\n"
        "    kernel.run(['sh', '-c', 'echo through >/dev/ttyS0'], Deadline.after(20))\n"
        "    print(near.fileno(), far.recv(100))"
    )
    output = subprocess.check_output([sys.executable, "-c", program, str(tmp_path)], text=True, timeout=60)
    assert output == "3 b'through\\r\\n'\n"


def test_frames_cross_a_direct_cable() -> None:
    cable = DirectEthernet()
    near, far = (end.socket for end in cable.ends)
    near.send(b"frame")
    assert far.recv(100) == b"frame"
    cable.close()
