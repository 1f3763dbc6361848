"""Gives disks to a running kernel, from the launcher's side."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec

from hwvirt.disk.faulty import Rule
from hwvirt.lab.disks import GuestDisk, Spec
from hwvirt.lab.jobs import Job
from hwvirt.lab.kernel import Kernel
from hwvirt.lab.process import LabError
from hwvirt.lab.tcmu import Tcmu
from hwvirt.units import Deadline

__all__ = ["AttachedDisks", "AttachedTcmu", "attach", "attach_tcmu"]


class AttachedDisks:
    """Disks that one program in a guest holds; they go with the program, or with the power."""

    def __init__(self, job: Job, disks: tuple[GuestDisk, ...]) -> None:
        self._job = job
        self.disks = disks

    def remove(self, deadline: Deadline) -> None:
        """Takes the disks out of the kernel again. Raises LabError when the kernel does not let them go."""
        self._job.send(b"\n", deadline)
        status = self._job.wait(deadline)
        if status != 0:
            raise LabError(f"{self._job.name}: the disks were not removed, status {status}")


class AttachedTcmu(AttachedDisks):
    """One disk of our own device server in a guest."""

    def set_rules(self, rules: Sequence[Rule], deadline: Deadline) -> None:
        """Replaces the disk's rules; they hold for every command after this. Raises LabError, ValueError for too many."""
        self._job.send(msgspec.json.encode(rules) + b"\n", deadline)
        if self._job.line(deadline) is None:
            raise LabError(f"{self._job.name}: the disk has gone")


def attach(kernel: Kernel, specs: Sequence[Spec], deadline: Deadline) -> AttachedDisks:
    """Makes disks in a guest; their identities come in the order of `specs`. Raises LabError."""
    return AttachedDisks(*_start(kernel, "hwvirt.lab.disks", specs, deadline))


def attach_tcmu(kernel: Kernel, spec: Tcmu, deadline: Deadline) -> AttachedTcmu:
    """Makes a disk in a guest that answers as `spec.rules` say. Raises LabError."""
    return AttachedTcmu(*_start(kernel, "hwvirt.lab.tcmu", [spec], deadline))


def _start(
    kernel: Kernel, module: str, specs: Sequence[Spec | Tcmu], deadline: Deadline
) -> tuple[Job, tuple[GuestDisk, ...]]:
    job = kernel.start([sys.executable, "-m", module, *(msgspec.json.encode(spec).decode() for spec in specs)])
    disks = []
    for spec in specs:
        line = job.line(deadline)
        if line is None:
            raise LabError(f"kernel {kernel.name} cannot make {spec}.", next_step=f"See {kernel.console}.")
        disks.append(msgspec.json.decode(line, type=GuestDisk))
    return job, tuple(disks)
