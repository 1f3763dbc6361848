"""What made a run: versions of the program and of everything below it."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import hwvirt

__all__ = ["provenance"]

_LIBRARIES = ("crc32c", "msgspec", "numpy", "uvloop")
_GIT_SECONDS = 5


def provenance() -> dict[str, str]:
    """Names and versions; "git" only where the program runs from a checkout."""
    found = {
        "hwvirt": hwvirt.__version__,
        "python": platform.python_version(),
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
    }
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    commit = _commit(Path(hwvirt.__file__).parent.parent)
    return found | ({"git": commit} if commit else {})


def _commit(checkout: Path) -> str:
    """The commit, with "-dirty" behind it when files were changed; empty where there is none."""
    if not (checkout / ".git").exists():
        return ""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, check=True, text=True, timeout=_GIT_SECONDS).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
