"""The judge: evidence in, one verdict for each property out."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hwvirt.rig.judge.case import Case
from hwvirt.rig.judge.complete import complete
from hwvirt.rig.judge.conserved import conserved
from hwvirt.rig.judge.consistent import consistent, durable, fenced
from hwvirt.rig.judge.content import content
from hwvirt.rig.judge.evidence import Evidence
from hwvirt.rig.judge.exact import exact
from hwvirt.rig.judge.frozen import frozen
from hwvirt.rig.judge.settled import settled
from hwvirt.rig.judge.untouched import untouched
from hwvirt.rig.judge.verdict import Property, Verdict

__all__ = ["judge"]

_PROPERTIES: dict[Property, Callable[[Case], Verdict]] = {
    Property.UNTOUCHED: untouched,
    Property.COMPLETE: complete,
    Property.EXACT: exact,
    Property.CONTENT: content,
    Property.CONSISTENT: consistent,
    Property.DURABLE: durable,
    Property.FENCED: fenced,
    Property.FROZEN: frozen,
    Property.SETTLED: settled,
    Property.CONSERVED: conserved,
}


def judge(evidence: Evidence, properties: Iterable[Property] = Property) -> list[Verdict]:
    """A verdict for each of the properties, in their order. Reads disks through the evidence's readers; raises DiskError."""
    case = Case(evidence)
    return [_PROPERTIES[name](case) for name in properties]
