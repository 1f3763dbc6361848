"""A SCSI disk of the guest's kernel whose every answer is ours: our device server behind target_core_user.

    python -m hwvirt.lab.tcmu '{"name": "bad", "size_bytes": 67108864}'

makes the disk and prints its identity as a line of JSON. A line with a JSON list of rules (hwvirt.disk.faulty.Rule) replaces
the disk's rules and is answered by a line; an empty one, or SIGTERM, removes the disk.
"""

from __future__ import annotations

import mmap
import os
import select
import socket
import struct
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from hwvirt.disk.disk import Disk
from hwvirt.disk.faulty import FaultyDisk, Rule
from hwvirt.disk.loop import LoopDisk, create_image
from hwvirt.errors import DiskError
from hwvirt.lab.disks import GuestDisk, add_backstore, describe, loopback_lun, loopback_serial
from hwvirt.lab.guest.system import DeviceEvents, load_modules, requests, write
from hwvirt.lab.process import LabError
from hwvirt.lab.tcmu_ring import Answer, Reset, Ring, Task
from hwvirt.scsi import opcodes
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.opcodes import Direction
from hwvirt.scsi.status import Status
from hwvirt.scsi.vpd import Identity
from hwvirt.units import FOREVER

__all__ = ["ServedDisk", "Tcmu", "TcmuServer", "main", "serve"]

_UIO = Path("/sys/class/uio")
_KICK = struct.pack("<i", 1)
_WORKERS = 32
_DATA_AREA_MIB = 32
_MOST_SECTORS = 16384


class Tcmu(msgspec.Struct, frozen=True, tag_field="kind", tag="tcmu"):
    """A disk of our own device server over `backing`, a file or device in the guest; without one in the guest's memory."""

    name: str
    size_bytes: int
    block_bytes: int = 512
    backing: str = ""
    rules: tuple[Rule, ...] = ()


