"""A user-mode Linux kernel as an ordinary process: boots in about 0.6 s, runs programs, loses its power.

    with Kernel("a", directory) as kernel:
        print(kernel.run(["uname", "-r"], Deadline.after(5)))

The guest's root is the launcher's own file system, read-only, so that every program is there, our own Python too.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from hwvirt.errors import UsageError
from hwvirt.lab.boot import CONTROL_TTY, JOB_TTYS, exports, guest_settings, make_boot_folder, uml_arguments
from hwvirt.lab.cables import CableEnd, EthernetEnd, SerialEnd
from hwvirt.lab.jobs import Job, Line, Switchboard
from hwvirt.lab.process import KernelProcess, LabError, memory_directory
from hwvirt.units import Deadline

__all__ = ["SHARE_IN_GUEST", "Kernel", "ProgramFailed"]

SHARE_IN_GUEST = Path("/mnt")
"""Where a guest sees `Kernel.share`."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BOOT_S = 30.0
_END_S = 10.0


class ProgramFailed(LabError):
    """A program in a guest ended with another status than 0. `output` is what it wrote to standard output."""

    def __init__(self, kernel: str, argv: Sequence[str], status: int, output: str, console: Path) -> None:
        self.argv, self.status, self.output = tuple(argv), status, output
        super().__init__(f"kernel {kernel}: {shlex.join(argv)} ended with status {status}.", next_step=f"See {console}.")


class _Powered:
    """What exists from power on to power off: the boot folder, the process, its lines."""

    def __init__(self, boot: Path, process: KernelProcess, board: Switchboard) -> None:
        self.boot, self.process, self.board = boot, process, board
        self.jobs = 0


class Kernel:
    """One machine of the lab. Cables, disks and `directory` outlive its power cycles; memory does not.

    `disks` are image files, in the guest /dev/ubda, /dev/ubdb, ...; cables are there vec0, vec1, ... (Ethernet, already
    with their address) and /dev/ttyS0, /dev/ttyS1, ... (serial), in the order given. `share` is /mnt in the guest; the
    kernel's console, and what programs write to standard error, is appended to `console`. While it is on there is a folder
    in `boot_place`, by default where temporary files lie: its path should be short.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        memory_bytes: int = 256 << 20,
        cables: Sequence[CableEnd] = (),
        disks: Sequence[Path] = (),
        environment: Mapping[str, str] | None = None,
        boot_place: Path | None = None,
    ) -> None:
        if not name.isidentifier():
            raise UsageError(f"a kernel cannot be called {name!r}: use letters, digits and _")
        self.name = name
        self.share = directory.absolute() / "share"
        self.console = directory.absolute() / "console.log"
        self._memory_bytes = memory_bytes
        self._ethernet = [end for end in cables if isinstance(end, EthernetEnd)]
        self._serial = [end for end in cables if isinstance(end, SerialEnd)]
        self._disks = [disk.absolute() for disk in disks]
        self._environment = dict(environment or {})
        self._boot_place = boot_place
        self._powered: _Powered | None = None
        self.share.mkdir(parents=True, exist_ok=True)

    @property
    def is_on(self) -> bool:
        """Whether it has power; a kernel that has died by itself still has."""
        return self._powered is not None

    def power_on(self) -> None:
        """Starts to boot and returns at once. Raises LabError when it is on already or cannot start."""
        if self._powered is not None:
            raise LabError(f"kernel {self.name} is already on")
        with ExitStack() as undo:
            boot = make_boot_folder(self.share, self._disks, self._boot_place)
            undo.callback(shutil.rmtree, boot, ignore_errors=True)
            (boot / "settings").write_text(guest_settings(self.name, self._ethernet, self._environment))
            lines = [Line(tty) for tty in (CONTROL_TTY, *JOB_TTYS)]
            for line in lines:
                undo.callback(line.close)
            for end in (*self._ethernet, *self._serial):
                end.discard_waiting()
            descriptors = {line.tty: line.guest.fileno() for line in lines}
            arguments = uml_arguments(
                boot, self.name, self._memory_bytes, descriptors, self._ethernet, self._serial, len(self._disks)
            )
            inherited = [*descriptors.values(), *(end.fileno() for end in (*self._ethernet, *self._serial))]
            memory = {"TMPDIR": memory_directory(self._memory_bytes)}
            process = KernelProcess(arguments, boot, self.console, inherited, memory)
            board = Switchboard(f"kernel {self.name}", self.console, process, lines[0], lines[1:])
            self._powered = _Powered(boot, process, board)
            undo.pop_all()

    def wait_up(self, deadline: Deadline) -> float:
        """Waits until the guest takes requests; returns its uptime at that moment, in seconds. Raises LabError."""
        return self._on().board.wait_up(deadline)

    def start(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
    ) -> Job:
        """Starts a program in the guest, in /mnt, as soon as the guest is up. Raises LabError when that takes too long.

        Standard output comes line by line through the job, or to `on_line` in a thread of the lab, which must not raise.
        """
        powered = self._on()
        program = shutil.which(argv[0], path=_PATH)
        if program is None:
            raise LabError(f"kernel {self.name}: there is no program {argv[0]}")
        powered.board.wait_up(Deadline.after(_BOOT_S))
        powered.jobs += 1
        script = powered.boot / f"job-{powered.jobs}"
        command = shlex.join([str(Path(program).absolute()), *argv[1:]])
        script.write_text(f"cd {SHARE_IN_GUEST}\n{exports(environment or {})}exec {command}\n")
        return powered.board.start_job(script.name, f"kernel {self.name}: {argv[0]}", on_line)

    def run(self, argv: Sequence[str], deadline: Deadline, *, environment: Mapping[str, str] | None = None) -> str:
        """Runs a program in the guest to its end; returns its standard output. Raises ProgramFailed, LabError."""
        lines: list[str] = []
        status = self.start(argv, environment=environment, on_line=lines.append).wait(deadline)
        output = "".join(f"{line}\n" for line in lines)
        if status != 0:
            raise ProgramFailed(self.name, argv, status, output, self.console)
        return output

    def signal(self, job: Job, name: str) -> None:
        """Sends a signal ("TERM", "KILL", ...) to a job's process group, unless the job has ended."""
        pid = job.pid(Deadline.after(_END_S))
        if not job.ended:
            self._on().board.request(f"signal {name} {pid}")

    def power_off(self, deadline: Deadline) -> None:
        """Everything is written back, then the power is off. Raises LabError when it took too long; then it was a cut."""
        powered = self._on()
        powered.board.wait_up(deadline)
        powered.board.request("off")
        in_time = powered.process.ended(deadline)
        status = self._remove_power()
        if not in_time or status != 0:
            how = f"with status {status}" if in_time else "not in time"
            raise LabError(f"kernel {self.name} powered off {how}.", next_step=f"See {self.console}.")

    def power_cut(self) -> None:
        """The power is off now, nothing is written back. Returns when every process of the kernel is gone. Idempotent."""
        if self._powered is not None:
            self._remove_power()

    def __enter__(self) -> Self:
        self.power_on()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.power_cut()

    def _on(self) -> _Powered:
        if self._powered is None:
            raise LabError(f"kernel {self.name} is off")
        return self._powered

    def _remove_power(self) -> int:
        powered, self._powered = self._on(), None
        status = powered.process.kill()
        gone = powered.board.join(Deadline.after(_END_S))
        shutil.rmtree(powered.boot, ignore_errors=True)
        if not gone:
            raise LabError(f"kernel {self.name}: processes of group {powered.process.group} do not end")
        return status
