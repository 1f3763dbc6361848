"""The rules of the house: floors, the judge's independence, dependencies, module size, `__all__`.

A module imports only its own floor or lower ones. The judge is a witness, not a relative: it imports ground, scsi and disk.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import pytest

FLOORS = ("ground", "scsi", "disk", "link", "host", "controller", "lab", "rig", "console", "cli")
JUDGE = "hwvirt.rig.judge"
JUDGE_MAY_IMPORT = ("ground", "scsi", "disk")
MOST_LINES = 400

PACKAGE = Path(__file__).parents[1] / "hwvirt"


def read_modules() -> dict[str, str]:
    """Dotted name → source of every module of the package; a package is named like its folder."""
    modules = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ("hwvirt", *path.relative_to(PACKAGE).with_suffix("").parts)
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return modules


def imports(name: str, modules: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """Line and module of everything of hwvirt that module `name` imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(modules[name], name)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "hwvirt":
                    yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, name, modules)
            if base.split(".")[0] == "hwvirt":
                for alias in node.names:
                    member = f"{base}.{alias.name}"
                    yield node.lineno, member if member in modules else base


def absolute(node: ast.ImportFrom, name: str, modules: Mapping[str, str]) -> str:
    if not node.level:
        return node.module or ""
    is_package = any(other.startswith(f"{name}.") for other in modules)
    package = name.split(".")[: len(name.split(".")) - node.level + is_package]
    return ".".join([*package, *([node.module] if node.module else [])])


def floor(name: str) -> str:
    """The package a module lies in; modules beside the packages are the ground, but `__main__` is the program."""
    _, *inside = name.split(".")
    if inside == ["__main__"]:
        return "cli"
    return inside[0] if len(inside) > 1 or (inside[:1] and inside[0] in FLOORS) else "ground"


def forbidden_imports(modules: Mapping[str, str]) -> list[str]:
    found = []
    for name in sorted(modules):
        in_judge = f"{name}.".startswith(f"{JUDGE}.")
        for line, target in imports(name, modules):
            if in_judge and not (floor(target) in JUDGE_MAY_IMPORT or f"{target}.".startswith(f"{JUDGE}.")):
                found.append(f"{name}:{line} imports {target}: the judge shares no code with those it judges")
            elif FLOORS.index(floor(target)) > FLOORS.index(floor(name)):
                found.append(f"{name}:{line} imports {target}: {floor(target)} lies above {floor(name)}")
    return found


def broken_exports(modules: Mapping[str, str]) -> list[str]:
    found = []
    for name, source in sorted(modules.items()):
        body = ast.parse(source, name).body
        if all(isinstance(node, ast.Expr) for node in body):
            continue  # a docstring only
        exports = [ast.literal_eval(value) for names, value in assignments(body) if names == ["__all__"] and value]
        if not exports:
            found.append(f"{name} has no __all__")
        for exported in exports:
            missing = sorted({*exported} - {*defined(body)})
            found += [f"{name}.__all__ names {word}, which is not there" for word in missing]
    return found


def assignments(body: list[ast.stmt]) -> Iterator[tuple[list[str], ast.expr | None]]:
    for node in body:
        if isinstance(node, ast.Assign):
            yield [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)], node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield [node.target.id], node.value


def defined(body: list[ast.stmt]) -> Iterator[str]:
    """Names that statements at the top of a module bind, also inside `if` and `try`."""
    for names, _ in assignments(body):
        yield from names
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Import() | ast.ImportFrom():
                yield from (alias.asname or alias.name.split(".")[0] for alias in node.names)
            case ast.If() | ast.Try():
                yield from defined([*node.body, *node.orelse])
                for handler in getattr(node, "handlers", ()):
                    yield from defined(handler.body)


def long_modules(modules: Mapping[str, str]) -> list[str]:
    lengths = {name: len(source.splitlines()) for name, source in sorted(modules.items())}
    return [f"{name} has {lines} lines" for name, lines in lengths.items() if lines > MOST_LINES]


def unknown_floors(modules: Mapping[str, str]) -> list[str]:
    return sorted(name for name in modules if floor(name) not in FLOORS)


def third_parties(modules: Mapping[str, str]) -> set[str]:
    """Packages of others that are imported, wherever the import stands."""
    found: set[str] = set()
    for name, source in modules.items():
        for node in ast.walk(ast.parse(source, name)):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add((node.module or "").split(".")[0])
    return found - sys.stdlib_module_names - {"hwvirt"}


