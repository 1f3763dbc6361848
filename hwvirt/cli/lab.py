"""`hwvirt lab`: the virtual bench without a rig."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwvirt.errors import UsageError
from hwvirt.units import parse_size

__all__ = ["lab_shell"]

_LEAST_BYTES = 64 << 20


def lab_shell(
    memory: Annotated[str, typer.Option(metavar="SIZE", help="Memory of the kernel.")] = "256MiB",
    disk: Annotated[
        list[Path] | None,
        typer.Option("--disk", metavar="IMAGE", exists=True, dir_okay=False, help="An image file: /dev/ubda, then ubdb."),
    ] = None,
) -> int:
    """Boot a kernel of the lab with a shell, whose status is the exit code. This machine's files are read-only there."""
    from hwvirt.lab.folder import passing_folder  # noqa: PLC0415  slow to load
    from hwvirt.lab.shell import shell  # noqa: PLC0415  slow to load

    try:
        memory_bytes = parse_size(memory)
    except ValueError as error:
        raise UsageError(f"--memory: {error}.", next_step="The default is 256MiB.") from error
    if memory_bytes < _LEAST_BYTES:
        raise UsageError(f"--memory: a kernel does not boot with {memory}.", next_step="Give it 64MiB or more.")
    with passing_folder() as directory:
        return shell(directory, memory_bytes=memory_bytes, disks=disk or ())
