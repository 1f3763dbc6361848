"""Rig file → Rig. Every mistake is a RigFileError with file, line, column, reason and, where there is one, the next step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from hwvirt.blame import line_and_column
from hwvirt.errors import RigFileError
from hwvirt.reading import read_file
from hwvirt.rig.file.controllers import NAME, NAME_RULE, parse_controllers
from hwvirt.rig.file.disks import parse_disks
from hwvirt.rig.file.item import Item, compose
from hwvirt.rig.file.lab import check_disks, parse_lab
from hwvirt.rig.file.link import DEFAULT_LINK, parse_link
from hwvirt.rig.file.model import HostPath, HostSpec, LabSpec, Rig
from hwvirt.rig.file.steps import parse_expect, parse_scenarios

__all__ = ["load_rig", "parse_rig"]

_DEFAULT_SEED = 1
_NOT_BUILT = {"iscsi": "iSCSI"}
_HIGHEST_SEED = (1 << 63) - 1


def load_rig(path: Path, copy: Path | None = None) -> Rig:
    """The rig in a file. Raises UsageError when it cannot be read, RigFileError when it is wrong.

    `copy`: where its text is read, if `path` itself cannot be seen from here.
    """
    data = read_file(copy or path, "rig file")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line, column = line_and_column(data, error.start)
        raise RigFileError(str(path), line, column, "not YAML: not UTF-8 text") from error
    return parse_rig(text, path)


def parse_rig(text: str, path: Path) -> Rig:
    """The rig in a text; `path` is what errors call the file."""
    found = compose(text, str(path)).fields(
        ("rig", "disks", "controllers", "scenarios"), ("seed", "link", "host", "lab", "expect")
    )
    name = found["rig"].name(NAME, NAME_RULE)
    seed = found["seed"].integer(0, _HIGHEST_SEED) if "seed" in found else _DEFAULT_SEED
    disks = parse_disks(found["disks"])
    controllers, layout = parse_controllers(found["controllers"], disks)
    lab = parse_lab(found["lab"], controllers) if "lab" in found else LabSpec()
    check_disks(found["disks"], disks, controllers, lab)
    rig = Rig(
        name=name,
        seed=seed,
        path=path,
        disks=MappingProxyType(disks),
        controllers=controllers,
        layout=layout,
        link=parse_link(found["link"], controllers, disks) if "link" in found else DEFAULT_LINK,
        host=_host(found["host"]) if "host" in found else HostSpec(HostPath.NBD),
        scenarios=(),
        expect=parse_expect(found["expect"]) if "expect" in found else (),
        lab=lab,
    )
    return replace(rig, scenarios=parse_scenarios(found["scenarios"], rig))


def _host(item: Item) -> HostSpec:
    path = item.fields(("path",))["path"]
    if path.is_scalar and path.text() in _NOT_BUILT:
        raise path.error(f"this version reaches hosts by NBD only, not by {_NOT_BUILT[path.text()]}", "Write `path: nbd`.")
    return HostSpec(path.word(HostPath))
