"""What the console knows: events and status replies go in, facts come out. Pure: time is an argument, nothing is printed."""

from __future__ import annotations

from collections import deque
from dataclasses import fields
from typing import Any

import msgspec

from hwvirt.console.facts import Controller, Counts, LogLine, Outcome, Step, Topology, Verdict
from hwvirt.console.report import LunReport, read_report
from hwvirt.console.sentences import Tone, sentence, violations_in
from hwvirt.console.text import clean, cleaned, number
from hwvirt.trace import Event

__all__ = ["PROGRESS", "PROPERTIES", "ConsoleModel"]

PROGRESS = ("step.progress", "backup.progress")
"""Events that are shown in passing and not told: there are many."""

PROPERTIES = (
    "untouched",
    "complete",
    "exact",
    "content",
    "consistent",
    "durable",
    "fenced",
    "frozen",
    "settled",
    "conserved",
)
"""What the judge can prove, in the order in which it is shown."""


class ConsoleModel:
    """All that is shown: of a run (`running`), or of controllers alone.

    Text that comes in is made harmless here: nothing stored can steer a terminal.
    """

    def __init__(self, log_lines: int = 64) -> None:
        self.rig = self.seed = self.run = self.scenario = ""
        self.running = False
        self.started_at: float | None = None
        self.topology = Topology()
        self.controllers: dict[str, Controller] = {}
        self.step: Step | None = None
        self.faults: dict[str, str] = {}
        self.verdicts: dict[str, Verdict] = {}
        self.log: deque[LogLine] = deque(maxlen=log_lines)
        self.cards: list[str] = []
        self.failures: list[str] = []
        self.outcome: Outcome | None = None
        self._finished_counts = Counts()
        self._final_counts: Counts | None = None

    @property
    def counts(self) -> Counts:
        """Over all steps: as they tell, and at the end as the run has counted them."""
        if self._final_counts is not None:
            return self._final_counts
        return self._finished_counts + (self.step.counts if self.step else Counts())

    @property
    def broken(self) -> list[str]:
        """Names of the properties that are broken."""
        return [name for name, verdict in self.verdicts.items() if verdict.verdict == "broken"]

    @property
    def first_volume(self) -> tuple[str, LunReport] | None:
        """The first volume that is being redirected, and the name of its controller."""
        for name, controller in self.controllers.items():
            lun = controller.report.redirected if controller.report else None
            if lun:
                return name, lun
        return None

    def elapsed(self, now: float) -> float:
        """Seconds since the rig started; without a rig, since the first controller that was seen did."""
        return 0.0 if self.started_at is None else max(0.0, now - self.started_at)

    def status(self, name: str, raw: dict[str, Any], now: float) -> None:
        """A controller's status reply. One that cannot be read becomes a log line."""
        controller = self._controller(clean(name))
        try:
            report = read_report(raw)
        except ValueError as error:
            self.note(now, controller.name, f"status reply cannot be read: {error}", Tone.WARNING)
            return
        if self.started_at is None:
            self.started_at = now - report.uptime_s
        controller.take(report, now)

    def note(self, at: float, source: str, text: str, tone: Tone) -> None:
        """A line for the log; the same line again is not repeated."""
        entry = LogLine(at, clean(source), clean(text), tone)
        if not self.log or self.log[-1][1:] != entry[1:]:
            self.log.append(entry)

    def apply(self, event: Event) -> None:
        """Something happened."""
        if event.name not in PROGRESS:
            self.note(event.at, event.source, *sentence(event))
        facts = cleaned(event.fields)
        layer, _, what = event.name.partition(".")
        if layer in ("rig", "scenario"):
            self._apply_rig(event.name, event.at, facts)
        elif layer == "step":
            self._apply_step(what, event.at, facts)
        elif event.name == "backup.progress":
            self._apply_aside(facts)
        elif layer == "fault":
            self.faults[str(facts.get("fault", ""))] = what
        elif event.name == "judge.verdict":
            self._apply_verdict(facts)
        elif (source := str(facts.get("controller", clean(event.source)))) in self.controllers:
            self._apply_controller(event.name, self.controllers[source], facts)
        self._take_cards(event.fields)

    def _apply_rig(self, name: str, at: float, facts: dict[str, Any]) -> None:
        if name == "rig.started":
            self.running, self.started_at = True, at
            self.rig, self.seed, self.run = (str(facts.get(key, "")) for key in ("rig", "seed", "run"))
        elif name == "rig.up":
            try:
                self.topology = msgspec.convert(facts.get("topology"), Topology)
            except msgspec.ValidationError:
                return  # told in other words; the status replies draw the picture then
            for controller in self.topology.controllers:
                self._controller(controller)
        elif name == "scenario.started":
            self.scenario = str(facts.get("name", ""))
        elif name == "rig.finished":
            verdict = str(facts.get("verdict", "")).replace("-", " ")
            run_dir, replay = (str(facts.get(key, "")) for key in ("run_dir", "replay"))
            self.outcome = Outcome(verdict, facts.get("exit_code"), run_dir, replay)
            if isinstance(counts := facts.get("counts"), dict):
                self._final_counts = _counts(counts, self.counts)
            self.failures += [reason for reason in map(str, facts.get("reasons", ())) if reason not in self.failures]

    def _apply_step(self, what: str, at: float, facts: dict[str, Any]) -> None:
        name = str(facts.get("name", ""))
        if what == "started":
            number = self.step.number + 1 if self.step else 1
            self._finished_counts = self.counts
            self.step = Step(number, name, str(facts.get("detail", "")), facts.get("deadline_s"), at)
        elif what == "failed":
            self.failures.append(f"{name} failed: {facts.get('reason', '')}")
        step = self.step
        if step is None:
            return
        if what == "progress":
            step.done, step.total = facts.get("done", step.done), facts.get("total", step.total)
            step.counts = _counts(facts, step.counts)
        elif what in ("finished", "failed"):
            step.ended_at = at
            step.failure = str(facts.get("reason", "")) if what == "failed" else ""

    def _apply_aside(self, facts: dict[str, Any]) -> None:
        if self.step is not None:
            done, total = (number(facts.get(key, 0)) for key in ("done", "total"))
            self.step.aside = f"backup {facts.get('number', '')}: {done} of {total} blocks"

    def _apply_verdict(self, facts: dict[str, Any]) -> None:
        verdict = self.verdicts.setdefault(str(facts.get("property", "")), Verdict())
        verdict.checked += facts.get("checked", 0)
        verdict.violations += violations_in(facts)
        told = "broken" if verdict.violations else str(facts.get("verdict", "")).replace("-", " ")
        verdict.verdict = next((worst for worst in ("broken", "held") if worst in (verdict.verdict, told)), told)

    def _apply_controller(self, name: str, controller: Controller, facts: dict[str, Any]) -> None:
        if name in ("link.up", "link.down"):
            controller.link_state = name.removeprefix("link.")
        elif name in ("controller.started", "controller.stopped"):
            controller.stopped = name == "controller.stopped"
        controller.last_sense = str(facts.get("sense", controller.last_sense))

    def _take_cards(self, facts: dict[str, Any]) -> None:
        cards = facts.get("cards", facts.get("card", ()))
        for card in [cards] if isinstance(cards, str) else cards:
            text = "\n".join(clean(row) for row in str(card).splitlines())
            if text not in self.cards:
                self.cards.append(text)

    def _controller(self, name: str) -> Controller:
        return self.controllers.setdefault(name, Controller(name))


def _counts(facts: dict[str, Any], known: Counts) -> Counts:
    """The counts among the facts; where they tell none, as it is known."""
    return Counts(**{f.name: facts.get(f.name, getattr(known, f.name)) for f in fields(Counts)})
