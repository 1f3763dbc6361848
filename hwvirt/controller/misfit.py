"""What msgspec finds wrong with a value, in the words of the house, with what would be right."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import inspect

from hwvirt.blame import suggestion
from hwvirt.controller.json_file import Way, in_words
from hwvirt.errors import UsageError

__all__ = ["PRINTABLE", "Misfit", "misfit", "read_arguments"]

PRINTABLE = r"^[ -~]*\Z"
"""The pattern of a text of printable ASCII, all that SCSI names may have (SPC-4 4.3.1)."""

_UNKNOWN_KEY = "Object contains unknown field `"
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
_TYPE = re.compile(r"Expected `(\w+)(?: \| null)?`, got `\w+`")
_TYPES = re.compile(r"Expected `(\w+(?: \| \w+)+)`, got `\w+`")
_BOUND = re.compile(r"Expected `(?:int|float)(?: \| null)?` [<>]")
_PLACE = re.compile(r"(.*) - at `\$([\w.\[\]]*)`", re.DOTALL | re.ASCII)
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
}
_MOST_SHOWN = 40
_Form = TypeVar("_Form", bound=msgspec.Struct)


class Misfit(NamedTuple):
    """What is wrong with the value at the end of `way`, or with its last key when `of_key`."""

    way: Way
    reason: str
    next_step: str = ""
    of_key: bool = False


def misfit(error: msgspec.ValidationError, form: type[msgspec.Struct], given: Any, noun: str = "key") -> Misfit:
    """Why `given` cannot be a `form`; `noun` is what people call a member of it."""
    message = str(error)
    for reason, way in _readings(message):
        found = _followed(inspect.type_info(form), given, way)
        if found is None:
            continue
        kind, value = found
        if not message.startswith(_UNKNOWN_KEY):
            return _misfit_there(reason, way, kind, value, noun)
        if not isinstance(kind, inspect.StructType) or not isinstance(value, dict):
            continue
        known = [field.encode_name for field in kind.fields]
        key = reason.removeprefix(_UNKNOWN_KEY).removesuffix("`")
        if key in value and key not in known:
            return Misfit((*way, key), f"unknown {noun} {key!r}", suggestion(key, known), of_key=True)
    return Misfit((), message)


def _misfit_there(reason: str, way: Way, kind: inspect.Type, value: Any, noun: str) -> Misfit:
    if missing := _MISSING.fullmatch(reason):
        return Misfit(way, f"{noun} {missing[1]!r} is missing")
    if (several := _TYPES.fullmatch(reason)) and len(names := _without_null(several[1])) > 1:
        return Misfit(way, f"must be {' or '.join(_KINDS.get(name, name) for name in names)}, not {_shown(value)}")
    words = _words_of(kind)
    if words and isinstance(value, str) and all(isinstance(word, str) for word in words):
        return Misfit(way, f"unknown word {_shown(value)}", suggestion(value, map(str, words)))
    if words:
        return Misfit(way, f"must be {_either(words)}, not {_shown(value)}")
    if wrong := _TYPE.fullmatch(reason):
        return Misfit(way, f"must be {_KINDS.get(wrong[1], wrong[1])}, not {_shown(value)}")
    if isinstance(kind, inspect.IntType | inspect.FloatType) and _BOUND.match(reason):
        return Misfit(way, f"must be {_bounds(kind)}, not {_shown(value)}")
    if isinstance(kind, inspect.StrType) and kind.pattern == PRINTABLE and "matching" in reason:
        return Misfit(way, f"must be of printable ASCII, not {_shown(value)}")
    if isinstance(kind, inspect.StrType) and isinstance(value, str):
        return Misfit(way, f"has {len(value)} characters, at most {kind.max_length} are possible" if value else "is empty")
    return Misfit(way, reason)


def read_arguments(given: dict[str, Any], form: type[_Form]) -> _Form:
    """The arguments of a verb. Raises UsageError for those that are not its."""
    try:
        return msgspec.convert(given, form)
    except msgspec.ValidationError as error:
        way, reason, next_step, of_key = misfit(error, form, given, "argument")
        if of_key:
            raise UsageError(f"{reason}.", next_step=next_step or "It takes none.") from error
        place = f"{in_words(way)}: " if way else ""
        raise UsageError(f"{place}{reason}.", next_step="See docs/controller.md for the verbs.") from error


def _readings(message: str) -> Iterator[tuple[str, Way]]:
    """What a message may say, and of what place: an unknown key is in it as it is, and may look like a place."""
    if placed := _PLACE.fullmatch(message):
        yield placed[1], tuple(key or int(index) for key, index in _STEP.findall(placed[2]))
    yield message, ()


def _followed(kind: inspect.Type, value: Any, way: Way) -> tuple[inspect.Type, Any] | None:
    """The type and the value at the end of the way; None where no way leads there."""
    for step in way:
        kind = _plain(kind, value)
        if isinstance(kind, inspect.StructType) and isinstance(value, dict) and step in value:
            types = {field.encode_name: field.type for field in kind.fields}
            if step not in types:
                return None
            kind, value = types[str(step)], value[step]
        elif isinstance(kind, inspect.ListType) and isinstance(value, list) and step in range(len(value)):
            kind, value = kind.item_type, value[int(step)]
        else:
            return None
    return _plain(kind, value), value


def _plain(kind: inspect.Type, value: Any) -> inspect.Type:
    """Without "or null"; and of a word or an object, the one that the value is meant to be."""
    if isinstance(kind, inspect.UnionType):
        able = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
        return next((one for one in able if isinstance(one, inspect.StructType) == isinstance(value, dict)), able[0])
    return kind


def _without_null(names: str) -> list[str]:
    return [name for name in names.split(" | ") if name != "null"]


def _words_of(kind: inspect.Type) -> list[Any]:
    if isinstance(kind, inspect.LiteralType):
        return list(kind.values)
    return [member.value for member in kind.cls] if isinstance(kind, inspect.EnumType) else []


def _bounds(kind: inspect.IntType | inspect.FloatType) -> str:
    if kind.gt is not None:
        return f"more than {kind.gt}"
    return f"at least {kind.ge}" if kind.le is None else f"{kind.ge} to {kind.le}"


def _either(words: Iterable[Any]) -> str:
    *others, last = map(_shown, words)
    return f"{', '.join(others)} or {last}" if others else last


def _shown(value: Any) -> str:
    """As short as it takes to find it again."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = repr(value) if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
