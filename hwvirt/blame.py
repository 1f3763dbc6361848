"""How a mistake in what people write is blamed: where it stands, and what was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import AnyStr

__all__ = ["line_and_column", "suggestion"]


def line_and_column(text: AnyStr, offset: int) -> tuple[int, int]:
    """Where the character (or byte) at `offset` stands; both count from 1."""
    newline = "\n" if isinstance(text, str) else b"\n"
    before = text[:offset]
    return before.count(newline) + 1, offset - before.rfind(newline)


def suggestion(word: str, known: Iterable[str]) -> str:
    """The sentence that helps somebody who wrote `word` where one of `known` was wanted; empty when nothing is known."""
    words = list(known)
    near = difflib.get_close_matches(word, words, n=1)
    if near:
        return f"Did you mean {near[0]!r}?"
    return f"Known: {', '.join(words)}." if words else ""
