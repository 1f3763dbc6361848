"""A history as NDJSON, so that it can be read by people and judged again.

The first line says what the history is of, each further line is an operation or a mark.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO, TypeAlias

import msgspec

from hwvirt.errors import UsageError
from hwvirt.rig.judge.history import Fate, History, Kind, Mark, MarkKind, Operation

__all__ = ["dump_history", "load_history"]

_SCHEMA = 1


class _Head(msgspec.Struct, tag_field="line", tag="history"):
    schema: int
    volume: int
    seed: int
    block_bytes: int
    writer: int


class _Operation(msgspec.Struct, tag_field="line", tag="operation", omit_defaults=True):
    op: int
    kind: str
    lba: int
    blocks: int
    began: int
    ended: int
    fate: str
    seen: tuple[int, ...] = ()
    strange: dict[int, str] = {}


class _Mark(msgspec.Struct, tag_field="line", tag="mark"):
    moment: int
    kind: str


_Line: TypeAlias = _Head | _Operation | _Mark


def dump_history(history: History, stream: BinaryIO) -> None:
    """Writes every line; does not flush or sync."""
    encode = msgspec.json.Encoder().encode
    head = _Head(_SCHEMA, history.volume, history.seed, history.block_bytes, history.writer)
    stream.write(encode(head) + b"\n")
    strange: dict[int, dict[int, str]] = {}
    for (number, lba), what in history.strange.items():
        strange.setdefault(number, {})[lba] = what
    for number in range(1, len(history) + 1):
        op = history.operation(number)
        kind, fate = op.kind.name.lower(), op.fate.name.lower()
        row = _Operation(number, kind, op.lba, op.blocks, op.began, op.ended, fate, op.seen, strange.get(number, {}))
        stream.write(encode(row) + b"\n")
    for mark in history.marks:
        stream.write(encode(_Mark(mark.moment, mark.kind.name.lower())) + b"\n")


def load_history(lines: Iterable[bytes], name: str) -> History:
    """The history that was dumped. Raises UsageError with `name` and the line where it is not one."""
    decode = msgspec.json.Decoder(_Line).decode
    history: History | None = None
    for number, text in enumerate(lines, 1):
        try:
            line = decode(text)
            if isinstance(line, _Head):
                if line.schema != _SCHEMA:
                    raise ValueError(f"schema {line.schema}, this program reads {_SCHEMA}")
                history = History(line.volume, line.seed, line.block_bytes, line.writer)
            elif history is None:
                raise ValueError("the first line must say what the history is of")
            else:
                _append(history, line)
        except (ValueError, KeyError) as error:  # msgspec's errors are ValueErrors
            raise UsageError(f"{name}:{number}: not a line of a history: {error}") from error
    if history is None:
        raise UsageError(f"{name}: an empty history")
    return history


def _append(history: History, line: _Operation | _Mark) -> None:
    if isinstance(line, _Mark):
        history.replay_mark(Mark(line.moment, MarkKind[line.kind.upper()]))
        return
    kind, fate = Kind[line.kind.upper()], Fate[line.fate.upper()]
    history.replay(Operation(line.op, kind, line.lba, line.blocks, line.began, line.ended, fate, line.seen))
    for lba, what in line.strange.items():
        history.note(line.op, lba, what)
