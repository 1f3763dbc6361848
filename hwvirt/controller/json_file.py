"""A JSON text whose keys and values know their places, so that a mistake is blamed by line and column.

The loader of the rig file knows places too, but YAML is not quite the superset of JSON that it should be: PyYAML refuses
tabs between values, and the escape `\\/`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, Never, TypeAlias

from hwvirt.blame import line_and_column
from hwvirt.errors import ConfigError

__all__ = ["JsonFile", "Way", "in_words"]

Way: TypeAlias = tuple[str | int, ...]
"""From the top of a JSON value to one within it: keys of objects and indices of arrays."""

_BLANKS = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SCALAR = re.compile(r"[^][{}:,\s]+")
_NO_TEXT = re.compile(r"[\0\ud800-\udfff]")  # no path, name or address can have them


def in_words(way: Way) -> str:
    """As the manual writes it: ("luns", 0, "lba") → "luns[0].lba"."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in way).removeprefix(".")


class JsonFile:
    """The one `value` of a JSON text. Raises ConfigError where it is none, where a key is doubled or a number endless.

    `next_step`: the sentence that helps who wrote no JSON.
    """

    def __init__(self, file: str, data: bytes, next_step: str = "") -> None:
        self._file = file
        self._text = ""
        self._values: dict[Way, int] = {}
        self._keys: dict[Way, int] = {}
        try:
            self._text = data.decode("utf-8-sig")
            if not self._text.strip():
                raise self._error((1, 1), "the file is empty", next_step)
            json.loads(self._text, parse_int=str, parse_float=str, parse_constant=str)
            self.value, _ = self._read(self._skip(0), ())
        except UnicodeDecodeError as error:
            raise self._error(line_and_column(data, error.start), "not JSON: not UTF-8 text", next_step) from error
        except json.JSONDecodeError as error:
            place = error.lineno, error.colno
            raise self._error(place, f"not JSON: {_lowered(error.msg)}", next_step) from error
        except RecursionError as error:
            raise self._error((1, 1), "lists or objects lie too deep in each other") from error

    def error(self, way: Way, reason: str, next_step: str = "") -> ConfigError:
        """What is wrong with the value there, or with the whole where there is none; for raising."""
        return self._blamed(self._values.get(way, self._values[()]), way, reason, next_step)

    def key_error(self, way: Way, reason: str, next_step: str = "") -> ConfigError:
        """What is wrong with the last key of the way; for raising."""
        return self._blamed(self._keys[way], way[:-1], reason, next_step)

    def _blamed(self, at: int, way: Way, reason: str, next_step: str) -> ConfigError:
        text = f"{in_words(way)}: {reason}" if way else reason
        return self._error(line_and_column(self._text, at), text, next_step)

    def _error(self, place: tuple[int, int], text: str, next_step: str = "") -> ConfigError:
        return ConfigError(self._file, *place, f"{text}." if next_step else text, next_step=next_step)

    def _read(self, at: int, way: Way) -> tuple[Any, int]:
        """The value that begins at `at`, and where it ends. The text is known to be JSON."""
        self._values[way] = at
        first = self._text[at]
        if first == "{":
            return self._object(at, way)
        if first == "[":
            return self._array(at, way)
        if first == '"':
            return self._string(at)
        word = _matched(_SCALAR, self._text, at)
        return self._number(word, way) if word not in _WORDS else _WORDS[word], at + len(word)

    def _object(self, at: int, way: Way) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}

        def member(start: int) -> int:
            key, end = self._string(start)
            inner = (*way, key)
            if key in found:
                first, _ = line_and_column(self._text, self._keys[inner])
                reason = f"key {key!r} stands here a second time; the first is in line {first}"
                raise self._blamed(start, way, reason, "")
            self._keys[inner] = start
            found[key], end = self._read(self._skip(self._skip(end) + 1), inner)
            return end

        return found, self._members(at, "}", member)

    def _array(self, at: int, way: Way) -> tuple[list[Any], int]:
        found: list[Any] = []

        def member(start: int) -> int:
            value, end = self._read(start, (*way, len(found)))
            found.append(value)
            return end

        return found, self._members(at, "]", member)

    def _members(self, at: int, closing: str, member: Callable[[int], int]) -> int:
        at = self._skip(at + 1)
        while self._text[at] != closing:
            at = self._skip(member(at))
            if self._text[at] == ",":
                at = self._skip(at + 1)
        return at + 1

    def _string(self, at: int) -> tuple[str, int]:
        word = _matched(_STRING, self._text, at)
        text = json.loads(word)
        if _NO_TEXT.search(text):
            raise self._error(line_and_column(self._text, at), "a character that text does not have")
        return text, at + len(word)

    def _number(self, word: str, way: Way) -> int | float:
        if word.lstrip("-") in ("NaN", "Infinity"):
            self._no_number(way, f"{word} is no number of JSON")
        number = float(word)
        if not math.isfinite(number):
            self._no_number(way, "is beyond all numbers")
        return int(word) if word.lstrip("-").isdigit() else number

    def _no_number(self, way: Way, reason: str) -> Never:
        raise self.error(way, reason)

    def _skip(self, at: int) -> int:
        return at + len(_matched(_BLANKS, self._text, at))


_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}


def _matched(pattern: re.Pattern[str], text: str, at: int) -> str:
    found = pattern.match(text, at)
    assert found is not None, "it is JSON"
    return found[0]


def _lowered(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
