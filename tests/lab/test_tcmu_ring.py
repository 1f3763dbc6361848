"""The ring of target_core_user, with a kernel played by hand."""

import struct

import pytest

from hwvirt.lab.process import LabError
from hwvirt.lab.tcmu_ring import Answer, Reset, Ring, Task, cdb_bytes

RING, SIZE, DATA = 128, 512, 1024
PAD, COMMAND, TASK_MANAGEMENT = 0, 1, 2
READ_10 = bytes.fromhex("28000000000000000100")


class Kernel:
    """The other side: adds entries at the head, reads answers up to the tail."""

    def __init__(self, version: int = 2, start: int = 0) -> None:
        self.memory = memoryview(bytearray(4096))
        struct.pack_into("<HHIII", self.memory, 0, version, 7, RING, SIZE, start)
        struct.pack_into("<I", self.memory, 64, start)
        self.head = self.cleaned = start

    def add(self, operation: int, length: int, number: int = 0) -> int:
        """A new entry; returns its offset."""
        entry = RING + self.head
        struct.pack_into("<IHBB", self.memory, entry, length | operation, number, 0, 0)
        self.head = (self.head + length) % SIZE
        struct.pack_into("<I", self.memory, 12, self.head)
        return entry

    def command(self, number: int, cdb: bytes = READ_10, data: tuple[tuple[int, int], ...] = ((DATA, 512),)) -> None:
        entry = self.add(COMMAND, 128, number)
        place = entry + 104
        struct.pack_into("<III4xQ", self.memory, entry + 8, len(data), 0, 0, place)
        for index, piece in enumerate(data):
            struct.pack_into("<QQ", self.memory, entry + 48 + 16 * index, *piece)
        self.memory[place : place + len(cdb)] = cdb

    def answers(self) -> list[tuple[int, int, int, int, bytes]]:
        """(id, our flags, status, Data-In length, sense) of every answer since the last time."""
        (tail,) = struct.unpack_from("<I", self.memory, 64)
        found = []
        while self.cleaned != tail:
            entry = RING + self.cleaned
            length_and_operation, number, _, flags = struct.unpack_from("<IHBB", self.memory, entry)
            status, length, sense = struct.unpack_from("<B3xI96s", self.memory, entry + 8)
            if length_and_operation & 7 == COMMAND:
                found.append((number, flags, status, length, sense.rstrip(b"\0")))
            self.cleaned = (self.cleaned + (length_and_operation & ~7)) % SIZE
        return found


def tasks(ring: Ring) -> list[Task]:
    return [request for request in ring.take() if isinstance(request, Task)]


def test_a_command_comes_with_its_cdb_and_views_of_its_data() -> None:
    kernel = Kernel()
    ring = Ring(kernel.memory)
    kernel.command(7, data=((DATA, 512), (DATA + 1024, 256)))
    (task,) = tasks(ring)
    assert (task.id, task.cdb, [len(piece) for piece in task.data]) == (7, READ_10, [512, 256])
    task.data[1][:3] = b"abc"
    assert bytes(kernel.memory[DATA + 1024 : DATA + 1027]) == b"abc"
    assert tasks(ring) == []


def test_an_answer_carries_status_sense_and_length() -> None:
    kernel = Kernel()
    ring = Ring(kernel.memory)
    kernel.command(1)
    kernel.command(2)
    assert len(tasks(ring)) == 2
    ring.answer(Answer(1, 2, b"sense"))
    ring.answer(Answer(2, 0, data_in_length=36))
    assert kernel.answers() == [(1, 0, 2, 0, b"sense"), (2, 2, 0, 36, b"")]


def test_commands_may_end_in_any_order() -> None:
    kernel = Kernel()
    ring = Ring(kernel.memory)
    for number in (1, 2, 3):
        kernel.command(number)
    assert len(tasks(ring)) == 3
    ring.answer(Answer(3, 0))
    assert [answer[0] for answer in kernel.answers()] == [3]
    ring.answer(Answer(1, 0))
    ring.answer(Answer(2, 0))
    assert [answer[0] for answer in kernel.answers()] == [1, 2]


def test_pads_are_passed_over_and_the_ring_wraps() -> None:
    kernel = Kernel(start=256)
    ring = Ring(kernel.memory)
    kernel.command(1)
    kernel.add(PAD, 128)
    kernel.command(2)
    assert [task.id for task in tasks(ring)] == [1, 2]
    ring.answer(Answer(2, 0))
    ring.answer(Answer(1, 0))
    assert [answer[0] for answer in kernel.answers()] == [2, 1]
    assert kernel.cleaned == kernel.head == 128


def test_a_reset_names_its_commands_and_needs_no_answer() -> None:
    kernel = Kernel()
    ring = Ring(kernel.memory)
    kernel.command(5)
    entry = kernel.add(TASK_MANAGEMENT, 40)
    struct.pack_into("<B3xI", kernel.memory, entry + 8, 1, 2)
    struct.pack_into("<HH", kernel.memory, entry + 32, 5, 6)
    assert list(ring.take())[1] == Reset((5, 6))
    ring.answer(Answer(5, 0x40))
    assert list(ring.take()) == []
    assert [answer[:3] for answer in kernel.answers()] == [(5, 0, 0x40)]
    assert kernel.cleaned == kernel.head


def test_an_unknown_entry_is_marked_as_such() -> None:
    kernel = Kernel()
    ring = Ring(kernel.memory)
    entry = kernel.add(5, 64)
    assert list(ring.take()) == []
    assert kernel.memory[entry + 7] == 1
    assert struct.unpack_from("<I", kernel.memory, 64) == (64,)


def test_another_version_is_refused() -> None:
    with pytest.raises(LabError, match="speaks version 1, not 2"):
        Ring(Kernel(version=1).memory)


@pytest.mark.parametrize(
    ("front", "size"),
    [("00", 6), ("12", 6), ("28", 10), ("5a", 10), ("88", 16), ("9e", 16), ("a0", 12), ("7f 00 00 00 00 00 00 18", 32)],
)
def test_the_operation_code_tells_the_size_of_a_cdb(front: str, size: int) -> None:
    assert cdb_bytes(bytes.fromhex(front)) == size
