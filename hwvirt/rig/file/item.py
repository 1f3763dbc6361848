"""A piece of a rig file that knows its place: reads YAML nodes as the values a rig needs, blames them by line and column.

Scalars are taken as they are written, so `no`, `010` and `1:30` are never turned into something else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

import yaml

from hwvirt.blame import line_and_column, suggestion
from hwvirt.errors import RigFileError, RigFileRefusal
from hwvirt.units import format_size, parse_duration, parse_size

__all__ = ["Item", "compose"]

E = TypeVar("E", bound=Enum)
R = TypeVar("R", bound=RigFileError)
T = TypeVar("T")

_NULL = "tag:yaml.org,2002:null"
_MAPPING = "tag:yaml.org,2002:map"
_WHOLE_NUMBER = re.compile(r"[0-9]+(?:_[0-9]+)*")
_MOST_DIGITS = 30  # longer ones are beyond every bound
_MOST = (1 << 63) - 1
_MOST_BYTES = 1 << 50
_MOST_S = 1000 * 3600.0


def compose(text: str, file: str) -> Item:
    """The one document of a rig file. Raises RigFileError at the place where it stops being YAML."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        reason = ", ".join(part for part in (error.context, error.problem) if part)
        raise RigFileError(file, line, column, f"not YAML: {reason}") from error
    except yaml.reader.ReaderError as error:
        line, column = line_and_column(text, error.position)
        raise RigFileError(file, line, column, "not YAML: a character that text does not have") from error
    except RecursionError as error:
        raise RigFileError(file, 1, 1, "lists or mappings lie too deep in each other") from error
    if node is None:
        raise RigFileError(file, 1, 1, "the file is empty.", next_step="`hwvirt new rig NAME` writes one that runs.")
    return Item(node, file, "")


