"""junit.xml: a suite for each scenario with its steps, and one with the properties, for build servers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.etree import ElementTree as Xml

from hwvirt.rig.judge.verdict import Outcome
from hwvirt.rig.report.model import PropertyReport, Report, StepReport

__all__ = ["junit"]

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(report: Report) -> bytes:
    """The document. A property that was not checked is an error, never a skipped test: nothing checked is no pass."""
    root = Xml.Element("testsuites", name=_text(report.rig), time=f"{report.elapsed_s:.3f}")
    scenarios: dict[str, list[StepReport]] = {}
    for step in report.steps:
        scenarios.setdefault(step.scenario, []).append(step)
    for name, steps in scenarios.items():
        _suite(root, name, report, [_step_case(name, number, step) for number, step in enumerate(steps, 1)])
    _suite(root, "properties", report, [_property_case(name, found, report) for name, found in report.properties.items()])
    Xml.indent(root)
    document: bytes = Xml.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def _suite(root: Xml.Element, name: str, report: Report, cases: list[Xml.Element]) -> None:
    suite = Xml.SubElement(root, "testsuite", name=_text(name), timestamp=report.started, tests=str(len(cases)))
    for kind in ("failure", "error", "skipped"):
        plural = kind if kind == "skipped" else f"{kind}s"
        suite.set(plural, str(sum(case.find(kind) is not None for case in cases)))
    facts = Xml.SubElement(suite, "properties")
    for key, value in {"seed": str(report.seed), "verdict": report.verdict, **report.provenance}.items():
        Xml.SubElement(facts, "property", name=key, value=_text(value))
    suite.extend(cases)


def _step_case(scenario: str, number: int, step: StepReport) -> Xml.Element:
    name = _text(f"{number} {step.name}")
    case = Xml.Element("testcase", classname=_text(scenario), name=name, time=f"{step.elapsed_s:.3f}")
    if step.blocked:
        Xml.SubElement(case, "skipped", message="an earlier step failed")
    elif step.failure:
        Xml.SubElement(case, "error", message=_text(step.failure))
    return case


def _property_case(name: str, found: PropertyReport, report: Report) -> Xml.Element:
    case = Xml.Element("testcase", classname="properties", name=name)
    if found.verdict == Outcome.BROKEN.value:
        failure = Xml.SubElement(case, "failure", message=f"{found.total} violations in {found.checked} checked")
        failure.text = _text("\n\n".join(_cards_of(name, report)))
    elif found.verdict == Outcome.NOT_CHECKED.value:
        Xml.SubElement(case, "error", message=_text(f"not checked: {found.reason}"))
    return case


def _cards_of(name: str, report: Report) -> Iterable[str]:
    return (card.text() for card in report.cards if card.property == name)


def _text(text: str) -> str:
    """Without the characters that XML 1.0 cannot carry."""
    return _NOT_XML.sub("?", text)
