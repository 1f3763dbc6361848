"""What a run leaves behind: its verdict, and a folder with everything that led to it."""

from hwvirt.rig.report.folder import RunFolder
from hwvirt.rig.report.model import PropertyReport, Report, StepReport, summarize
from hwvirt.rig.report.outcome import Decision, decide, unmet, verdict_word
from hwvirt.rig.report.provenance import provenance

__all__ = [
    "Decision",
    "PropertyReport",
    "Report",
    "RunFolder",
    "StepReport",
    "decide",
    "provenance",
    "summarize",
    "unmet",
    "verdict_word",
]
