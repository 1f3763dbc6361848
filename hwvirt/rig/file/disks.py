"""The `disks:` part of a rig file."""

from __future__ import annotations

from hwvirt.rig.file.disk_faults import parse_disk_faults
from hwvirt.rig.file.item import Item
from hwvirt.rig.file.model import Backing, DiskSpec, LoopNode, LoopSpec, ScsiDebugSpec, SgSpec, TcmLoopSpec, TcmuSpec
from hwvirt.scsi.volume import Extent

__all__ = ["parse_disk"]

_BLOCK_SIZES = (512, 4096)
_DEFAULT_BLOCK_BYTES = 4096


def parse_disk(item: Item) -> DiskSpec:
    """One disk of any kind."""
    kind, value, _ = item.choice(("loop", "sg", "scsi-debug", "tcm-loop", "tcmu"))
    match kind:
        case "loop":
            found = value.fields(("size",), ("block", "node"))
            node = found["node"].word(LoopNode) if "node" in found else LoopNode.FILE
            return LoopSpec(*_shape(found), node)
        case "scsi-debug":
            return ScsiDebugSpec(*_shape(value.fields(("size",), ("block",))))
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


def _parse_sg(item: Item) -> SgSpec:
    found = item.fields(("size", "block", "window"), ("wwn", "serial"))
    if "wwn" not in found and "serial" not in found:
        raise item.error("names no disk", "Give its wwn or its serial; `hwvirt scan` prints both.")
    size_bytes, block_bytes = _shape(found)
    window = found["window"].fields(("lba", "blocks"))
    extent = Extent(window["lba"].integer(0), window["blocks"].integer(1))
    over = extent.lba + extent.blocks - size_bytes // block_bytes
    if over > 0:
        raise found["window"].error(f"ends {over} blocks behind the end of the disk")
    identity = {key: found[key].text() if key in found else None for key in ("wwn", "serial")}
    return SgSpec(identity["wwn"], identity["serial"], size_bytes, block_bytes, extent)


def _shape(found: dict[str, Item]) -> tuple[int, int]:
    """Size and block size, in bytes, that fit together."""
    size_bytes = found["size"].size()
    block_bytes = found["block"].size() if "block" in found else _DEFAULT_BLOCK_BYTES
    if block_bytes not in _BLOCK_SIZES:
        raise found["block"].error("must be 512B or 4KiB")
    if size_bytes % block_bytes:
        raise found["size"].error(f"{size_bytes} bytes are not a whole number of {block_bytes}-byte blocks")
    return size_bytes, block_bytes
