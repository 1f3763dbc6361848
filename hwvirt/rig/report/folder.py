"""The run folder: events as they happen, everything else written whole, and `latest` that points to it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import yaml

from hwvirt.digest import crc32c
from hwvirt.errors import InfrastructureError
from hwvirt.rig.report.junit import junit
from hwvirt.rig.report.model import Report
from hwvirt.trace import Event

__all__ = ["RunFolder", "writer_of"]

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")


def writer_of(folder: Path) -> int:
    """The number that stands in every block that a run writes: the CRC-32C of the name of its folder, which no other has."""
    return crc32c(folder.name.encode())


class RunFolder:
    """One run's folder below `base`, named by date (UTC), rig and `run_id`.

    Raises InfrastructureError where it cannot write; only `record` keeps that for whoever asks, in `broken`.
    """

    def __init__(self, base: Path, rig: str, started: datetime, run_id: str) -> None:
        date = started.astimezone(UTC).strftime("%Y-%m-%dT%H%M%SZ")
        self.path = base / f"{date}-{_UNFIT.sub('-', rig).strip('.-') or 'rig'}-{run_id}"
        self._encoder = msgspec.json.Encoder(enc_hook=str)
        with self._writing(self.path):
            self.path.mkdir(parents=True)
        self._point_latest_here(base)
        self.broken: InfrastructureError | None = None
        """Why events.ndjson does not go on."""
        self._recorded_bytes = 0
        with self._writing(self.path):
            self._events = (self.path / "events.ndjson").open("ab", buffering=0)

    def record(self, event: Event) -> None:
        """Subscriber of a Trace: one line in events.ndjson, there for others to read at once.

        Whoever emits is in the middle of something else and is told nothing. After the first error, which stays in `broken`,
        nothing more is written: what is there are the first events, without a gap.
        """
        if self.broken is not None:
            return
        line = memoryview(self._encoder.encode(event) + b"\n")
        try:
            with self._writing(self.path / "events.ndjson"):
                at = 0
                while at < len(line):  # a disk that fills up takes a part first
                    at += self._events.write(line[at:])
        except InfrastructureError as error:
            self.broken = error
            with suppress(OSError):
                self._events.truncate(self._recorded_bytes)
        else:
            self._recorded_bytes += len(line)

    def lock(self, resolved: Mapping[str, Any]) -> None:
        """Writes rig.lock.yaml: identities, versions and seed as they were resolved, and the run's writer."""
        everything = dict(resolved) | {"writer": writer_of(self.path)}
        self.write("rig.lock.yaml", yaml.safe_dump(everything, sort_keys=False, allow_unicode=True).encode())

    def finish(self, report: Report) -> None:
        """Writes report.json, junit.xml and, when there are cards, cards.txt."""
        if report.cards:
            self.write("cards.txt", "\n\n".join(card.text() for card in report.cards).encode() + b"\n")
        self.write("junit.xml", junit(report))
        self.write("report.json", msgspec.json.format(self._encoder.encode(report), indent=2) + b"\n")

    def write(self, name: str, content: bytes) -> None:
        """Writes a file whole or not at all: beside, synced, renamed."""
        target, beside = self.path / name, self.path / f".{name}.partial"
        with self._writing(target):
            try:
                with beside.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                beside.replace(target)
            except OSError:
                with suppress(OSError):
                    beside.unlink(missing_ok=True)
                raise
            self._sync(self.path)

    def close(self) -> None:
        """Ends the event stream. Idempotent."""
        self._events.close()

    def _point_latest_here(self, base: Path) -> None:
        beside = base / f".latest.{self.path.name}"
        with self._writing(base / "latest"):
            beside.symlink_to(self.path.name)
            try:
                beside.replace(base / "latest")
            except OSError:
                beside.unlink()
                raise
            self._sync(base)

    @staticmethod
    def _sync(folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @staticmethod
    @contextmanager
    def _writing(path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            room = error.errno in (errno.ENOSPC, errno.EDQUOT)
            next_step = "Make room, or name another folder for runs." if room else "Name another folder for runs."
            raise InfrastructureError(f"cannot write {path}: {error.strerror or error}.", next_step=next_step) from error
