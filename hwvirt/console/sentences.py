"""Events in plain English, one sentence each: the log pane and the plain lines say the same words."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, NamedTuple

from hwvirt.console.text import clean, cleaned, number
from hwvirt.trace import Event
from hwvirt.units import format_duration

__all__ = ["Sentence", "Tone", "sentence", "violations_in"]


class Tone(Enum):
    """How a sentence is to be taken; the value is its style."""

    PLAIN = ""
    HEADING = "bold"
    GOOD = "green"
    WARNING = "yellow"
    BAD = "bold red"


class Sentence(NamedTuple):
    """What to say, on one line without control characters, and how it is meant."""

    text: str
    tone: Tone


Fields = dict[str, Any]


def sentence(event: Event) -> Sentence:
    """What happened. An event without a sentence of its own is shown as its name and facts."""
    speak = _SENTENCES.get(event.name)
    fields = cleaned(event.fields)
    text, tone = speak(fields) if speak else (f"{event.name} {_facts(fields)}", _tone_of_name(event.name))
    return Sentence(clean(text.strip()), tone)


def violations_in(fields: Fields) -> int:
    """How many violations a verdict tells of: it gives a number, or the violations themselves."""
    violations = fields.get("violations") or 0
    return violations if isinstance(violations, int) else len(violations)


def _facts(fields: Fields) -> str:
    return " ".join(f"{key}={value}" for key, value in fields.items())


def _tone_of_name(name: str) -> Tone:
    if name.endswith(("failed", "error", "lost", "mismatch")):
        return Tone.BAD
    return Tone.WARNING if name.endswith(("refused", "dropped", "stale", "late", "unreachable")) else Tone.PLAIN


def _rig_started(fields: Fields) -> tuple[str, Tone]:
    return f"rig {fields.get('rig', '')}, seed {fields.get('seed', '')}, run {fields.get('run', '')}", Tone.HEADING


def _rig_up(fields: Fields) -> tuple[str, Tone]:
    topology = fields.get("topology")
    if not isinstance(topology, dict) or not isinstance(topology.get("controllers"), dict):
        return "rig is up", Tone.GOOD
    controllers = ", ".join(f"{name} on {disk}" for name, disk in topology["controllers"].items())
    return f"rig is up: host over {topology.get('host')}, {controllers}, link over {topology.get('link')}", Tone.GOOD


def _rig_finished(fields: Fields) -> tuple[str, Tone]:
    code, verdict = fields.get("exit_code"), str(fields.get("verdict", "finished"))
    text = f"{verdict.replace('-', ' ')}, exit code {code}, run folder {fields.get('run_dir', '')}"
    return text, Tone.GOOD if code == 0 else Tone.BAD


def _step_started(fields: Fields) -> tuple[str, Tone]:
    detail, deadline_s = fields.get("detail"), fields.get("deadline_s")
    text = f"{fields.get('name', '')}: {detail}" if detail else str(fields.get("name", ""))
    return f"{text} (within {format_duration(deadline_s)})" if deadline_s else text, Tone.HEADING


def _step_progress(fields: Fields) -> tuple[str, Tone]:
    names = ("acknowledged", "failed", "in_doubt", "reads", "flushes")
    counts = ", ".join(f"{name.replace('_', ' ')} {number(fields[name])}" for name in names if name in fields)
    done = f"{number(fields.get('done', 0))} of {number(fields.get('total', 0))}"
    return f"{done}: {counts}" if counts else done, Tone.PLAIN


def _step_finished(fields: Fields) -> tuple[str, Tone]:
    return f"{fields.get('name', '')} finished in {format_duration(fields.get('elapsed_s', 0.0))}", Tone.GOOD


def _verdict(fields: Fields) -> tuple[str, Tone]:
    verdict, checked = str(fields.get("verdict", "")), number(fields.get("checked") or 0)
    violations = violations_in(fields)
    told = f"{fields.get('property', '')} {verdict.replace('-', ' ')}"
    if violations or verdict == "broken":
        return f"{told}, {number(violations)} violations in {checked} checked", Tone.BAD
    return (f"{told}, {checked} checked", Tone.GOOD) if verdict == "held" else (told, Tone.WARNING)


def _redirect_state(fields: Fields) -> tuple[str, Tone]:
    return f"lun {fields.get('lun', '')} is {fields.get('state', '')}", Tone.PLAIN


_SENTENCES: dict[str, Callable[[Fields], tuple[str, Tone]]] = {
    "rig.started": _rig_started,
    "rig.up": _rig_up,
    "rig.finished": _rig_finished,
    "scenario.started": lambda fields: (f"scenario: {fields.get('name', '')}", Tone.HEADING),
    "step.started": _step_started,
    "step.progress": _step_progress,
    "step.finished": _step_finished,
    "step.failed": lambda fields: (f"{fields.get('name', '')} failed: {fields.get('reason', '')}", Tone.BAD),
    "fault.armed": lambda fields: (f"fault armed: {fields.get('fault', '')}", Tone.PLAIN),
    "fault.fired": lambda fields: (f"fault fired: {fields.get('fault', '')}", Tone.WARNING),
    "fault.healed": lambda fields: (f"fault healed: {fields.get('fault', '')}", Tone.GOOD),
    "judge.verdict": _verdict,
    "link.up": lambda fields: (f"link up with {fields.get('peer', '')}", Tone.GOOD),
    "link.down": lambda fields: (f"link down: {fields.get('reason', '')}", Tone.WARNING),
    "redirect.state": _redirect_state,
    "controller.started": lambda fields: (f"controller started {_facts(fields)}", Tone.GOOD),
    "controller.stopped": lambda fields: (f"controller stopped {_facts(fields)}", Tone.WARNING),
}