@dataclass(frozen=True, slots=True)
class Item:
    """A YAML node, the file it stands in, and its path from the top ("disks.first.loop"). Readers raise RigFileError."""

    node: yaml.Node
    file: str
    path: str

    def error(self, reason: str, next_step: str = "") -> RigFileError:
        """What is wrong with this item, for raising."""
        return self._blamed(RigFileError, reason, next_step)

    def refusal(self, reason: str, next_step: str = "") -> RigFileRefusal:
        """Why this item could be the wrong disk, for raising."""
        return self._blamed(RigFileRefusal, reason, next_step)

    def _blamed(self, kind: type[R], reason: str, next_step: str) -> R:
        mark = self.node.start_mark
        text = f"{self.path}: {reason}" if self.path else reason
        return kind(self.file, mark.line + 1, mark.column + 1, f"{text}." if next_step else text, next_step=next_step)

    @property
    def is_scalar(self) -> bool:
        """Whether this is one value, neither list nor mapping nor empty."""
        return isinstance(self.node, yaml.ScalarNode) and self.node.tag != _NULL

    @property
    def is_list(self) -> bool:
        """Whether this is a list."""
        return isinstance(self.node, yaml.SequenceNode)

    def fields(self, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Item]:
        """A mapping whose keys are known: any other, doubled or missing one is an error."""
        known = (*required, *optional)
        found = {}
        for key, value in self._pairs():
            name = key.text()
            if name not in known:
                raise key.error(f"unknown key {name!r}", suggestion(name, known))
            found[name] = value
        for name in required:
            if name not in found:
                raise self.error(f"key {name!r} is missing")
        return found

    def entries(self) -> Iterator[tuple[Item, Item]]:
        """A mapping whose keys are names that the file chooses: pairs of key and value."""
        return self._pairs()

    def choice(self, kinds: Collection[str], beside: Collection[str] = ()) -> tuple[str, Item, dict[str, Item]]:
        """One of several kinds: `{kind: its value}`, or the bare word `kind` for a kind with an empty mapping.

        Returns the kind, its value and those of the keys `beside` it that are there.
        """
        if self.is_scalar:
            kind = self.text()
            if kind not in kinds:
                raise self.error(f"unknown word {kind!r}", suggestion(kind, kinds))
            return kind, Item(_empty_mapping(self.node), self.file, self._below(kind)), {}
        found = self.fields((), (*kinds, *beside))
        kind = self.only(found, kinds)
        return kind, found.pop(kind), found

    def only(self, found: Collection[str], kinds: Collection[str]) -> str:
        """The one of `kinds` that is among the `found` keys of this mapping."""
        chosen = [kind for kind in found if kind in kinds]
        if len(chosen) != 1:
            instead = f", not {' and '.join(chosen)} together" if chosen else ""
            raise self.error(f"needs exactly one of {', '.join(kinds)}{instead}")
        return chosen[0]

    def items(self) -> list[Item]:
        """The members of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.error(f"must be a list, not {self._kind()}")
        return [Item(node, self.file, f"{self.path}[{index}]") for index, node in enumerate(self.node.value)]

    def text(self) -> str:
        """One value as it is written; never empty."""
        if not isinstance(self.node, yaml.ScalarNode):
            raise self.error(f"must be a single value, not {self._kind()}")
        value = str(self.node.value)
        if not value or self.node.tag == _NULL:
            raise self.error("is empty")
        return value

    def name(self, pattern: re.Pattern[str], rule: str) -> str:
        """A name that a file chooses and that paths and addresses will carry."""
        value = self.text()
        if not pattern.fullmatch(value):
            raise self.error(f"{value!r} is no usable name", rule)
        return value

    def integer(self, least: int, most: int = _MOST, what: str = "") -> int:
        """A whole number between `least` and `most`, both included; `what` it is, where the path does not say that."""
        value = self.text()
        must = f"{what} must be" if what else "must be"
        if not _WHOLE_NUMBER.fullmatch(value):
            raise self.error(f"{must} a whole number, not {value!r}")
        digits = value.replace("_", "").lstrip("0") or "0"
        number = int(digits[:_MOST_DIGITS])
        if not least <= number <= most:
            bounds = f"at least {least}" if number < least and most == _MOST else f"{least} to {most}"
            raise self.error(f"{must} {bounds}, not {value}")
        return number

    def size(self, most_bytes: int = _MOST_BYTES) -> int:
        """Bytes of a size with a unit; more than none."""
        size_bytes = self.parsed(parse_size)
        if size_bytes == 0:
            raise self.error("must be more than nothing")
        if size_bytes > most_bytes:
            raise self.error(f"must be at most {format_size(most_bytes)}, not {self.text()}")
        return size_bytes

    def duration(self) -> float:
        """Seconds of a duration with a unit."""
        duration_s = self.parsed(parse_duration)
        if duration_s > _MOST_S:
            raise self.error(f"must be at most {_MOST_S / 3600:g}h, not {self.text()}")
        return duration_s

    def parsed(self, parse: Callable[[str], T]) -> T:
        """The value that `parse` makes of the text; its ValueError becomes an error at this place."""
        try:
            return parse(self.text())
        except ValueError as error:
            raise self.error(str(error)) from error
        except OverflowError as error:
            raise self.error("is beyond all numbers") from error

    def word(self, words: type[E], beside: Collection[str] = ()) -> E:
        """The member of an enum whose value is written here; `beside` are words that would be right, too."""
        value = self.text()
        known = {str(member.value): member for member in words}
        if value not in known:
            raise self.error(f"unknown word {value!r}", suggestion(value, (*beside, *known)))
        return known[value]

    def one_of(self, known: Collection[str], what: str) -> str:
        """The name of something that the rig has."""
        value = self.text()
        if value not in known:
            raise self.error(f"the rig has no {what} {value!r}", suggestion(value, known))
        return value

    def _pairs(self) -> Iterator[tuple[Item, Item]]:
        if isinstance(self.node, yaml.ScalarNode) and self.node.tag == _NULL:
            return
        if not isinstance(self.node, yaml.MappingNode):
            raise self.error(f"must be a mapping, not {self._kind()}")
        first_lines: dict[str, int] = {}
        for key_node, value_node in self.node.value:
            key = Item(key_node, self.file, self.path)
            name = key.text()
            if name in first_lines:
                raise key.error(f"key {name!r} stands here a second time; the first is in line {first_lines[name]}")
            first_lines[name] = key_node.start_mark.line + 1
            yield key, Item(value_node, self.file, self._below(name))

    def _below(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def _kind(self) -> str:
        if isinstance(self.node, yaml.MappingNode):
            return "a mapping"
        if isinstance(self.node, yaml.SequenceNode):
            return "a list"
        return repr(self.node.value) if self.is_scalar else "nothing"


def _empty_mapping(node: yaml.Node) -> yaml.MappingNode:
    return yaml.MappingNode(_MAPPING, [], node.start_mark, node.end_mark)
