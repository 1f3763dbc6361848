"""What a program in a guest needs to set up devices: modules, configfs, waiting for what the kernel announces."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from hwvirt.lab.process import LabError
from hwvirt.units import Deadline

__all__ = ["DeviceEvents", "configfs", "load_modules", "remove_module", "requests", "write"]

_CONFIGFS = Path("/sys/kernel/config")
_NETLINK_KOBJECT_UEVENT = 15
_KERNEL_GROUP = 1
_EVENT_BYTES = 1 << 16
_BACKLOG_BYTES = 1 << 20
_INPUT_BYTES = 4096


def load_modules(*modules: str, parameters: Iterable[str] = ()) -> None:
    """Loads modules in order, the last one with `parameters` ("name=value"). Raises LabError with modprobe's words."""
    for module in modules[:-1]:
        _modprobe(module)
    _modprobe(modules[-1], *parameters)


def remove_module(module: str) -> None:
    """Unloads a module. Raises LabError with modprobe's words when it is in use."""
    _modprobe("--remove", module)


def _modprobe(*arguments: str) -> None:
    done = subprocess.run(["modprobe", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"modprobe {' '.join(arguments)}: {done.stderr.strip()}")


def configfs() -> Path:
    """The mounted configfs, with the kernel's SCSI target in it. Raises LabError."""
    load_modules("target_core_mod")
    if not (_CONFIGFS / "target").is_dir():
        subprocess.run(["mount", "-t", "configfs", "none", str(_CONFIGFS)], check=True)
    return _CONFIGFS


def write(path: Path, value: str) -> None:
    """Writes an attribute of sysfs or configfs in one call. Raises LabError with the kernel's reason."""
    try:
        path.write_text(value)
    except OSError as error:
        raise LabError(f"the kernel refuses {value!r} in {path}: {error.strerror}") from error


def requests() -> Iterator[bytes]:
    """Lines of standard input as they come, until an empty one, the end of input, or SIGTERM from this call on."""
    told_to_end, wakeup = socket.socketpair()  # a signal that comes just before select must not be missed
    wakeup.setblocking(False)
    signal.set_wakeup_fd(wakeup.fileno())
    signal.signal(signal.SIGTERM, lambda *_: None)
    return _lines(told_to_end, wakeup)


def _lines(told_to_end: socket.socket, wakeup: socket.socket) -> Iterator[bytes]:
    rest = b""
    with told_to_end, wakeup:
        sources = [0, told_to_end.fileno()]
        while told_to_end.fileno() not in select.select(sources, [], [])[0]:
            data = os.read(0, _INPUT_BYTES)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if not line:
                    return
                yield line
            if not data:
                return


class DeviceEvents:
    """What the kernel announces from now on about devices (uevents), in order: nobody has to look again and again."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_KOBJECT_UEVENT)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BACKLOG_BYTES)
        self._socket.bind((0, _KERNEL_GROUP))

    def wait(self, what: str, pattern: str, deadline: Deadline) -> re.Match[str]:
        """The next event that the pattern matches: "add@/devices/...", a path below /sys. Raises LabError."""
        while select.select([self._socket], [], [], deadline.remaining)[0]:
            head = self._socket.recv(_EVENT_BYTES).partition(b"\0")[0].decode(errors="replace")
            if (match := re.fullmatch(pattern, head)) is not None:
                return match
        raise LabError(f"{what} did not appear in time")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
