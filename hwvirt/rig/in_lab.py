"""A rig whose disks need a SCSI kernel runs inside one: the same runner, disks and daemons, in a kernel of the lab.

The runner outside boots the kernel, shows what the runner inside tells (a line of JSON an event), and takes over its run
folder and its exit code.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

import msgspec

from hwvirt.disk.loop import create_image
from hwvirt.errors import ExitCode
from hwvirt.lab.jobs import Job
from hwvirt.lab.kernel import SHARE_IN_GUEST, Kernel
from hwvirt.lab.process import LabError
from hwvirt.rig.disks import volatile_backing
from hwvirt.rig.file.model import Backing, Kernels, Rig, TcmLoopSpec
from hwvirt.rig.two_kernels import BENCH_FILE, MEMORY_BYTES, host_kernel
from hwvirt.rig.watcher import Watcher
from hwvirt.trace import Event, Trace
from hwvirt.units import Deadline

__all__ = ["Streamed", "run_in_lab"]

_UP_S = 30.0
_OFF_S = 20.0
_TICK_S = 0.25
_INTERRUPTED = 2


class Streamed(msgspec.Struct, omit_defaults=True):
    """One line from the runner inside: an event, or a controller's status."""

    event: Event | None = None
    name: str = ""
    status: dict[str, Any] | None = None


def run_in_lab(rig: Rig, runs: Path, watcher: Watcher) -> ExitCode:
    """Boots a kernel, runs the rig in it, powers it off. Raises LabError when the kernel or the runner inside fails."""
    trace = Trace("lab")
    trace.subscribe(watcher.handle)
    with tempfile.TemporaryDirectory(prefix="hwvirt-lab-") as directory:
        with _kernel(rig, Path(directory), trace) as kernel:
            command = [sys.executable, "-m", "hwvirt", "run", str(rig.path.absolute()), "--seed", str(rig.seed)]
            command += ["--runs", str(SHARE_IN_GUEST / "runs"), "--stream"]
            if rig.lab.kernels is Kernels.EACH:
                command += ["--bench", str(SHARE_IN_GUEST / BENCH_FILE)]
            lines: SimpleQueue[str] = SimpleQueue()
            job = kernel.start(command, on_line=lines.put)
            with _signals_go_to(kernel, job):
                status = _follow(job, lines, watcher, runs)
        _take_over(kernel, runs, trace)
    try:
        return ExitCode(status)
    except ValueError:
        raise LabError(f"the runner in kernel {kernel.name} ended with status {status}.") from None


@contextmanager
def _kernel(rig: Rig, directory: Path, trace: Trace) -> Iterator[Kernel]:
    """The kernel in which the runner runs, up; powered off at the end."""
    if rig.lab.kernels is Kernels.EACH:
        with host_kernel(rig, directory, trace) as kernel:
            yield kernel
        return
    images, backing = _volatile_disks(rig, directory)
    with Kernel("bench", directory, memory_bytes=_memory_bytes(rig), disks=images, environment=backing) as kernel:
        trace.emit("lab.up", kernel=kernel.name, up_s=kernel.wait_up(Deadline.after(_UP_S)))
        yield kernel
        kernel.power_off(Deadline.after(_OFF_S))


def _memory_bytes(rig: Rig) -> int:
    """Disks of scsi_debug lie in the kernel's memory."""
    return MEMORY_BYTES + sum(disk.window.blocks * disk.block_bytes for disk in rig.disks.values())


def _volatile_disks(rig: Rig, directory: Path) -> tuple[list[Path], dict[str, str]]:
    images: list[Path] = []
    backing: dict[str, str] = {}
    for name, disk in rig.disks.items():
        if isinstance(disk, TcmLoopSpec) and disk.backing is Backing.FILE:
            backing[volatile_backing(name)] = f"/dev/ubd{chr(ord('a') + len(images))}"
            images.append(directory / f"{name}.img")
            create_image(images[-1], disk.size_bytes)
    return images, backing


def _show(line: str, watcher: Watcher, runs: Path) -> None:
    try:
        streamed = msgspec.json.decode(line, type=Streamed)
    except msgspec.DecodeError:
        watcher.handle(Event("lab.said", time.time(), "lab", {"line": line}))
        return
    event = streamed.event
    if event is not None:
        if "run_dir" in event.fields:  # people look for it outside
            event = replace(event, fields=event.fields | {"run_dir": str(runs / Path(event.fields["run_dir"]).name)})
        watcher.handle(event)
    if streamed.status is not None:
        watcher.status(streamed.name, streamed.status)


def _follow(job: Job, lines: SimpleQueue[str], watcher: Watcher, runs: Path) -> int:
    """Shows lines, in the caller's thread, until the job has ended; returns its status. Raises LabError."""
    while not (job.ended or job.lost) or not lines.empty():
        try:
            _show(lines.get(timeout=_TICK_S), watcher, runs)
        except Empty:
            watcher.tick(time.time())
    return job.wait(Deadline.after(_TICK_S))


@contextmanager
def _signals_go_to(kernel: Kernel, job: Job) -> Iterator[None]:
    """SIGINT and SIGTERM end the run inside, which takes its rig down; a second one ends it here and now."""
    received = 0

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received += 1
        if received >= _INTERRUPTED:
            raise KeyboardInterrupt
        kernel.signal(job, "INT")

    former = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _take_over(kernel: Kernel, runs: Path, trace: Trace) -> None:
    """The run folder moves out of the share, with the kernel's own log in it."""
    inside = kernel.share / "runs"
    made = [folder for folder in inside.iterdir() if folder.is_dir() and not folder.is_symlink()] if inside.exists() else []
    runs.mkdir(parents=True, exist_ok=True)
    for folder in made:
        target = runs / folder.name
        shutil.move(folder, target)
        shutil.copyfile(kernel.console, target / "kernel.log")
        beside = runs / f".latest.{folder.name}"
        beside.symlink_to(folder.name)
        beside.replace(runs / "latest")
        trace.emit("lab.off", kernel=kernel.name, run_dir=str(target))
