"""`hwvirt check`: reads a rig file and shows what it comes to."""

from __future__ import annotations

from hwvirt.cli.arguments import RigPath
from hwvirt.errors import ExitCode

__all__ = ["check"]


def check(rig: RigPath) -> ExitCode:
    """Read a rig file and show its layout; nothing is opened, nothing is written."""
    from hwvirt.cli.summary import show  # noqa: PLC0415  slow to load
    from hwvirt.rig.file import load_rig  # noqa: PLC0415  slow to load

    show(load_rig(rig))
    return ExitCode.PASSED
