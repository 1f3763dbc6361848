"""The pieces of what the console knows: the bench, its controllers, the step, verdicts, the log."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import msgspec

from hwvirt.console.rates import RateWindow
from hwvirt.console.report import ControllerReport
from hwvirt.console.sentences import Tone

__all__ = ["Controller", "Counts", "LogLine", "Outcome", "Rates", "Step", "Topology", "Verdict"]

_STALE_S = 2.0
_HISTORY_EVERY_S = 0.5


class Topology(msgspec.Struct, frozen=True):
    """The bench: how the host comes in, what the link is made of, and which disk lies under each controller."""

    host: str = ""
    link: str = ""
    controllers: dict[str, str] = {}


@dataclass(slots=True)
class Counts:
    """Requests by their fate; `unmaps` and `fills` are among those acknowledged."""

    acknowledged: int = 0
    failed: int = 0
    in_doubt: int = 0
    reads: int = 0
    flushes: int = 0
    unmaps: int = 0
    fills: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Counts)))


@dataclass(slots=True)
class Step:
    """The step that runs, or ran last. `ended_at` is None while it goes on; `failure` is the reason, or empty."""

    number: int
    name: str
    detail: str
    deadline_s: float | None
    started_at: float
    done: int = 0
    total: int = 0
    counts: Counts = field(default_factory=Counts)
    ended_at: float | None = None
    failure: str = ""
    aside: str = ""
    """How far what goes on beside it is."""

    def elapsed(self, now: float) -> float:
        """Seconds that it has taken so far, or took."""
        return (now if self.ended_at is None else self.ended_at) - self.started_at


@dataclass(slots=True)
class Verdict:
    """What the judge said of a property so far, over all its judgements: broken if one said so, else held if one did."""

    verdict: str = ""
    checked: int = 0
    violations: int = 0


class LogLine(NamedTuple):
    """One line of the log; `at` is UNIX time."""

    at: float
    source: str
    text: str
    tone: Tone


class Outcome(NamedTuple):
    """How the run ended."""

    verdict: str
    exit_code: int | None
    run_dir: str
    replay: str = ""


class Rates(NamedTuple):
    """What a controller does in a second."""

    operations: float
    moved_bytes: float
    sent_bytes: float
    received_bytes: float


class Controller:
    """One controller: its last report, rates from the reports before it, and what its events said since."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.report: ControllerReport | None = None
        self.reported_at = 0.0
        self.stopped = False
        self.link_state = ""
        self.last_sense = ""
        self.history: deque[float] = deque(maxlen=60)
        self._window = RateWindow()
        self._history_at = 0.0

    def take(self, report: ControllerReport, now: float) -> None:
        """A new report replaces the old one."""
        self.report, self.reported_at, self.stopped = report, now, False
        link = report.link
        if link:
            self.link_state = link.state
        self.last_sense = report.last_sense or self.last_sense
        sent, received = (link.sent_bytes, link.received_bytes) if link else (0, 0)
        self._window.add(now, (report.operations, report.moved_bytes, sent, received))
        rates = self.rates(now)
        if rates and now - self._history_at >= _HISTORY_EVERY_S:
            self.history.append(rates.operations)
            self._history_at = now

    def silent_s(self, now: float) -> float:
        """How long it has not answered, 0.0 while answers are fresh."""
        silence = now - self.reported_at
        return silence if self.report is not None and silence > _STALE_S else 0.0

    def rates(self, now: float) -> Rates | None:
        """None when too little is known, or nothing fresh."""
        values = None if self.stopped or self.silent_s(now) else self._window.rates()
        return Rates(*values) if values else None
