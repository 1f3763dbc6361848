"""The rungs between a rig file and a disk that may be written. Each either passes or raises WrongDisk.

Rule 1: a disk is named by what it is. Nodes and addresses only ever follow from that.
Rule 2: what the kernel noted when the disk appeared is compared with what the disk itself says now.
Rule 3: nothing here writes, and no argument switches a rung off.
"""

from __future__ import annotations

from dataclasses import replace

from hwvirt.disk.discovery.content import Content
from hwvirt.disk.discovery.identity import DiskIdentity
from hwvirt.disk.discovery.label import LABEL_BYTES, Label
from hwvirt.disk.guard.probe import Probe
from hwvirt.disk.guard.wanted import Wanted

__all__ = [
    "refuse_another_disk",
    "refuse_another_label",
    "refuse_foreign",
    "refuse_unarmed",
    "refuse_used",
    "refuse_window",
    "resolve",
]

_SCAN = "Compare the rig file with `hwvirt scan`."
_NAME_IT = "Name its wwn or serial: `hwvirt scan --yaml` prints them."


def resolve(wanted: Wanted, probe: Probe) -> DiskIdentity:
    """The one disk that the rig names, with all that the rig says of it."""
    key, given = _key(wanted)
    matches = [disk for disk in probe.identities() if _same(getattr(disk, key), given)]
    if not matches:
        raise _missing(wanted, probe, key, given)
    if len(matches) > 1:
        nodes = " and ".join(disk.node for disk in matches)
        next_step = (
            "If they are two paths to one disk, take one path away: it would be written behind the guard's back."
            if key == "wwn"
            else "Name it by its wwn: `hwvirt scan --yaml` prints it."
        )
        raise wanted.refused(None, f"{len(matches)} disks have {key} {given}: {nodes}", next_step)
    (disk,) = matches
    if not disk.block or not disk.sg:
        missing, module = ("sg", "sg") if disk.block else ("block", "sd_mod")
        raise wanted.refused(disk, f"it has no {missing} node", f"Load the kernel's driver: modprobe {module}.")
    _compare(wanted, disk)
    return disk


def _key(wanted: Wanted) -> tuple[str, str]:
    """What the disk is looked up by: its wwn where given, else its serial."""
    for key, given in (("wwn", wanted.name.wwn), ("serial", wanted.name.serial)):
        if given and given.startswith("/dev/"):
            raise wanted.refused(None, f"{given} is a node, and may be another disk after the next boot", _NAME_IT)
        if given:
            return key, given
    raise wanted.refused(None, "the rig gives neither its wwn nor its serial", _NAME_IT)


def _missing(wanted: Wanted, probe: Probe, key: str, given: str) -> Exception:
    for disk in probe.identities():
        if wanted.name.serial and disk.serial == wanted.name.serial:
            return wanted.refused(disk, f"it has wwn {disk.wwn or 'none'}, and the rig says {given}", _SCAN)
    return wanted.refused(None, f"no disk here has {key} {given}", "Plug it in; `hwvirt scan` shows what is here.")


def _compare(wanted: Wanted, disk: DiskIdentity) -> None:
    name = wanted.name
    if name.serial and name.serial != disk.serial:
        raise wanted.refused(disk, f"it has serial {disk.serial or 'none'}, and the rig says {name.serial}", _SCAN)
    if name.size_bytes != disk.size_bytes:
        raise wanted.refused(disk, f"it has {disk.size_bytes} bytes, and the rig says {name.size_bytes}", _SCAN)
    if name.block_bytes != disk.block_bytes:
        raise wanted.refused(disk, f"its blocks have {disk.block_bytes} bytes, and the rig says {name.block_bytes}", _SCAN)


def _same(found: str, given: str) -> bool:
    """Whether two names are one. Designators are hexadecimal numbers: capitals do not matter, as they do in serials."""
    return bool(found) and (found == given or (found.startswith(("naa.", "eui.")) and found.lower() == given.lower()))


def refuse_another_disk(wanted: Wanted, disk: DiskIdentity, probe: Probe) -> None:
    """The rig still has to name this disk, and the disk itself has to agree with what the kernel noted of it."""
    again = resolve(wanted, probe)
    if replace(again, write_cache=disk.write_cache) != disk:  # a cache may be switched while a run goes on
        raise wanted.refused(disk, f"the rig's disk is now {again.node}", "Run it again.")
    said = probe.asked(disk)
    if said != disk:
        reason = f"the disk that answers there is another one now, {said}"
        raise wanted.refused(disk, reason, "Unplug it and plug it in again.")


def refuse_window(wanted: Wanted, disk: DiskIdentity) -> None:
    """The blocks that the rig may write are the disk's, and not those of the label."""
    first, window = LABEL_BYTES // disk.block_bytes, wanted.name.window
    if window.lba < first:
        raise wanted.refused(
            disk,
            f"the window begins at LBA {window.lba}, where the label lies (LBA 0 to {first - 1})",
            f"Let the window begin at LBA {first} or later.",
        )
    blocks = disk.size_bytes // disk.block_bytes
    if window.lba + window.blocks > blocks:
        raise wanted.refused(
            disk,
            f"the window ends at LBA {window.lba + window.blocks - 1}, and the disk at LBA {blocks - 1}",
            f"Give the window at most {max(0, blocks - window.lba)} blocks.",
        )


def refuse_used(wanted: Wanted, disk: DiskIdentity, probe: Probe) -> None:
    """Nobody uses the disk, a partition of it, or what lies on them."""
    uses = probe.uses(disk)
    if uses:
        raise wanted.refused(disk, uses[0].reason, uses[0].remedy)


def refuse_another_label(wanted: Wanted, disk: DiskIdentity, content: Content) -> None:
    """A label, where there is one, has to be whole, made for this disk, and this rig's for this role."""
    label = content.label
    overwrite = f"If nothing on it is needed, overwrite the label: dd if=/dev/zero of={disk.block} bs={LABEL_BYTES} count=1."
    if content.bad_label:
        raise wanted.refused(disk, content.bad_label, overwrite)
    if label is None:
        return
    if not label.names(disk):
        made_for = f"its label was made for another disk, serial {label.serial or 'none'}: this is a copy"
        raise wanted.refused(disk, made_for, overwrite)
    if label.rig != wanted.rig:
        raise wanted.refused(
            disk,
            f"it is armed for rig {label.rig} since {label.armed_at:%Y-%m-%d}",
            f"Disarm it with the rig file of {label.rig}: hwvirt disarm.",
        )
    if label.role != wanted.role:
        raise wanted.refused(
            disk, f"it is armed as disk {label.role} of that rig", "Correct the rig file, or disarm it with the old one."
        )


def refuse_foreign(wanted: Wanted, disk: DiskIdentity, content: Content) -> None:
    """Nothing lies on the disk that others know, except where an armed disk's window is: that is the rig's own."""
    window, size = wanted.name.window, disk.block_bytes
    own = range(window.lba * size, (window.lba + window.blocks) * size) if content.label else range(0)
    for signature in content.signatures:
        if signature.offset_bytes not in own:
            raise wanted.refused(
                disk,
                f"there is something on it: {signature}, at byte {signature.offset_bytes}",
                f"If nothing on it is needed, run wipefs --all {disk.block}; else name another disk.",
            )


def refuse_unarmed(wanted: Wanted, disk: DiskIdentity, content: Content) -> Label:
    """The label of a disk that was armed."""
    if content.label is None:
        raise wanted.refused(disk, "it is not armed", "Arm it: hwvirt arm, with the rig file.")
    return content.label
