"""Who is blamed for a link that is up and of no use."""

from __future__ import annotations

import pytest

from hwvirt.rig.disagreements import Disagreements
from hwvirt.trace import Event


def of(*events: tuple[str, str]) -> tuple[str, ...]:
    """What is told after events, each (name, source)."""
    disagreements = Disagreements()
    for name, source in events:
        disagreements.handle(Event(name, 0.0, source, {"reason": f"{source} has lost its ledger"}))
    return disagreements.told()


def test_a_controller_whose_link_is_not_mended_is_told() -> None:
    told = "controller a: the link is up, and not mended: a has lost its ledger"
    assert of(("link.mend-failed", "a"), ("link.up", "b")) == (told,)


@pytest.mark.parametrize("over", ["link.mended", "link.down", "controller.started"])
def test_what_is_over_is_nobodys_fault_any_more(over: str) -> None:
    assert of(("link.mend-failed", "a"), (over, "a")) == ()
    assert len(of(("link.mend-failed", "a"), (over, "b"))) == 1
    assert len(of(("link.mend-failed", "a"), (over, "a"), ("link.mend-failed", "a"))) == 1
