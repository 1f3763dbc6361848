"""Puts the files of udev-rules/ where the system looks for them, and tells whether they are in force."""

from __future__ import annotations

import grp
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import hwvirt
from hwvirt.errors import InfrastructureError

__all__ = ["GROUP", "Activation", "Check", "check", "install", "installed_files", "put_in_force"]

GROUP = "hwvirt"

_TARGETS = {  # file of udev-rules/ → where it goes
    "71-hwvirt.rules": "etc/udev/rules.d/71-hwvirt.rules",
    "hwvirt.sysusers.conf": "etc/sysusers.d/hwvirt.conf",
    "hwvirt.tmpfiles.conf": "etc/tmpfiles.d/hwvirt.conf",
    "hwvirt-controller@.service": "etc/systemd/system/hwvirt-controller@.service",
}
_UDEV, _SYSTEMD = Path("/run/udev/control"), Path("/run/systemd/system")
"""They are there while udev, or systemd as init, runs: udevadm(8), sd_booted(3)."""
_HOMES = ("/home/", "/root/")


class Activation(NamedTuple):
    """A command that puts files in force, and what has to be there for it to make sense."""

    command: tuple[str, ...]
    needs: Path | None = None


_ACTIVATIONS = (
    Activation(("systemd-sysusers", "hwvirt.conf")),
    Activation(("systemd-tmpfiles", "--create", "hwvirt.conf")),
    Activation(("udevadm", "control", "--reload"), _UDEV),
    Activation(
        ("udevadm", "trigger", "--action=change", "--subsystem-match=block", "--subsystem-match=scsi_generic"), _UDEV
    ),
    Activation(("systemctl", "daemon-reload"), _SYSTEMD),
)


class Check(NamedTuple):
    """One thing that has to be so: whether it is, what was found, and what to do if it is not."""

    name: str
    ok: bool
    found: str
    advice: str


def installed_files(root: Path, python: str = sys.executable) -> dict[Path, str]:
    """Path → text of every file below `root`, made to start the hwvirt of that `python`. Raises InfrastructureError."""
    package = Path(hwvirt.__file__).parent
    for folder in (package / "udev-rules", package.parent / "udev-rules"):
        if folder.is_dir():
            return {root / target: _starting(python, (folder / name).read_text()) for name, target in _TARGETS.items()}
    raise InfrastructureError(f"{package} came without udev-rules.", next_step="Install hwvirt from its sources.")


def _starting(python: str, text: str) -> str:
    script = Path(python).with_name("hwvirt")
    program = str(script) if script.exists() else f"{python} -m hwvirt"
    return text.replace("/usr/bin/hwvirt", program).replace("/usr/bin/python3", python)


def install(root: Path, python: str = sys.executable) -> Iterator[str]:
    """Writes the files and puts them in force, where `root` is the running system. Yields what was done.

    Raises InfrastructureError for a file that cannot be written; and, at the end, when one of the commands has failed.
    """
    for path, text in installed_files(root, python).items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o644)
        except OSError as error:
            raise InfrastructureError(
                f"cannot write {path}: {error.strerror}.",
                next_step="Run it as root, or name another --root, where you may write.",
            ) from error
        yield f"wrote {path}"
    if root == Path("/"):
        yield from put_in_force(_ACTIVATIONS)


def put_in_force(activations: Iterable[Activation]) -> Iterator[str]:
    """Yields what was done. Raises InfrastructureError, at the end, when one of the commands has failed."""
    failed = 0
    for command, needs in activations:
        words = " ".join(command)
        if shutil.which(command[0]) is None:
            yield f"left out {words}: there is no {command[0]}"
        elif needs is not None and not needs.exists():
            yield f"left out {words}: there is no {needs}, so there is nobody to tell"
        else:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            failed += done.returncode != 0
            how = "ran" if done.returncode == 0 else f"failed with status {done.returncode} ({done.stderr.strip()}):"
            yield f"{how} {words}"
    if failed:
        raise InfrastructureError(
            f"the files are written, and {failed} of the commands that put them in force failed.",
            next_step="Run those by hand, then see hwvirt udev check.",
        )


def check(root: Path, python: str = sys.executable) -> Iterator[Check]:
    """What has to be so that armed disks are open to the group, and controllers run as a user of it."""
    again = "hwvirt udev install"
    for path, text in installed_files(root, python).items():
        name = f"{path.parent.name}/{path.name}"
        try:
            same = path.read_text() == text
        except OSError as error:
            yield Check(name, False, f"{path}: {error.strerror}", again)
        else:
            yield Check(name, same, str(path) if same else f"{path} differs from this version's", again)
    yield _group()
    running = _UDEV.exists()
    yield Check("udev", running, "runs" if running else "does not run", "Start systemd-udevd.")
    hidden = python.startswith(_HOMES)
    where = f"{python} lies in a home, which the service cannot see" if hidden else python
    yield Check("program", not hidden, where, "Install hwvirt outside of homes, for instance below /opt.")


def _group() -> Check:
    try:
        number = grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return Check("group", False, f"there is no group {GROUP}", "hwvirt udev install, or groupadd --system hwvirt")
    return Check("group", True, f"{GROUP} is {number}", "")
