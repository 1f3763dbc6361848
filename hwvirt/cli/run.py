"""`hwvirt run`: brings a rig up, drives it, breaks it on purpose and judges it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from hwvirt.cli.arguments import RigPath
from hwvirt.errors import ExitCode

__all__ = ["run"]


def run(
    rig: RigPath,
    seed: Annotated[int | None, typer.Option(min=0, max=(1 << 63) - 1, help="Another seed than the rig's own.")] = None,
    runs: Annotated[Path, typer.Option(help="Where the folder of this run is made.", readable=False)] = Path("runs"),
    no_live: Annotated[bool, typer.Option("--no-live", help="One plain line for each event, also on a terminal.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask every disk, write nothing.")] = False,
    stream: Annotated[bool, typer.Option("--stream", hidden=True)] = False,
    bench: Annotated[Path | None, typer.Option("--bench", hidden=True)] = None,
    copy: Annotated[Path | None, typer.Option("--copy", hidden=True)] = None,
    papers: Annotated[Path | None, typer.Option("--papers", hidden=True)] = None,
) -> ExitCode:
    """Run a rig and judge it."""
    from hwvirt.rig.file import load_rig  # noqa: PLC0415  slow to load

    loaded = load_rig(rig, copy)
    if seed is not None:
        loaded = replace(loaded, seed=seed)
    if papers is not None:
        from hwvirt.rig.certificates import with_papers  # noqa: PLC0415  slow to load

        loaded = with_papers(loaded, papers)

    if dry_run:
        from hwvirt.rig.describe import print_dry_run  # noqa: PLC0415  slow to load

        print_dry_run(loaded, sys.stdout)
        return ExitCode.PASSED

    if stream:
        from hwvirt.rig.runner import RunOptions, run_rig  # noqa: PLC0415  slow to load
        from hwvirt.rig.watcher import Streamer  # noqa: PLC0415  slow to load

        return run_rig(loaded, RunOptions(runs=runs, watcher=Streamer(), inside_lab=True, bench=bench))

    from hwvirt.console.live import Console, LiveMode  # noqa: PLC0415  slow to load
    from hwvirt.rig.runner import RunOptions, run_rig  # noqa: PLC0415  slow to load

    with Console(live=LiveMode.NEVER if no_live else LiveMode.AUTO) as console:
        return run_rig(loaded, RunOptions(runs=runs, watcher=console))
