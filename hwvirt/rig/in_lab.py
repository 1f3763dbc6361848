"""A rig whose disks need a SCSI kernel runs inside one: the same runner, disks and daemons, in a kernel of the lab.

The runner outside boots the kernel, shows what the runner inside tells (a line of JSON an event), and takes over its run
folder and its exit code.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType

import msgspec

from hwvirt.disk.loop import create_image
from hwvirt.errors import ExitCode
from hwvirt.lab.folder import passing_folder
from hwvirt.lab.jobs import Job
from hwvirt.lab.kernel import SHARE_IN_GUEST, Kernel
from hwvirt.lab.process import LabError
from hwvirt.rig import two_kernels
from hwvirt.rig.bench import last_complaint
from hwvirt.rig.certificates import copy_papers, papers_given
from hwvirt.rig.disks import volatile_devices
from hwvirt.rig.errands import Answer, Streamed
from hwvirt.rig.file.model import Backing, Kernels, Rig, TcmLoopSpec
from hwvirt.rig.operator import Operator
from hwvirt.rig.seat import MEMORY_BYTES
from hwvirt.rig.watcher import Watcher
from hwvirt.stopping import stops_handled
from hwvirt.trace import Event, Trace
from hwvirt.units import Deadline

__all__ = ["run_in_lab"]

_UP_S = 30.0
_OFF_S = 20.0
_TICK_S = 0.25
_ANSWER_S = 10.0
_INTERRUPTED = 2
_COPY, _PAPERS = "rig.yaml", "papers"


def run_in_lab(rig: Rig, runs: Path, watcher: Watcher) -> ExitCode:
    """Boots a kernel, runs the rig in it, powers it off. Raises LabError when the kernel or the runner inside fails.

    Raises UsageError for a file of the link's TLS that cannot be read, before anything boots.
    """
    papers = papers_given(rig)
    trace = Trace("lab")
    trace.subscribe(watcher.handle)
    with passing_folder() as directory:
        with _kernels(rig, directory, trace) as bench:
            kernel = bench.host
            command = [sys.executable, "-m", "hwvirt", "run", str(rig.path.absolute()), "--seed", str(rig.seed)]
            command += ["--runs", str(SHARE_IN_GUEST / "runs"), "--stream", "--copy", str(SHARE_IN_GUEST / _COPY)]
            shutil.copyfile(rig.path, kernel.share / _COPY)  # the guest does not see every folder of ours
            if rig.lab.kernels is Kernels.EACH:
                command += ["--bench", str(SHARE_IN_GUEST / two_kernels.BENCH_FILE)]
            elif papers:
                copy_papers(papers, kernel.share / _PAPERS)
                command += ["--papers", str(SHARE_IN_GUEST / _PAPERS)]
            lines: SimpleQueue[str] = SimpleQueue()
            job = kernel.start(command, on_line=lines.put)
            with _signals_go_to(kernel, job), _operator(bench, job, trace) as operator:
                status = _follow(job, lines, _Show(watcher, runs, operator))
        if not _take_over(bench, runs, trace):
            complaint = last_complaint(kernel.console)
            raise LabError(f"the runner in kernel {kernel.name} ended with status {status}: {complaint}")
    try:
        return ExitCode(status)
    except ValueError:
        raise LabError(f"the runner in kernel {kernel.name} ended with status {status}.") from None


@contextmanager
def _kernels(rig: Rig, directory: Path, trace: Trace) -> Iterator[two_kernels.Kernels]:
    """The kernel in which the runner runs, and what belongs to it, up; powered off at the end."""
    if rig.lab.kernels is Kernels.EACH:
        with two_kernels.kernels(rig, directory, trace) as bench:
            yield bench
        return
    images, backing = _volatile_disks(rig, directory)
    with Kernel(
        "bench", directory, memory_bytes=_memory_bytes(rig), disks=images, environment=backing, boot_place=directory
    ) as kernel:
        trace.emit("lab.up", kernel=kernel.name, up_s=kernel.wait_up(Deadline.after(_UP_S)))
        yield two_kernels.Kernels(kernel, {}, None)
        kernel.power_off(Deadline.after(_OFF_S))


@contextmanager
def _operator(bench: two_kernels.Kernels, job: Job, trace: Trace) -> Iterator[Operator]:
    """Who does the errands of the runner inside, while it runs."""
    turn = threading.Lock()

    def answer(what: Answer) -> None:
        with turn, suppress(LabError, OSError):  # the runner inside may have gone
            job.send(msgspec.json.encode(what) + b"\n", Deadline.after(_ANSWER_S))

    with Operator(bench.seats, bench.cable, answer, trace) as operator:
        yield operator


def _memory_bytes(rig: Rig) -> int:
    """Disks of scsi_debug lie in the kernel's memory."""
    return MEMORY_BYTES + sum(disk.window.blocks * disk.block_bytes for disk in rig.disks.values())


