"""`hwvirt controller`: one controller daemon, in the foreground."""

from __future__ import annotations

from typing import Annotated

import typer

from hwvirt.cli.arguments import ConfigPath
from hwvirt.errors import ExitCode

__all__ = ["controller"]


def controller(
    config: ConfigPath,
    until_eof: Annotated[bool, typer.Option("--until-eof", help="Stop also when standard input ends.")] = False,
) -> ExitCode:
    """Run one controller daemon until SIGTERM. Rigs start theirs themselves."""
    from hwvirt.controller.daemon import main  # noqa: PLC0415  slow to load

    return main(config, until_eof=until_eof)
