"""Found disks, for people, for machines, and for rig files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from enum import Enum
from typing import Any

from hwvirt.disk.discovery.found import Armed, FoundDisk, suggested_window
from hwvirt.disk.discovery.identity import people_size
from hwvirt.tables import Fit, plain_table, print_table

__all__ = ["as_yaml", "show", "show_json", "show_yaml"]

_COLUMNS = ("block", "sg", "size", "blocks", "model", "firmware", "serial", "wwn", "cache", "transport", "state")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_NOTHING = "no SCSI disk here: this machine has none, or its kernel has not loaded sd_mod and sg"


def show(disks: Sequence[FoundDisk]) -> None:
    """One row for each disk."""
    if not disks:
        print(_NOTHING)
        return
    table = plain_table(*_COLUMNS)
    for disk in disks:
        who = disk.identity
        model = f"{who.vendor} {who.model}"
        blocks = f"{who.block_bytes}/{who.physical_block_bytes}"
        names = (who.block, who.sg, people_size(who.size_bytes), blocks, model, who.firmware, who.serial, who.wwn)
        table.add_row(*names, who.write_cache.value, who.transport, _state(disk))
    print_table(table, Fit.WHOLE)


def show_json(disks: Sequence[FoundDisk]) -> None:
    """A list of objects: the fields of `DiskIdentity`, and what there is to say against the disk."""
    print(json.dumps([_plain(disk) for disk in disks], indent=2))


def show_yaml(disks: Sequence[FoundDisk]) -> None:
    """As `as_yaml`."""
    print(as_yaml(disks), end="")


def as_yaml(disks: Sequence[FoundDisk]) -> str:
    """The `disks:` of a rig file; a disk that a rig cannot have is a comment with the reason."""
    if not disks:
        return f"# {_NOTHING}\n"
    lines = ["disks:"]
    for number, disk in enumerate(disks, 1):
        who = disk.identity
        lines.append(f"  # {who}: {who.vendor} {who.model}, {_state(disk)}")
        if disk.reasons:
            continue
        label = disk.content.label if disk.content else None
        lba, blocks = suggested_window(who)
        names = {key: _scalar(value) for key, value in (("wwn", who.wwn), ("serial", who.serial)) if value}
        entry = {**names, "size": f"{who.size_bytes}B", "block": f"{who.block_bytes}B"}
        fields = ", ".join(f"{key}: {value}" for key, value in entry.items())
        lines.append(f"  {label.role if label else f'disk-{number}'}:")
        lines.append(f"    sg: {{{fields}, window: {{lba: {lba}, blocks: {blocks}}}}}")
    return "\n".join(lines) + "\n"


def _state(disk: FoundDisk) -> str:
    label = disk.content.label if disk.content else None
    armed = f"armed for {label.rig} as {label.role}" if label else disk.armed.value
    return "; ".join((armed, *disk.reasons)) if disk.armed is not Armed.UNKNOWN else "; ".join(disk.reasons)


def _scalar(text: str) -> str:
    """A YAML scalar; JSON's strings are YAML's, too."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _plain(disk: FoundDisk) -> dict[str, Any]:
    label = disk.content.label if disk.content else None
    return {
        **{key: value.value if isinstance(value, Enum) else value for key, value in asdict(disk.identity).items()},
        "armed": disk.armed.value,
        "rig": label.rig if label else None,
        "role": label.role if label else None,
        "signatures": [asdict(signature) for signature in disk.content.signatures] if disk.content else [],
        "reasons": list(disk.reasons),
    }
