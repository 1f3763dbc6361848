"""Certificates for tests, made once: good ones, and those of another authority, of the past and of the future."""

from __future__ import annotations

import datetime
import tempfile
from functools import cache
from pathlib import Path

import msgspec

from hwvirt.link.config import Role, TlsFiles
from hwvirt.rig.certificates import generate

__all__ = ["both", "files", "folder", "good"]

_DAY = datetime.timedelta(days=1)
_BEGIN = {"good": -1, "other": -1, "old": -400, "new": 1}
"""Days from now on which certificates begin to be valid; they are for a year."""
_kept: list[tempfile.TemporaryDirectory[str]] = []


@cache
def folder() -> Path:
    """Where they all are, until the process ends."""
    _kept.append(tempfile.TemporaryDirectory(prefix="hwvirt-papers-"))
    return Path(_kept[0].name)


@cache
def _made(kind: str) -> dict[str, TlsFiles]:
    begin = datetime.datetime.now(datetime.UTC) + _BEGIN[kind] * _DAY
    written = {name: papers.write(folder() / f"{kind}.{name}") for name, papers in generate("abm", begin).items()}
    return {name: TlsFiles(*map(Path, msgspec.structs.astuple(paths))) for name, paths in written.items()}


def files(kind: str, name: str) -> TlsFiles:
    """Those of controller `name`, or of "m", who sits in the middle and has some of the same authority."""
    return _made(kind)[name]


def both(connecting: TlsFiles, listening: TlsFiles) -> dict[Role, TlsFiles]:
    """The files of each end."""
    return {Role.CONNECT: connecting, Role.LISTEN: listening}


def good() -> dict[Role, TlsFiles]:
    """Two ends that believe each other."""
    return both(files("good", "a"), files("good", "b"))
