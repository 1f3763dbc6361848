"""Reads the files that people write."""

from __future__ import annotations

from pathlib import Path

from hwvirt.errors import UsageError

__all__ = ["read_file"]

_MOST_BYTES = 16 << 20


def read_file(path: Path, what: str, next_step: str = "") -> bytes:
    """The content of `what` people said lies there. Raises UsageError where it cannot be read, or never ends.

    `next_step`: the sentence that helps then.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read the {what} {path}: {error.strerror}.", next_step=next_step) from error
    if len(data) > _MOST_BYTES:
        raise UsageError(f"{path} is no {what}: it has more than {_MOST_BYTES >> 20} MiB.", next_step=next_step)
    return data