def _volatile_disks(rig: Rig, directory: Path) -> tuple[list[Path], dict[str, str]]:
    """The images that keep the data of disks with a volatile cache, and the environment that says which is whose."""
    images: list[Path] = []
    devices: dict[str, str] = {}
    for name, disk in rig.disks.items():
        if isinstance(disk, TcmLoopSpec) and disk.backing is Backing.FILE:
            devices[name] = f"/dev/ubd{chr(ord('a') + len(images))}"
            images.append(directory / f"{name}.img")
            create_image(images[-1], disk.size_bytes)
    return images, volatile_devices(devices)


@dataclass(frozen=True, slots=True)
class _Show:
    """Who is given what the runner inside says."""

    watcher: Watcher
    runs: Path
    operator: Operator

    def take(self, line: str) -> None:
        """One line of it."""
        try:
            streamed = msgspec.json.decode(line, type=Streamed)
        except msgspec.DecodeError:
            self.watcher.handle(Event("lab.said", time.time(), "lab", {"line": line}))
            return
        event = streamed.event
        if event is not None:
            if "run_dir" in event.fields:  # people look for it outside
                folder = self.runs / Path(event.fields["run_dir"]).name
                event = replace(event, fields=event.fields | {"run_dir": str(folder)})
            self.watcher.handle(event)
        if streamed.status is not None:
            self.watcher.status(streamed.name, streamed.status)
        if streamed.errand is not None:
            self.operator.take(streamed.errand)

    def tick(self) -> None:
        """Nothing was said for a while."""
        self.watcher.tick(time.time())


def _follow(job: Job, lines: SimpleQueue[str], show: _Show) -> int:
    """Shows lines, in the caller's thread, until the job has ended; returns its status. Raises LabError."""
    while not (job.ended or job.lost) or not lines.empty():
        show.operator.look()
        try:
            show.take(lines.get(timeout=_TICK_S))
        except Empty:
            show.tick()
    return job.wait(Deadline.after(_TICK_S))


@contextmanager
def _signals_go_to(kernel: Kernel, job: Job) -> Iterator[None]:
    """A signal to stop ends the run inside, which takes its rig down; a second one ends it here and now."""
    received = 0

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received += 1
        if received >= _INTERRUPTED:
            raise KeyboardInterrupt
        kernel.signal(job, "INT")

    with stops_handled(pass_on):
        yield


def _take_over(bench: two_kernels.Kernels, runs: Path, trace: Trace) -> bool:
    """The run folder moves out of the share, with what the kernels said: `kernel.log`, and one of each controller's.

    Whether there was one.
    """
    inside = bench.host.share / "runs"
    logs = {"kernel.log": bench.host.console, **{f"kernel-{name}.log": s.kernel.console for name, s in bench.seats.items()}}
    made = [folder for folder in inside.iterdir() if folder.is_dir() and not folder.is_symlink()] if inside.exists() else []
    runs.mkdir(parents=True, exist_ok=True)
    for folder in made:
        target = runs / folder.name
        shutil.move(folder, target)
        for name, console in logs.items():
            shutil.copyfile(console, target / name)
        beside = runs / f".latest.{folder.name}"
        beside.symlink_to(folder.name)
        beside.replace(runs / "latest")
        trace.emit("lab.off", kernel=bench.host.name, run_dir=str(target))
    return bool(made)