class TcmuServer:
    """Executes what target_core_user asks for, in a thread of its own; slow commands in further threads.

    A DiskError is silence: the command is answered when its initiator aborts it, or by `release`.
    """

    def __init__(self, uio: str, disk: Disk) -> None:
        """`uio` is the device's name, "uio0"."""
        self._disk = disk
        size = int((_UIO / uio / "maps/map0/size").read_text(), 16)
        self._fd = os.open(f"/dev/{uio}", os.O_RDWR | os.O_CLOEXEC)
        self._ring = Ring(memoryview(mmap.mmap(self._fd, size)))
        self._lock = threading.Lock()  # ring, tasks
        self._tasks: dict[int, Task] = {}
        self._silent: set[int] = set()
        self._released = False
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="tcmu")
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="tcmu", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Ends all silence, now and from now on, so that the kernel can let go of the disk."""
        with self._lock:
            self._released = True
            self._abort(tuple(self._silent))

    def close(self) -> None:
        """Ends the threads; commands under way are answered first."""
        self._stop.close()
        self._thread.join()
        self._workers.shutdown()
        self._stopped.close()
        os.close(self._fd)

    def _serve(self) -> None:
        sources = [self._fd, self._stopped.fileno()]
        while self._stopped.fileno() not in select.select(sources, [], [])[0]:
            os.read(self._fd, len(_KICK))
            with self._lock:
                for request in self._ring.take():
                    if isinstance(request, Reset):
                        self._abort(request.ids)
                    else:
                        self._tasks[request.id] = request
                        self._begin(request)
                os.write(self._fd, _KICK)

    def _begin(self, task: Task) -> None:
        row = opcodes.find(task.cdb)
        direction = row.direction if row is not None else Direction.NONE
        data_in_length = sum(map(len, task.data)) if direction is Direction.IN else 0
        if self._disk.quick:
            data_out = task.data if direction is Direction.OUT else ()
            self._finish(task, self._execute(Command(task.cdb, data_out, data_in_length)))
        else:  # the kernel takes the shared memory back when it aborts a task
            copied = tuple(bytes(piece) for piece in task.data) if direction is Direction.OUT else ()
            self._workers.submit(self._work, task, Command(task.cdb, copied, data_in_length))

    def _work(self, task: Task, command: Command) -> None:
        completion = self._execute(command)
        with self._lock:
            if self._tasks.get(task.id) is task:
                self._finish(task, completion)
                os.write(self._fd, _KICK)

    def _execute(self, command: Command) -> Completion | None:
        try:
            return self._disk.execute(command, FOREVER)
        except DiskError as error:
            print(f"{command.cdb.hex()}: {error}", file=sys.stderr)
            return None

    def _finish(self, task: Task, completion: Completion | None) -> None:
        if completion is None:
            self._silent.add(task.id)
            if self._released:
                self._abort((task.id,))
            return
        del self._tasks[task.id]
        length = _scatter(completion, task.data)
        status = int(completion.status)
        self._ring.answer(Answer(task.id, status, completion.sense, length if completion.data else None))

    def _abort(self, ids: Sequence[int]) -> None:
        for number in ids:
            self._silent.discard(number)
            if self._tasks.pop(number, None) is not None:
                self._ring.answer(Answer(number, Status.TASK_ABORTED))
        os.write(self._fd, _KICK)


def _scatter(completion: Completion, room: Sequence[memoryview]) -> int:
    """Copies Data-In into the shared memory; returns its length."""
    done = 0
    targets = iter(room)
    target = memoryview(b"")
    for piece in completion.data:
        rest = memoryview(piece)
        done += len(rest)
        while rest:
            target = target or next(targets)
            size = min(len(rest), len(target))
            target[:size] = rest[:size]
            rest, target = rest[size:], target[size:]
    return done


class ServedDisk:
    """A disk that is being served: what the kernel says about it, and its rules."""

    def __init__(self, disk: GuestDisk, faulty: FaultyDisk) -> None:
        self.disk = disk
        self._faulty = faulty

    def set_rules(self, rules: Sequence[Rule]) -> None:
        """Replaces the rules and forgets all counts."""
        self._faulty.set_rules(rules)

    @property
    def struck(self) -> tuple[int, ...]:
        """How many commands each rule has answered or delayed."""
        return self._faulty.struck


@contextmanager
def serve(spec: Tcmu) -> Iterator[ServedDisk]:
    """A disk for as long as the context lasts. To be called in a guest, as root. Raises LabError, DiskError."""
    load_modules("sg", "sd_mod", "target_core_user")
    with ExitStack() as undo:
        events = undo.enter_context(DeviceEvents())
        backing = spec.backing
        if not backing:
            backing = f"/dev/shm/{spec.name}"  # noqa: S108 - the guest's own memory, nobody else is there
            create_image(backing, spec.size_bytes)
            undo.callback(os.unlink, backing)
        serial = loopback_serial(spec.name)
        identity = Identity("HWVIRT", "TCMU DISK", "0001", serial, naa=int(f"6001405{serial}", 16))
        disk = FaultyDisk(LoopDisk(backing, spec.block_bytes, identity=identity), spec.rules)
        undo.callback(disk.close)
        control = (
            f"dev_config=hwvirt/{spec.name},dev_size={spec.size_bytes},hw_block_size={spec.block_bytes},"
            f"hw_max_sectors={_MOST_SECTORS},max_data_area_mb={_DATA_AREA_MIB},nl_reply_supported=-1"
        )
        backstore = add_backstore(f"user_0/{spec.name}", control, serial, undo)
        write(backstore / "attrib/cmd_time_out", "0")  # how long silence lasts is the initiator's decision
        write(backstore / "attrib/tmr_notification", "1")
        server = TcmuServer(_uio_of(spec.name), disk)
        undo.callback(server.close)
        bus_path = loopback_lun(backstore, spec.name, undo)
        undo.callback(server.release)
        undo.callback(disk.hurry)
        yield ServedDisk(describe(events, bus_path), disk)


def _uio_of(name: str) -> str:
    wanted = f"tcm-user/0/{name}/hwvirt/{name}"
    for device in _UIO.iterdir():
        if (device / "name").read_text().strip() == wanted:
            return device.name
    raise LabError(f"target_core_user made no device for {name}")


def main(argv: Sequence[str]) -> int:
    """Serves one disk until it is told to end."""
    told = requests()
    with serve(msgspec.json.decode(argv[1], type=Tcmu)) as served:
        print(msgspec.json.encode(served.disk).decode(), flush=True)
        for line in told:
            served.set_rules(msgspec.json.decode(line, type=tuple[Rule, ...]))
            print("rules set", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
