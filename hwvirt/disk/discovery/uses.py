"""Who uses a disk, its partitions or what lies on them: mounts, swap, device mapper, arrays, loop devices, runs.

Read from /proc and /sys below `root`, which tests replace. A use that is seen in neither, like a mount in another mount
namespace, still has the kernel's exclusive claim: the guard takes that as well.

Ref: proc(5) (mountinfo, swaps, locks), Documentation/ABI/testing/sysfs-block.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

__all__ = ["SYSTEM", "Use", "claimant", "find_uses"]

SYSTEM = Path("/")

_OCTAL = re.compile(r"\\([0-7]{3})")
_MAPPED = {"LVM": "LVM volume", "CRYPT": "encrypted volume", "mpath": "multipath device"}


@dataclass(frozen=True, slots=True)
class Use:
    """One way in which a disk is used, as the end of a sentence, and the sentence that says how to end it."""

    reason: str
    remedy: str


class _Member(NamedTuple):
    """The disk, a partition, or a device that is stacked on one of them. `number` is MAJOR:MINOR."""

    name: str
    number: str
    folder: Path
    holder: bool


def find_uses(block: str, root: Path = SYSTEM) -> list[Use]:
    """How the disk with the node `block` is used; the worst first. A claim of another run comes last."""
    members = list(_members((root / "sys/class/block" / Path(block).name).resolve(), holder=False))
    mounted, held = list(_mounts(members, root)), list(_holders(members))
    mounted.sort(key=lambda use: "root file system" not in use.reason)
    owner = claimant(block, root)
    runs = [_claim(owner)] if owner else []
    return [*mounted, *_swaps(members, root), *held, *_loops(members, root), *runs]


def claimant(block: str, root: Path = SYSTEM) -> str:
    """Which process holds the disk's lock for writing ("process 812 (hwvirt run desk.yaml)"); empty when none does."""
    try:
        node = os.stat(root / block.removeprefix("/"))
    except OSError:
        return ""
    place = f"{os.major(node.st_dev):02x}:{os.minor(node.st_dev):02x}:{node.st_ino}"
    for line in _lines(root / "proc/locks"):
        match line.split():
            case [_, "FLOCK", _, "WRITE", pid, where, *_] if where == place:
                command = _text(root / "proc" / pid / "cmdline").replace("\0", " ").strip()
                return f"process {pid} ({command})" if command else f"process {pid}"
    return ""


def _claim(owner: str) -> Use:
    if owner.split()[1] == str(os.getpid()):
        return Use("it is another disk of the same rig already", "Name another disk; `hwvirt scan` shows what is here.")
    return Use(f"it is claimed by {owner}", "Wait until that run has ended, or stop it.")


def _members(folder: Path, *, holder: bool) -> Iterator[_Member]:
    """A block device, then its partitions, then what holds them, and so on upwards."""
    number = _text(folder / "dev")
    if not number:
        return
    yield _Member(folder.name, number, folder, holder)
    for partition in sorted(folder.glob("*/partition")):
        yield from _members(partition.parent, holder=holder)
    for link in sorted(folder.glob("holders/*")):
        yield from _members(link.resolve(), holder=True)


def _mounts(members: list[_Member], root: Path) -> Iterator[Use]:
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        number, point = before.split()[2], _unescaped(before.split()[4])
        source = _unescaped(after.split()[1])
        for member in members:
            if member.number not in (number, _number_of(source, root)):  # btrfs has numbers of its own
                continue
            if point == "/":
                yield Use(f"the root file system of this machine lies on it ({_place(member)})", "Name another disk.")
            else:
                yield Use(f"{_place(member)} is mounted on {point}", f"Unmount it (umount {point}), or name another disk.")
            break


def _swaps(members: list[_Member], root: Path) -> Iterator[Use]:
    for line in _lines(root / "proc/swaps")[1:]:
        node = _unescaped(line.split()[0])
        for member in members:
            if _number_of(node, root) == member.number or node == f"/dev/{member.name}":
                yield Use(f"{_place(member)} is swap space", f"Switch it off (swapoff {node}), or name another disk.")
                break


def _holders(members: list[_Member]) -> Iterator[Use]:
    seen = set()
    for member in members:
        if not member.holder or member.number in seen:
            continue
        seen.add(member.number)
        mapped = _text(member.folder / "dm/name")
        if mapped:
            kind = _MAPPED.get(_text(member.folder / "dm/uuid").split("-")[0], "device-mapper device")
            yield Use(f"the {kind} {mapped} lies on it", f"Take it down (dmsetup remove {mapped}), or name another disk.")
        elif (member.folder / "md").is_dir():
            stop = f"mdadm --stop /dev/{member.name}"
            yield Use(f"the array /dev/{member.name} lies on it", f"Stop it ({stop}), or name another disk.")
        else:
            yield Use(f"/dev/{member.name} lies on it", f"Take /dev/{member.name} off it, or name another disk.")


def _loops(members: list[_Member], root: Path) -> Iterator[Use]:
    for backing in sorted((root / "sys/block").glob("loop*/loop/backing_file")):
        node = _text(backing)
        for member in members:
            if node == f"/dev/{member.name}" or _number_of(node, root) == member.number:
                loop = f"/dev/{backing.parts[-3]}"
                yield Use(f"{loop} shows {_place(member)}", f"Detach it (losetup -d {loop}), or name another disk.")
                break


def _place(member: _Member) -> str:
    """How a sentence names a member: by its node, and a device-mapper device by its name."""
    mapped = _text(member.folder / "dm/name")
    return f"/dev/mapper/{mapped}" if mapped else f"/dev/{member.name}"


def _number_of(node: str, root: Path) -> str:
    """MAJOR:MINOR of a block device's node, empty for anything else."""
    if not node.startswith("/"):
        return ""
    try:
        found = os.stat(root / node.removeprefix("/"))
    except OSError:
        return ""
    return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}" if stat.S_ISBLK(found.st_mode) else ""


def _unescaped(field: str) -> str:
    """A field of mountinfo or swaps: blanks and backslashes stand there in octal."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)


def _lines(path: Path) -> list[str]:
    return _text(path).splitlines()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:  # it has gone, or this kernel does not have it
        return ""
