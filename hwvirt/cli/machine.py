"""What this machine has of what hwvirt uses: one finding for each thing, with what to do where it is missing."""

from __future__ import annotations

import fcntl
import getpass
import importlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from importlib import metadata
from pathlib import Path

import hwvirt
from hwvirt.disk.discovery.signatures import library_name as blkid_name
from hwvirt.disk.sgutils import library_name
from hwvirt.errors import DiskError

__all__ = ["Finding", "Need", "State", "examine", "runs_default_rig"]

_OLDEST_PYTHON = (3, 11)
_NAME = re.compile(r"[A-Za-z0-9._-]+")  # what a dependency begins with (PEP 508)
_PROGRAMS = {  # name: (Debian package, what it is for)
    "fio": ("fio", "speed and verification by another's client"),
    "nbdinfo": ("libnbd-bin", "looks at NBD exports"),
    "nbdcopy": ("libnbd-bin", "copies images in and out"),
    "qemu-img": ("qemu-utils", "compares images"),
    "e2fsck": ("e2fsprogs", "checks file systems that went through"),
    "linux.uml": ("user-mode-linux", "the lab"),
}
_LOOP_CTL_GET_FREE = 0x4C82  # linux/loop.h


class State(Enum):
    """Whether it is there."""

    OK = "ok"
    MISSING = "missing"


class Need(Enum):
    """Who misses it when it is not there."""

    DEFAULT_RIG = "default rig"  # rigs/quickstart.yaml
    OTHER_RIGS = "other rigs"
    TESTS = "tests"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing, what was found of it, and what to do about it."""

    name: str
    state: State
    need: Need
    detail: str
    advice: str = ""


def examine() -> tuple[Finding, ...]:
    """Every finding, in the order in which people read them. Writes nothing."""
    return tuple(_examine())


def runs_default_rig(findings: Iterable[Finding]) -> bool:
    """Whether nothing is missing that rigs/quickstart.yaml needs."""
    return not any(found.state is State.MISSING and found.need is Need.DEFAULT_RIG for found in findings)


def _examine() -> Iterator[Finding]:
    yield Finding("hwvirt", State.OK, Need.DEFAULT_RIG, hwvirt.__version__)
    version = platform.python_version()
    new_enough = sys.version_info >= _OLDEST_PYTHON
    yield Finding("python", _state(new_enough), Need.DEFAULT_RIG, f"{version}, {sys.executable}", "Python 3.11 or newer.")
    yield Finding("kernel", State.OK, Need.DEFAULT_RIG, f"{platform.system()} {platform.release()} {platform.machine()}")
    yield Finding("user", State.OK, Need.DEFAULT_RIG, f"{_user()}, {'root' if os.geteuid() == 0 else 'not root'}")
    yield from _dependencies()
    yield _scsi_disks()
    yield _blkid()
    yield _sgutils()
    yield _loop_devices()
    for program, (package, purpose) in _PROGRAMS.items():
        path = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
        need = Need.OTHER_RIGS if program == "linux.uml" else Need.TESTS
        yield Finding(program, _state(path), need, path or purpose, f"apt-get install {package}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as anybody
        return f"user {os.geteuid()}"


def _state(there: object) -> State:
    return State.OK if there else State.MISSING


def _dependencies() -> Iterator[Finding]:
    """What the package says that it needs, without its extras."""
    try:
        wanted = metadata.requires("hwvirt") or []
    except metadata.PackageNotFoundError as error:
        yield Finding("dependencies", State.MISSING, Need.DEFAULT_RIG, str(error), "tools/setup")
        return
    modules: dict[str, list[str]] = {}
    for module, distributions in metadata.packages_distributions().items():
        for distribution in distributions:
            modules.setdefault(_normal(distribution), []).append(module)
    for requirement in wanted:
        name = _NAME.match(requirement)
        if name is not None and "extra ==" not in requirement:
            yield _dependency(name[0], modules.get(_normal(name[0]), []))


def _normal(distribution: str) -> str:
    """The name as it is compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _dependency(name: str, modules: Iterable[str]) -> Finding:
    try:
        detail = metadata.version(name)
        loaded = {module: importlib.import_module(module) for module in modules if not module.startswith("_")}
    except (ImportError, metadata.PackageNotFoundError) as error:
        return Finding(name, State.MISSING, Need.DEFAULT_RIG, str(error), "tools/setup")
    if name == "crc32c":
        detail += ", in hardware" if loaded[name].hardware_based else ", in software: slow"
    return Finding(name, State.OK, Need.DEFAULT_RIG, detail)


def _scsi_disks() -> Finding:
    nodes = sorted(Path("/sys/class/scsi_disk").glob("*"))
    detail = f"{len(nodes)} here: hwvirt scan" if nodes else "none, or the kernel has not loaded sd_mod and sg"
    return Finding("SCSI disks", _state(nodes), Need.OTHER_RIGS, detail, "Only for `sg` disks; the lab has its own.")


def _blkid() -> Finding:
    try:
        return Finding("libblkid", State.OK, Need.OTHER_RIGS, blkid_name())
    except DiskError as error:
        return Finding("libblkid", State.MISSING, Need.OTHER_RIGS, "for `sg` disks", error.next_step)


def _sgutils() -> Finding:
    try:
        return Finding("libsgutils2", State.OK, Need.OTHER_RIGS, library_name())
    except DiskError as error:
        return Finding("libsgutils2", State.MISSING, Need.OTHER_RIGS, "for `sg` disks", error.next_step)


def _loop_devices() -> Finding:
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return _no_loop(error)
    try:
        number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    except OSError as error:
        return _no_loop(error)
    finally:
        os.close(control)
    return Finding("loop devices", State.OK, Need.OTHER_RIGS, f"/dev/loop{number} is free")


def _no_loop(error: OSError) -> Finding:
    advice = "Only for disks with `node: loop`; as root, `modprobe loop`."
    return Finding("loop devices", State.MISSING, Need.OTHER_RIGS, f"/dev/loop-control: {error.strerror}", advice)
