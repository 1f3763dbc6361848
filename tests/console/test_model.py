"""Events and status replies go in, facts come out."""

from __future__ import annotations

import pytest

from hwvirt.console.facts import Counts
from hwvirt.console.model import ConsoleModel
from hwvirt.console.sentences import Tone

from .consolekit import REPORT_A, START, busy, event, told_run


def test_rates_come_from_two_reports_and_their_times() -> None:
    model = ConsoleModel()
    model.status("a", REPORT_A, START)
    assert model.controllers["a"].rates(START) is None
    model.status("a", busy(REPORT_A, 500), START + 0.5)
    rates = model.controllers["a"].rates(START + 0.5)
    assert rates == (1000.0, 1000 * 8 * 4096, 1000 * 8 * 4096, 0.0)


def test_a_controller_that_stops_answering_has_no_rates_and_is_silent() -> None:
    model = told_run()
    controller = model.controllers["a"]
    assert controller.rates(START + 12.5) is not None
    assert controller.silent_s(START + 12.5) == 0.0
    assert controller.rates(START + 15) is None
    assert controller.silent_s(START + 15) == pytest.approx(3.0)


def test_a_restarted_controller_begins_its_rates_anew() -> None:
    model = told_run()
    model.status("a", REPORT_A, START + 12.25)
    assert model.controllers["a"].rates(START + 12.25) is None


def test_counts_are_of_all_steps() -> None:
    assert told_run().counts == Counts(8024, 2, 31, 3700, 601)


def test_a_step_keeps_its_own_time_and_progress() -> None:
    step = told_run().step
    assert step is not None
    assert (step.number, step.name, step.done, step.total) == (2, "workload", 12400, 20000)
    assert step.elapsed(START + 12) == pytest.approx(8.0)


def test_a_failed_step_stops_its_clock_and_is_remembered() -> None:
    model = told_run()
    model.apply(event(11, "step.failed", name="workload", reason="deadline passed"))
    assert model.step is not None
    assert model.step.elapsed(START + 50) == pytest.approx(7.0)
    assert model.failures == ["workload failed: deadline passed"]


def test_a_property_broken_once_stays_broken_and_what_was_checked_adds_up() -> None:
    model = ConsoleModel()
    for verdict, violations in (("held", 0), ("broken", [{"lba": 7}, {"lba": 8}]), ("held", 0)):
        model.apply(event(1, "judge.verdict", property="content", verdict=verdict, checked=10, violations=violations))
    content = model.verdicts["content"]
    assert (content.verdict, content.checked, content.violations) == ("broken", 30, 2)
    assert model.broken == ["content"]


def test_a_broken_verdict_without_a_count_is_broken_for_good() -> None:
    model = ConsoleModel()
    for verdict in ("broken", "held"):
        model.apply(event(1, "judge.verdict", property="fenced", verdict=verdict, checked=10, violations=0))
    assert model.broken == ["fenced"]


def test_what_was_held_once_is_not_undone_by_a_judgement_that_checked_nothing() -> None:
    model = ConsoleModel()
    for verdict, checked in (("not-checked", 0), ("held", 10), ("not-checked", 0)):
        model.apply(event(1, "judge.verdict", property="fenced", verdict=verdict, checked=checked, violations=0))
    assert (model.verdicts["fenced"].verdict, model.verdicts["fenced"].checked) == ("held", 10)
    assert [entry.text for entry in model.log] == ["fenced not checked", "fenced held, 10 checked", "fenced not checked"]


def test_the_reasons_of_a_run_join_the_failures_of_its_steps() -> None:
    model = ConsoleModel()
    model.apply(event(1, "step.failed", name="fill", reason="disk gone"))
    reasons = ["fill failed: disk gone", "no property was judged"]
    model.apply(event(2, "rig.finished", verdict="nothing-ran", exit_code=5, run_dir="runs/x", reasons=reasons))
    assert model.failures == reasons
    assert model.outcome is not None
    assert model.outcome.verdict == "nothing ran"


