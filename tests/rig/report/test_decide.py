"""One exit code for a run: broken outweighs everything, and nothing checked is never a pass."""

from __future__ import annotations

import pytest

from hwvirt.errors import ExitCode
from hwvirt.rig.file.scenario import Counter, Expectation, Relation
from hwvirt.rig.judge.verdict import Outcome, Property, Verdict
from hwvirt.rig.report import decide, unmet, verdict_word

HELD = Verdict(Property.CONTENT, Outcome.HELD, 10)
BROKEN = Verdict(Property.EXACT, Outcome.BROKEN, 10, total=1)
NOT_CHECKED = Verdict(Property.CONSISTENT, Outcome.NOT_CHECKED, 0, reason="no read was answered")
ENOUGH = Expectation(Counter.ACKNOWLEDGED, Relation.AT_LEAST, 100)
COUNTS = {"acknowledged": 100}
INTERRUPTED = (ExitCode.INTERRUPTED, ("interrupted by the user",))
HUNG = (ExitCode.INFRASTRUCTURE, ("controller a did not stop within 5s", "controller b did not stop within 5s"))


def test_held_properties_and_met_expectations_pass() -> None:
    assert decide([HELD], unmet([ENOUGH], COUNTS)) == (ExitCode.PASSED, ())


def test_no_property_at_all_is_no_pass() -> None:
    assert decide([]) == (ExitCode.NOTHING_RAN, ("no property was judged",))


def test_a_property_that_was_not_checked_is_no_pass() -> None:
    decision = decide([HELD, NOT_CHECKED])
    assert decision == (ExitCode.NOTHING_RAN, ("consistent was not checked: no read was answered",))


@pytest.mark.parametrize("counts", [{"acknowledged": 99}, {}])
def test_less_than_expected_is_no_pass(counts: dict[str, int]) -> None:
    reason = f"expected acknowledged >= 100, counted {counts.get('acknowledged', 0)}"
    assert decide([HELD], unmet([ENOUGH], counts)) == (ExitCode.NOTHING_RAN, (reason,))
    assert unmet([ENOUGH], counts, "a story") == [f"{reason} in scenario 'a story'"]


@pytest.mark.parametrize("failure", [None, INTERRUPTED, HUNG])
def test_a_broken_property_outweighs_everything(failure: tuple[ExitCode, tuple[str, ...]] | None) -> None:
    decision = decide([HELD, BROKEN, NOT_CHECKED, BROKEN], unmet([ENOUGH], {}), failure)
    assert decision == (ExitCode.BROKEN, ("exact is broken",))


@pytest.mark.parametrize("failure", [INTERRUPTED, HUNG])
def test_what_ended_the_run_outweighs_what_was_not_checked(failure: tuple[ExitCode, tuple[str, ...]]) -> None:
    assert decide([HELD], unmet([ENOUGH], {}), failure) == failure


def test_every_exit_code_has_its_word() -> None:
    assert [verdict_word(code) for code in ExitCode] == [
        "passed",
        "broken",
        "usage",
        "refused",
        "infrastructure",
        "nothing-ran",
        "interrupted",
        "unread",
    ]
