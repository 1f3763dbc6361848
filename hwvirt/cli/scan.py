"""`hwvirt scan`: the disks of this machine, and which of them a rig can have."""

from __future__ import annotations

from typing import Annotated

import typer

from hwvirt.cli.arguments import JsonFlag
from hwvirt.errors import ExitCode, UsageError

__all__ = ["scan"]


def scan(
    json: JsonFlag = False,
    yaml: Annotated[bool, typer.Option("--yaml", help="The `disks:` of a rig file, to be pasted there.")] = False,
) -> ExitCode:
    """Show the SCSI disks of this machine: identity, use, armed or not. Only reads."""
    from hwvirt.cli.disks import show, show_json, show_yaml  # noqa: PLC0415  slow to load
    from hwvirt.disk.discovery.found import discover  # noqa: PLC0415  slow to load

    if json and yaml:
        raise UsageError("--json and --yaml do not go together.", next_step="Choose one.")
    (show_json if json else show_yaml if yaml else show)(discover())
    return ExitCode.PASSED