def test_faults_keep_their_last_state() -> None:
    assert told_run().faults == {"link cut": "healed"}


def test_a_link_event_is_believed_until_the_next_report() -> None:
    model = told_run()
    model.apply(event(12, "link.down", "a", reason="gone"))
    assert model.controllers["a"].link_state == "down"
    model.status("a", busy(REPORT_A, 3000), START + 12.5)
    assert model.controllers["a"].link_state == "up"


def test_the_last_sense_comes_from_any_event_of_the_controller_that_tells_one() -> None:
    model = told_run()
    model.apply(event(12, "unit.failed", "a", lba=7, sense="MEDIUM ERROR 11/00 at 7"))
    model.status("a", busy(REPORT_A, 3000), START + 12.5)
    assert model.controllers["a"].last_sense == "MEDIUM ERROR 11/00 at 7"


def test_disks_that_go_and_come_are_told_in_words() -> None:
    model = told_run()
    model.apply(event(12, "disk.removed", "b", disk="/dev/sg1"))
    assert model.log[-1][1:] == ("b", "disk /dev/sg1 was pulled: every request fails now", Tone.BAD)
    model.apply(event(13, "disk.added", "b", node="/dev/sg2", wwn="naa.5000c500aabb0011", serial=""))
    assert model.log[-1].text == "a disk came: /dev/sg2 (wwn naa.5000c500aabb0011)"
    model.apply(event(14, "disk.added", "b", node="/dev/sg3", wwn="", serial=""))
    assert model.log[-1].text == "a disk came: /dev/sg3 (without a name)"


def test_events_of_strangers_make_no_controller() -> None:
    model = told_run()
    model.apply(event(12, "controller.stopped", "rig", code=0))
    assert list(model.controllers) == ["a", "b"]
    model.apply(event(12, "controller.stopped", "rig", controller="b"))
    assert model.controllers["b"].stopped


def test_a_report_that_cannot_be_read_is_one_log_line_and_keeps_the_last_good_one() -> None:
    model = told_run()
    before = model.controllers["a"].report
    for _ in range(3):
        model.status("a", {"luns": "none"}, START + 13)
    assert model.controllers["a"].report is before
    assert model.log[-1].text == "status reply cannot be read: Expected `array`, got `str` - at `$.luns`"
    assert model.log[-2].text != model.log[-1].text


def test_an_empty_report_is_a_report() -> None:
    model = ConsoleModel()
    model.status("x", {}, START)
    model.status("x", {"link": None, "luns": [{}], "disk": {}}, START + 1)
    assert model.controllers["x"].rates(START + 1) == (0.0, 0.0, 0.0, 0.0)


def test_progress_is_no_log_line_and_unknown_events_are_told_with_their_facts() -> None:
    model = ConsoleModel()
    model.apply(event(1, "step.progress", done=1, total=2))
    model.apply(event(2, "store.free-refused", "b", blocks=3))
    model.apply(event(3, "store.digest-mismatch", "b", position=7))
    assert [(entry.text, entry.tone) for entry in model.log] == [
        ("store.free-refused blocks=3", Tone.WARNING),
        ("store.digest-mismatch position=7", Tone.BAD),
    ]


def test_cards_are_kept_line_by_line_without_what_steers_a_terminal() -> None:
    model = ConsoleModel()
    card = "lba 7\n\x1b[2Jfound"
    model.apply(event(1, "judge.verdict", property="content", verdict="broken", checked=1, violations=1, card=card))
    model.apply(event(2, "rig.finished", verdict="broken", exit_code=1, run_dir="runs/x", cards=[card, "lba 8"]))
    assert model.cards == ["lba 7\n\\x1b[2Jfound", "lba 8"]


def test_a_topology_in_other_words_is_left_to_the_reports() -> None:
    model = ConsoleModel()
    model.apply(event(0, "rig.up", topology="host to a to b"))
    assert model.controllers == {}
    assert model.log[-1].text == "rig is up"
