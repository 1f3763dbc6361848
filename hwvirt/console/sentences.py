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
    """What happened. An event without a sentence of its own, or without its facts, is shown as its name and facts."""
    text, tone = _told(event.name, cleaned(event.fields))
    return Sentence(clean(text.strip()), tone)


def _told(name: str, fields: Fields) -> tuple[str, Tone]:
    if speak := _SENTENCES.get(name):
        return speak(fields)
    try:
        template, tone = _TEMPLATES[name]
        return template.format_map(fields), tone
    except (KeyError, ValueError):
        return f"{name} {_facts(fields)}", _tone_of_name(name)


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


def _controller_started(fields: Fields) -> tuple[str, Tone]:
    port = fields.get("nbd_port")
    where = f"NBD on port {port}" if port else "no LUNs for hosts"
    return f"controller started: pid {fields.get('pid')}, {where}", Tone.GOOD


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


def _backup_read(fields: Fields) -> tuple[str, Tone]:
    passes, wrong = fields.get("passes", 0), fields.get("mismatches", 0)
    times = "once" if passes == 1 else f"{number(passes)} times"
    told = f"backup of {fields.get('lun', '')}: read {times}, {number(fields.get('blocks', 0))} blocks"
    return f"{told}, {number(wrong)} mismatches", Tone.BAD if wrong else Tone.GOOD


def _disk_added(fields: Fields) -> tuple[str, Tone]:
    names = (f"{key} {fields[key]}" for key in ("wwn", "serial") if fields.get(key))
    return f"a disk came: {fields.get('node', '')} ({', '.join(names) or 'without a name'})", Tone.PLAIN


_SENTENCES: dict[str, Callable[[Fields], tuple[str, Tone]]] = {
    "rig.started": _rig_started,
    "rig.up": _rig_up,
    "rig.finished": _rig_finished,
    "controller.started": _controller_started,
    "step.started": _step_started,
    "step.progress": _step_progress,
    "step.finished": _step_finished,
    "judge.verdict": _verdict,
    "backup.read": _backup_read,
    "disk.added": _disk_added,
}
_TEMPLATES: dict[str, tuple[str, Tone]] = {
    "rig.failed": ("failed: {reason}", Tone.BAD),
    "rig.closing": ("interrupted, but everything is being taken down already", Tone.WARNING),
    "scenario.started": ("scenario: {name}", Tone.HEADING),
    "step.failed": ("{name} failed: {reason}", Tone.BAD),
    "fault.armed": ("fault armed: {fault}", Tone.PLAIN),
    "fault.fired": ("fault fired: {fault}", Tone.WARNING),
    "fault.healed": ("fault healed: {fault}", Tone.GOOD),
    "backup.mismatch": ("backup {number} of {lun}: block {lba} is not the original", Tone.BAD),
    "lab.up": ("kernel {kernel} is up after {up_s:.1f}s", Tone.PLAIN),
    "lab.power-cut": ("power of kernel {kernel} is cut", Tone.WARNING),
    "lab.off": ("kernel {kernel} is off", Tone.PLAIN),
    "disk.admitted": ("disk {disk} is {node}: {identity}", Tone.PLAIN),
    "disk.faults": ("disk {disk}: commands met by its faults: {struck}", Tone.PLAIN),
    "disk.removed": ("disk {disk} was pulled: every request fails now", Tone.BAD),
    "controller.stopped": ("controller stopped: pid {pid}", Tone.PLAIN),
    "controller.flush-failed": ("{what} could not be flushed before the end: {reason}", Tone.BAD),
    "control.failed": ("{verb} failed: {reason}", Tone.BAD),
    "service.failed": ("{request} failed: {reason}", Tone.BAD),
    "redirect.state": ("lun {lun} is {state}", Tone.PLAIN),
    "redirect.waiting": ("lun {lun} waits for the link, {state}", Tone.WARNING),
    "redirect.sent-again": ("lun {lun}: sent again what the store may have lost", Tone.WARNING),
    "store.digest-mismatch": ("position {position} of generation {generation}: not the data that was written", Tone.BAD),
    "store.free-refused": ("{blocks} blocks of volume {volume} were to be given up and are not known", Tone.WARNING),
    "link.started": ("link: {role} {place}", Tone.PLAIN),
    "link.up": ("link up with {peer}", Tone.GOOD),
    "link.down": ("link down: {reason}", Tone.WARNING),
    "link.unreachable": ("{reason}", Tone.WARNING),
    "link.refused": ("{reason}", Tone.WARNING),
    "link.mended": ("link mended", Tone.GOOD),
    "link.mend-failed": ("link is up, and not mended: {reason}", Tone.BAD),
    "nbd.connected": ("host {peer} connected", Tone.PLAIN),
    "nbd.opened": ("host {peer} opened {export}", Tone.PLAIN),
    "nbd.disconnected": ("host {peer} left: {reason}", Tone.PLAIN),
    "nbd.dropped": ("host {peer} was cut off: {reason}", Tone.WARNING),
    "nbd.failed": ("host {peer}, {export}: internal error: {reason}", Tone.BAD),
}
