"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = ["ConfigPath", "JsonFlag", "RigPath", "SocketPath"]

# `readable=False`: typer does not look whether a path can be read. Whoever opens it does, and says what that means.
RigPath: TypeAlias = Annotated[
    Path, typer.Argument(metavar="RIG", help="A rig file, see docs/rig-file.md.", show_default=False, readable=False)
]
SocketPath: TypeAlias = Annotated[
    Path, typer.Argument(metavar="SOCKET", help="The control socket of a controller.", show_default=False, readable=False)
]
ConfigPath: TypeAlias = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="The daemon's configuration.", show_default=False, readable=False)
]
JsonFlag: TypeAlias = Annotated[bool, typer.Option("--json", help="For machines: JSON on stdout, nothing else there.")]
