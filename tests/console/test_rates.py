"""Counters at given times become rates."""

from __future__ import annotations

from hwvirt.console.rates import RateWindow


def test_one_sample_has_no_rate() -> None:
    window = RateWindow()
    assert window.rates() is None
    window.add(1.0, (5,))
    assert window.rates() is None


def test_rates_are_of_each_counter_over_the_window() -> None:
    window = RateWindow(window_s=2.0)
    for quarter in range(40):
        window.add(100 + quarter / 4, (quarter * 250, quarter))
    assert window.rates() == (1000.0, 4.0)


def test_an_old_burst_leaves_the_window() -> None:
    window = RateWindow(window_s=2.0)
    window.add(0.0, (0,))
    window.add(1.0, (8000,))
    for quarter in range(5, 13):
        window.add(quarter / 4, (8000,))
    assert window.rates() == (0.0,)


def test_counters_that_go_back_begin_a_new_window() -> None:
    window = RateWindow()
    window.add(0.0, (1000, 7))
    window.add(1.0, (2000, 8))
    window.add(2.0, (10, 9))
    assert window.rates() is None
    window.add(3.0, (30, 9))
    assert window.rates() == (20.0, 0.0)


def test_a_second_sample_of_the_same_moment_replaces_the_first() -> None:
    window = RateWindow()
    window.add(0.0, (0,))
    window.add(1.0, (10,))
    window.add(1.0, (20,))
    assert window.rates() == (20.0,)


def test_a_clock_set_back_forgets_the_future() -> None:
    window = RateWindow()
    window.add(100.0, (0,))
    window.add(50.0, (10,))
    assert window.rates() is None
    window.add(51.0, (30,))
    assert window.rates() == (20.0,)
