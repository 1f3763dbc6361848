"""A kernel as the host sees it: one process group, in a pid namespace where that is allowed, that leaves nothing behind."""

from __future__ import annotations

import mmap
import os
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from hwvirt.errors import InfrastructureError
from hwvirt.units import Deadline

__all__ = ["KernelProcess", "LabError", "lab_missing", "memory_directory", "namespace_command"]

_KEEPER = Path(__file__).parent / "keeper.sh"
_NAMESPACE_INIT = ("/usr/bin/busybox", "sh", "-c", '"$@"; exit $?', "sh")  # a kernel that is process 1 cannot abort itself
_PROGRAMS = {"linux.uml": "user-mode-linux", "/usr/bin/busybox": "busybox-static", "/sbin/modprobe": "kmod"}


class LabError(InfrastructureError):
    """A kernel, a cable or a program of the lab does not do its part."""


def lab_missing() -> str:
    """What this machine lacks for a lab, with the command that helps; empty when it lacks nothing."""
    packages = [package for program, package in _PROGRAMS.items() if shutil.which(program) is None]
    return f"the lab needs Debian packages: apt install {' '.join(packages)}" if packages else ""


@cache
def namespace_command() -> tuple[str, ...]:
    """The command that gives a kernel its own pid namespace, or nothing where the system forbids it."""
    unshare = shutil.which("unshare")  # with its path: the keeper's shell would take its own
    if unshare is None:
        return ()
    for flags in (["--pid"], ["--user", "--map-root-user", "--pid"]):
        command = (unshare, *flags, "--fork", "--kill-child")
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return (*command, *_NAMESPACE_INIT)
    return ()


def memory_directory(memory_bytes: int) -> str:
    """A directory for a kernel's memory file: room enough, and not mounted noexec. Raises LabError when there is none."""
    candidates = ("/dev/shm", tempfile.gettempdir())  # noqa: S108 - tempfile makes the file; the directory is a tmpfs on Linux
    for directory in candidates:
        try:
            room = os.statvfs(directory)
            with tempfile.TemporaryFile(dir=directory) as file:
                file.truncate(mmap.PAGESIZE)
                mmap.mmap(file.fileno(), mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_EXEC).close()
        except OSError:
            continue
        if room.f_bavail * room.f_frsize >= memory_bytes:
            return directory
    raise LabError(
        f"no place for {memory_bytes >> 20} MiB of a kernel's memory in {' or '.join(candidates)}.",
        next_step="Set TMPDIR to a directory with room that is not mounted noexec.",
    )


class KernelProcess:
    """A running kernel. It dies with the launcher, whichever way that ends."""

    def __init__(
        self, arguments: Sequence[str], boot: Path, console: Path, fds: Sequence[int], environment: Mapping[str, str]
    ) -> None:
        """Starts it; `console` grows by what the kernel prints, `boot` goes with it. Raises LabError."""
        command = ["/usr/bin/busybox", "sh", str(_KEEPER), str(boot), *namespace_command(), *arguments]
        try:
            with console.open("ab") as output:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=output, stderr=output, pass_fds=fds,
                    start_new_session=True, env={**os.environ, **environment},
                )  # fmt: skip
        except OSError as error:
            raise LabError(f"cannot start a kernel: {error}.", next_step=lab_missing()) from error
        self._pidfd = os.pidfd_open(self._process.pid)

    def fileno(self) -> int:
        """A descriptor that becomes readable when the kernel has ended by itself or was killed."""
        return self._pidfd

    @property
    def group(self) -> int:
        """The process group, and session, of everything that belongs to the kernel."""
        return self._process.pid

    def ended(self, deadline: Deadline) -> bool:
        """Waits for the kernel to end by itself; False when the deadline passed first."""
        remaining = deadline.remaining
        ready, _, _ = select.select([self._pidfd], [], [], None if remaining == float("inf") else remaining)
        return bool(ready)

    def kill(self) -> int:
        """Ends every process at once. Returns the exit status of the kernel when it had ended by itself, else -9."""
        # The leader is not yet waited for, so that its number cannot belong to anybody else.
        os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        os.close(self._pidfd)
        if self._process.stdin is not None:
            self._process.stdin.close()
        return status