def normal(distribution: str) -> str:
    """The name as it is compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def none_of(found: list[str]) -> None:
    assert not found, "\n".join(["", *found])


def test_every_module_has_a_floor() -> None:
    none_of(unknown_floors(read_modules()))


def test_nothing_imports_upwards_and_the_judge_is_nobodys_relative() -> None:
    none_of(forbidden_imports(read_modules()))


def test_every_module_says_what_it_exports() -> None:
    none_of(broken_exports(read_modules()))


def test_what_is_imported_from_others_is_declared_and_nothing_else_is() -> None:
    declared = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]["dependencies"]
    distributions = metadata.packages_distributions()
    imported = {normal(distributions[name][0]) if name in distributions else name for name in third_parties(read_modules())}
    assert imported == {normal(re.split(r"[^\w.-]", dependency)[0]) for dependency in declared}


def test_no_module_is_too_long_to_read() -> None:
    none_of(long_modules(read_modules()))


HOUSE = {
    "hwvirt": "",
    "hwvirt.errors": "",
    "hwvirt.scsi": "",
    "hwvirt.scsi.cdb": "from hwvirt import errors\nfrom hwvirt.scsi import sense\n",
    "hwvirt.scsi.sense": "import os\nfrom typing import Any\n",
    "hwvirt.disk.file": "",
    "hwvirt.controller": "",
    "hwvirt.controller.map": "from . import store\nfrom .store import x\nfrom ..scsi.sense import y\n",
    "hwvirt.controller.store": "",
    "hwvirt.rig.runner": "from hwvirt.controller.map import z\n",
    "hwvirt.rig.judge": "",
    "hwvirt.rig.judge.card": "from hwvirt.disk.file import FileDisk\nfrom hwvirt.rig.judge import verdict\n",
    "hwvirt.rig.judge.verdict": "",
    "hwvirt.cli": "",
    "hwvirt.__main__": "from hwvirt import cli\n",
}


def test_a_sound_house_passes() -> None:
    assert forbidden_imports(HOUSE) == []


@pytest.mark.parametrize(
    ("module", "source", "verdict"),
    [
        ("hwvirt.scsi.sense", "import hwvirt.cli", "hwvirt.scsi.sense:1 imports hwvirt.cli: cli lies above scsi"),
        ("hwvirt.scsi.sense", "from hwvirt import cli", "hwvirt.scsi.sense:1 imports hwvirt.cli: cli lies above scsi"),
        ("hwvirt.errors", "import hwvirt.scsi.cdb", "hwvirt.errors:1 imports hwvirt.scsi.cdb: scsi lies above ground"),
        (
            "hwvirt.controller.map",
            "from ..rig.runner import run",
            "hwvirt.controller.map:1 imports hwvirt.rig.runner: rig lies above controller",
        ),
        (
            "hwvirt.controller",
            "from ..rig import runner",
            "hwvirt.controller:1 imports hwvirt.rig.runner: rig lies above controller",
        ),
        (
            "hwvirt.disk.file",
            "def f():\n    if x:\n        from hwvirt.controller.store import Store",
            "hwvirt.disk.file:3 imports hwvirt.controller.store: controller lies above disk",
        ),
        (
            "hwvirt.rig.judge.card",
            "from hwvirt.controller.map import Map",
            "hwvirt.rig.judge.card:1 imports hwvirt.controller.map: the judge shares no code with those it judges",
        ),
        (
            "hwvirt.rig.judge",
            "from hwvirt.rig import runner",
            "hwvirt.rig.judge:1 imports hwvirt.rig.runner: the judge shares no code with those it judges",
        ),
    ],
)
def test_a_planted_edge_is_found(module: str, source: str, verdict: str) -> None:
    assert forbidden_imports(HOUSE | {module: source}) == [verdict]


def test_a_planted_import_from_others_is_found() -> None:
    source = "import os.path, numpy.linalg as la\ndef f():\n    from rich.table import Table\n    from . import yaml\n"
    assert third_parties(HOUSE | {"hwvirt.disk.file": source}) == {"numpy", "rich"}


def test_a_planted_hole_in_all_is_found() -> None:
    modules = {
        "hwvirt.good": '__all__ = ["A", "b", "c"]\nA: int = 1\ntry:\n    import b\nexcept E:\n    b = None\ndef c(): ...\n',
        "hwvirt.bare": "x = 1\n",
        "hwvirt.empty": '"""Doc."""\n',
        "hwvirt.wrong": '__all__ = ["gone"]\n',
    }
    assert broken_exports(modules) == ["hwvirt.bare has no __all__", "hwvirt.wrong.__all__ names gone, which is not there"]


def test_a_planted_long_module_and_a_stray_one_are_found() -> None:
    modules = {"hwvirt.units": "\n" * 401, "hwvirt.stray.units": "\n" * 400}
    assert long_modules(modules) == ["hwvirt.units has 401 lines"]
    assert unknown_floors(modules) == ["hwvirt.stray.units"]
