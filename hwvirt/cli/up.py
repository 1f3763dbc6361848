"""`hwvirt up`: brings a rig up and leaves it to the hosts of others."""

from __future__ import annotations

from hwvirt.cli.arguments import JsonFlag, RigPath
from hwvirt.errors import ExitCode

__all__ = ["up"]


def up(rig: RigPath, json: JsonFlag = False) -> ExitCode:
    """Bring a rig up, tell how to reach each LUN, stay until Ctrl-C or SIGTERM."""
    from hwvirt.rig.file import load_rig  # noqa: PLC0415  slow to load

    loaded = load_rig(rig)
    from hwvirt.rig.up import up_rig  # noqa: PLC0415  slow to load

    return up_rig(loaded, json=json)
