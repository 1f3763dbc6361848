"""The manual knows what the parser knows: every key of a rig file stands in the template and in the reference."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from hwvirt.rig.file import parse_rig
from hwvirt.rig.file.disk_faults import Answer, On
from hwvirt.rig.file.model import Backing, HostPath, LoopNode, Overcommit
from hwvirt.rig.file.scenario import Counter
from hwvirt.rig.judge.verdict import Property

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "hwvirt/cli/rig_template.yaml"
REFERENCE = ROOT / "docs/rig-file.md"
PARSER = ROOT / "hwvirt/rig/file"


_WORDS = (Answer, Backing, Counter, HostPath, LoopNode, On, Overcommit, Property)


def keys() -> set[str]:
    """Every word that the parser knows: those in its calls of `fields` and `choice`, in its tables and its enums."""
    found = {member.value for words in _WORDS for member in words}
    for path in PARSER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            asks = isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("fields", "choice")
            table = isinstance(node, ast.Assign | ast.AnnAssign) and ast.unparse(node).startswith(("_MODES", "_STEPS"))
            if asks or table:
                constants = [word.value for word in ast.walk(node) if isinstance(word, ast.Constant)]
                found |= {word for word in constants if isinstance(word, str)}
    return found


def test_the_parser_has_keys() -> None:
    assert {"rig", "size", "loop", "window", "mix", "for", "while", "stall", "own", "fill", "acknowledged"} <= keys()
    assert len(keys()) > 50


@pytest.mark.parametrize("path", [TEMPLATE, REFERENCE], ids=lambda path: path.name)
def test_manual_names_every_key(path: Path) -> None:
    text = path.read_text()
    assert [key for key in sorted(keys()) if not re.search(rf"(?<![\w-]){re.escape(key)}(?![\w-])", text)] == []


def test_template_is_a_rig() -> None:
    assert parse_rig(TEMPLATE.read_text(), TEMPLATE).name == "my-rig"


@pytest.mark.parametrize("start", ["third:", "fourth:", "faults:", "- restart:", "expect: {"])
def test_what_the_template_shows_as_a_comment_is_right_too(start: str) -> None:
    lines = TEMPLATE.read_text().splitlines()
    (number,) = [number for number, line in enumerate(lines) if line.lstrip().startswith(f"# {start}")]
    while number < len(lines) and lines[number].lstrip().startswith("#"):
        lines[number] = lines[number].replace("# ", "", 1)
        number += 1
    parse_rig("\n".join(lines), TEMPLATE)


def test_examples_of_the_reference_are_rigs() -> None:
    examples = re.findall(r"```yaml\n(rig: .*?)```", REFERENCE.read_text(), flags=re.DOTALL)
    assert examples
    for example in examples:
        parse_rig(example, REFERENCE)
