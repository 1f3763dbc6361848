"""Gives disks to a running kernel, from the launcher's side."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec

from hwvirt.lab.disks import GuestDisk, Spec
from hwvirt.lab.jobs import Job
from hwvirt.lab.kernel import Kernel
from hwvirt.lab.process import LabError
from hwvirt.units import Deadline

__all__ = ["AttachedDisks", "attach"]


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


def attach(kernel: Kernel, specs: Sequence[Spec], deadline: Deadline) -> AttachedDisks:
    """Makes disks in a guest; their identities come in the order of `specs`. Raises LabError."""
    texts = [msgspec.json.encode(spec).decode() for spec in specs]
    job = kernel.start([sys.executable, "-m", "hwvirt.lab.disks", *texts])
    disks = []
    for spec in specs:
        line = job.line(deadline)
        if line is None:
            raise LabError(f"kernel {kernel.name} cannot make {spec}.", next_step=f"See {kernel.console}.")
        disks.append(msgspec.json.decode(line, type=GuestDisk))
    return AttachedDisks(job, tuple(disks))
