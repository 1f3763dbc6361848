"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = ["JsonFlag", "RigPath", "SocketPath"]

RigPath: TypeAlias = Annotated[
    Path, typer.Argument(metavar="RIG", help="A rig file, see docs/rig-file.md.", show_default=False)
]
SocketPath: TypeAlias = Annotated[
    Path, typer.Argument(metavar="SOCKET", help="The control socket of a controller.", show_default=False)
]
JsonFlag: TypeAlias = Annotated[bool, typer.Option("--json", help="For machines: JSON on stdout, nothing else there.")]
