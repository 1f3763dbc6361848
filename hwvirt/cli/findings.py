"""Findings about a machine, for people and for machines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from enum import Enum
from typing import Any

from rich.console import Console
from rich.table import Table

from hwvirt.cli.machine import Finding, State

__all__ = ["show", "show_json"]


def show(findings: Iterable[Finding]) -> None:
    """One line for each finding."""
    Console(highlight=False).print(_table(findings))


def show_json(findings: Iterable[Finding]) -> None:
    """A list of objects with the fields of `Finding`."""
    print(json.dumps([asdict(finding, dict_factory=_plain) for finding in findings], indent=2))


def _table(findings: Iterable[Finding]) -> Table:
    table = Table("", "", "found", "missing: what to do", box=None, padding=(0, 2, 0, 0))
    for finding in findings:
        missing = finding.state is State.MISSING
        mark = "[red]missing[/]" if missing else "[green]ok[/]"
        table.add_row(mark, finding.name, finding.detail, f"{finding.advice} ({finding.need.value})" if missing else "")
    return table


def _plain(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value.value if isinstance(value, Enum) else value for key, value in pairs}
