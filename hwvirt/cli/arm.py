"""`hwvirt arm` and `hwvirt disarm`: let a rig have its real disks, or take them back."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from hwvirt.cli.arguments import RigPath
from hwvirt.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from hwvirt.disk.guard.wanted import Wanted

__all__ = ["arm", "disarm"]

_Disks: TypeAlias = Annotated[
    list[str] | None, typer.Option("--disk", metavar="NAME", help="Only this disk of the rig; may be given again.")
]
_DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Make every query, write nothing.")]


def arm(rig: RigPath, disk: _Disks = None, dry_run: _DryRun = False) -> ExitCode:
    """Label a rig's real disks, so that it may write them. Refuses every disk that is not surely the right one."""
    from hwvirt.disk.guard.arm import Effect  # noqa: PLC0415  slow to load
    from hwvirt.disk.guard.arm import arm as arm_disks  # noqa: PLC0415  slow to load

    wanted = _wanted(rig, disk)
    armed = arm_disks(wanted, datetime.now(UTC), Effect.DRY_RUN if dry_run else Effect.WRITE)
    for which, identity in zip(wanted, armed, strict=True):
        print(f"{'would arm' if dry_run else 'armed'} {identity} as disk {which.role} of rig {which.rig}")
    return ExitCode.PASSED


def disarm(rig: RigPath, disk: _Disks = None, dry_run: _DryRun = False) -> ExitCode:
    """Wipe the labels that `hwvirt arm` wrote for this rig."""
    from hwvirt.disk.guard.arm import Effect  # noqa: PLC0415  slow to load
    from hwvirt.disk.guard.arm import disarm as disarm_disks  # noqa: PLC0415  slow to load

    disarmed = disarm_disks(_wanted(rig, disk), Effect.DRY_RUN if dry_run else Effect.WRITE)
    for identity in disarmed:
        print(f"{'would disarm' if dry_run else 'disarmed'} {identity}")
    if not disarmed:
        print("nothing to do: no disk of this rig is armed")
    return ExitCode.PASSED


def _wanted(path: Path, names: list[str] | None) -> list[Wanted]:
    """The real disks of a rig, or those of them that were named."""
    from hwvirt.disk.guard.wanted import Wanted  # noqa: PLC0415  slow to load
    from hwvirt.rig.file import load_rig  # noqa: PLC0415  slow to load
    from hwvirt.rig.file.model import SgSpec  # noqa: PLC0415  slow to load

    rig = load_rig(path)
    real = {name: Wanted(rig.name, name, spec) for name, spec in rig.disks.items() if isinstance(spec, SgSpec)}
    for name in names or ():
        if name not in real:
            reason = f"disk {name} of {path} is made by the run" if name in rig.disks else f"{path} has no disk {name}"
            raise UsageError(
                f"{reason}: only real disks are armed.", next_step=f"Real disks there: {', '.join(real) or 'none'}."
            )
    if not real:
        raise UsageError(f"{path} has no real disk: only those are armed.", next_step="See `sg` in docs/rig-file.md.")
    return [wanted for name, wanted in real.items() if not names or name in names]
