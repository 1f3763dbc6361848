"""The `disks:` part of a rig file.

What could be the wrong disk is refused as the guard refuses it (RigFileRefusal), every other mistake is a RigFileError.
"""

from __future__ import annotations

from hwvirt.rig.file.controllers import NAME, NAME_RULE
from hwvirt.rig.file.disk_faults import parse_disk_faults
from hwvirt.rig.file.item import Item
from hwvirt.rig.file.model import Backing, DiskSpec, LoopNode, LoopSpec, ScsiDebugSpec, SgSpec, TcmLoopSpec, TcmuSpec
from hwvirt.scsi.volume import Extent

__all__ = ["parse_disks"]

_MIB = 1 << 20
_BLOCK_SIZES = (512, 4096)
_DEFAULT_BLOCK_BYTES = 4096


def parse_disks(item: Item) -> dict[str, DiskSpec]:
    """All disks, by name. No two of them are one real disk by what they say."""
    disks: dict[str, DiskSpec] = {}
    for key, value in item.entries():
        disk = _parse_disk(value)
        if isinstance(disk, SgSpec):
            for name, other in disks.items():
                if isinstance(other, SgSpec) and (same := _same_identity(disk, other)):
                    raise value.refusal(f"is the same disk as {name} ({same})", "`hwvirt scan` shows which disks are here.")
        disks[key.name(NAME, NAME_RULE)] = disk
    return disks


def _same_identity(one: SgSpec, other: SgSpec) -> str:
    """What two real disks have in common that no two disks may, in words; empty where there is nothing."""
    if one.wwn and other.wwn:
        return f"wwn {other.wwn}" if one.wwn.lower() == other.wwn.lower() else ""
    return f"serial {other.serial}" if one.serial and one.serial == other.serial else ""


def _parse_disk(item: Item) -> DiskSpec:
    _refuse_node(item)
    kind, value, _ = item.choice(("loop", "sg", "scsi-debug", "tcm-loop", "tcmu"))
    match kind:
        case "loop":
            found = value.fields(("size",), ("block", "node"))
            node = found["node"].word(LoopNode) if "node" in found else LoopNode.FILE
            return LoopSpec(*_shape(found), node)
        case "scsi-debug":
            found = value.fields(("size",), ("block",))
            size_bytes, block_bytes = _shape(found)
            if size_bytes % _MIB:
                raise found["size"].error(f"{size_bytes} bytes are not a whole number of MiB, as scsi-debug wants it")
            return ScsiDebugSpec(size_bytes, block_bytes)
        case "tcm-loop":
            found = value.fields(("size",), ("block", "backing"))
            backing = found["backing"].word(Backing) if "backing" in found else Backing.LOOP
            return TcmLoopSpec(*_shape(found), backing)
        case "tcmu":
            found = value.fields(("size",), ("block", "faults"))
            size_bytes, block_bytes = _shape(found)
            faults = parse_disk_faults(found["faults"], size_bytes // block_bytes) if "faults" in found else ()
            return TcmuSpec(size_bytes, block_bytes, faults)
    return _parse_sg(value)


def _refuse_node(item: Item) -> None:
    """Whoever writes /dev/sdc instead of a disk learns at once how disks are named."""
    if item.is_scalar and item.text().startswith("/"):
        reason = f"{item.text()!r} is a node, and may be another disk tomorrow"
        raise item.refusal(reason, "Name the disk by its wwn or serial, as `hwvirt scan --yaml` prints it.")


def _parse_sg(item: Item) -> SgSpec:
    _refuse_node(item)
    found = item.fields(("size", "block", "window"), ("wwn", "serial"))
    if "wwn" not in found and "serial" not in found:
        raise item.refusal("names no disk", "Give its wwn or its serial; `hwvirt scan` prints both.")
    size_bytes, block_bytes = _shape(found)
    window = found["window"].fields(("lba", "blocks"))
    extent = Extent(window["lba"].integer(0), window["blocks"].integer(1))
    over = extent.lba + extent.blocks - size_bytes // block_bytes
    if over > 0:
        raise found["window"].refusal(f"ends {over} blocks behind the end of the disk")
    return SgSpec(_identity(found, "wwn"), _identity(found, "serial"), size_bytes, block_bytes, extent)


def _identity(found: dict[str, Item], key: str) -> str | None:
    if key not in found:
        return None
    _refuse_node(found[key])
    return found[key].text()


def _shape(found: dict[str, Item]) -> tuple[int, int]:
    """Size and block size, in bytes, that fit together."""
    size_bytes = found["size"].size()
    block_bytes = found["block"].size() if "block" in found else _DEFAULT_BLOCK_BYTES
    if block_bytes not in _BLOCK_SIZES:
        raise found["block"].error("must be 512B or 4KiB")
    if size_bytes % block_bytes:
        raise found["size"].error(f"{size_bytes} bytes are not a whole number of {block_bytes}-byte blocks")
    return size_bytes, block_bytes
