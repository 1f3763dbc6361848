"""`hwvirt new rig`: a rig file whose comments are the manual."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from hwvirt.errors import ExitCode, UsageError

__all__ = ["new_rig"]

_TEMPLATE = "rig_template.yaml"
_PLACEHOLDER = "rig: my-rig"


def new_rig(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The rig's name; the file is NAME.yaml.", show_default=False)],
) -> ExitCode:
    """Write NAME.yaml, a rig that runs as it is and explains every key. Overwrites nothing."""
    from hwvirt.rig.file.controllers import NAME, NAME_RULE  # noqa: PLC0415  slow to load

    path = Path(name if name.endswith(".yaml") else f"{name}.yaml")
    if not NAME.fullmatch(path.stem):
        raise UsageError(f"{path.stem!r} is no usable name.", next_step=NAME_RULE)
    template = resources.files("hwvirt.cli").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template.replace(_PLACEHOLDER, f"rig: {path.stem}"))
    except FileExistsError:
        raise UsageError(f"{path} exists.", next_step="Choose another name, or remove it first.") from None
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}.", next_step="Name another place for it.") from error
    print(f"{path} is ready: hwvirt run {path}")
    return ExitCode.PASSED
