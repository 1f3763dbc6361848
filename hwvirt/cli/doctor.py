"""`hwvirt doctor`: what this machine lacks, and what to do about it."""

from __future__ import annotations

from hwvirt.cli.arguments import JsonFlag
from hwvirt.errors import ExitCode

__all__ = ["doctor"]


def doctor(json: JsonFlag = False) -> ExitCode:
    """Tell what this machine has and lacks. Exit code 4 when the default rig cannot run here."""
    from hwvirt.cli.findings import show, show_json  # noqa: PLC0415  slow to load
    from hwvirt.cli.machine import examine, runs_default_rig  # noqa: PLC0415  slow to load

    findings = examine()
    (show_json if json else show)(findings)
    return ExitCode.PASSED if runs_default_rig(findings) else ExitCode.INFRASTRUCTURE
