"""What happened, in plain English."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import hwvirt
from hwvirt.console.sentences import _SENTENCES, _TEMPLATES, Sentence, Tone, sentence
from hwvirt.trace import Event


def emitted() -> Iterator[tuple[str, frozenset[str]]]:
    """Every event that the program can emit, with the facts that it gives."""
    for path in Path(hwvirt.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "emit"
                and isinstance(node.args[0], ast.Constant)
            ):
                yield str(node.args[0].value), frozenset(keyword.arg or "**" for keyword in node.keywords)


def test_every_event_of_the_program_has_a_sentence_and_gives_its_facts() -> None:
    events = list(emitted())
    assert len(events) > 30
    for name, facts in events:
        assert name in _SENTENCES or name in _TEMPLATES, name
        if name in _TEMPLATES and "**" not in facts:
            _TEMPLATES[name][0].format_map(dict.fromkeys(facts, 1))


def test_every_sentence_is_about_an_event_of_the_program() -> None:
    assert {name for name, _ in emitted()} == {*_SENTENCES, *_TEMPLATES}


@pytest.mark.parametrize(
    ("name", "fields", "text", "tone"),
    [
        ("rig.failed", {"reason": "no disk"}, "failed: no disk", Tone.BAD),
        ("controller.started", {"pid": 7, "nbd_port": 10809}, "controller started: pid 7, NBD on port 10809", Tone.GOOD),
        ("controller.started", {"pid": 7}, "controller started: pid 7, no LUNs for hosts", Tone.GOOD),
        ("nbd.opened", {"peer": "::1:5", "export": "lun0"}, "host ::1:5 opened lun0", Tone.PLAIN),
        ("lab.up", {"kernel": "a", "up_s": 0.64}, "kernel a is up after 0.6s", Tone.PLAIN),
        ("nbd.opened", {"peer": "::1:5"}, "nbd.opened peer=::1:5", Tone.PLAIN),
        ("lab.up", {"kernel": "a", "up_s": "soon"}, "lab.up kernel=a up_s=soon", Tone.PLAIN),
        (
            "backup.read",
            {"lun": "a/1", "passes": 30, "blocks": 491520, "mismatches": 0},
            "backup of a/1: read 30 times, 491,520 blocks, 0 mismatches",
            Tone.GOOD,
        ),
        (
            "backup.read",
            {"lun": "a/1", "passes": 1, "blocks": 16384, "mismatches": 2},
            "backup of a/1: read once, 16,384 blocks, 2 mismatches",
            Tone.BAD,
        ),
        (
            "backup.mismatch",
            {"lun": "a/1", "lba": 7, "number": 3},
            "backup 3 of a/1: block 7 is not the original",
            Tone.BAD,
        ),
        ("link.down", {"reason": "{0} \x1b[2J"}, r"link down: {0} \x1b[2J", Tone.WARNING),
        ("plug.lost", {"of": "x"}, "plug.lost of=x", Tone.BAD),
        ("plug.late", {}, "plug.late", Tone.WARNING),
    ],
)
def test_sentence(name: str, fields: dict[str, object], text: str, tone: Tone) -> None:
    assert sentence(Event(name, 0.0, "a", fields)) == Sentence(text, tone)
