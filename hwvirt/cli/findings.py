"""Findings about a machine, for people and for machines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from enum import Enum
from typing import Any

from rich.table import Table
from rich.text import Text

from hwvirt.cli.machine import Finding, State
from hwvirt.tables import Fit, plain_table, print_table

__all__ = ["show", "show_json"]


def show(findings: Iterable[Finding]) -> None:
    """One line for each finding."""
    print_table(_table(findings), Fit.FOLDED)


def show_json(findings: Iterable[Finding]) -> None:
    """A list of objects with the fields of `Finding`."""
    print(json.dumps([asdict(finding, dict_factory=_plain) for finding in findings], indent=2))


def _table(findings: Iterable[Finding]) -> Table:
    table = plain_table("", "", "found", "missing: what to do")
    for finding in findings:
        missing = finding.state is State.MISSING
        mark = Text("missing", "red") if missing else Text("ok", "green")
        table.add_row(mark, finding.name, finding.detail, f"{finding.advice} ({finding.need.value})" if missing else "")
    return table


def _plain(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value.value if isinstance(value, Enum) else value for key, value in pairs}
