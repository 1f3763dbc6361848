"""`hwvirt udev`: access to armed disks for an unprivileged user."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from hwvirt.errors import ExitCode

__all__ = ["udev_check", "udev_install", "udev_probe"]

_Root: TypeAlias = Annotated[
    Path, typer.Option("--root", metavar="DIR", exists=True, file_okay=False, help="Another system's root directory.")
]
_SYSTEM = Path("/")


def udev_install(root: _Root = _SYSTEM) -> ExitCode:
    """Install rules, systemd unit, user and directories, and put them in force. Takes root."""
    from hwvirt.disk.guard.install import install  # noqa: PLC0415  slow to load

    for line in install(root):
        print(line)
    return ExitCode.PASSED


def udev_check(root: _Root = _SYSTEM) -> ExitCode:
    """Tell whether all of that is there and in force. Exit code 4 when it is not."""
    from hwvirt.disk.guard.install import check  # noqa: PLC0415  slow to load

    checks = list(check(root))
    for name, ok, found, advice in checks:
        print(f"{'ok' if ok else 'missing':<8} {name:<34} {found}" + ("" if ok else f": {advice}"))
    return ExitCode.PASSED if all(ok for _, ok, _, _ in checks) else ExitCode.INFRASTRUCTURE


def udev_probe(
    node: Annotated[str, typer.Argument(metavar="DEVNAME", help="A /dev/sdX or /dev/sgN.", show_default=False)],
) -> ExitCode:
    """Tell a udev rule whose an armed disk is, as KEY=VALUE; nothing for any other disk."""
    from hwvirt.disk.guard.udev import udev_properties  # noqa: PLC0415  slow to load

    for key, value in udev_properties(node).items():
        print(f"{key}={value}")
    return ExitCode.PASSED
