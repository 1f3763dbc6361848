"""Counters become rates: a short window of samples, given times, no clock."""

from __future__ import annotations

from collections import deque

__all__ = ["RateWindow"]


class RateWindow:
    """Rates of several counters over the last `window_s` seconds.

    Counters that go back, as after a restart, begin a new window; a sample replaces those that claim to be of its future.
    """

    def __init__(self, window_s: float = 2.0) -> None:
        self._window_s = window_s
        self._samples: deque[tuple[float, tuple[int, ...]]] = deque()

    def add(self, now: float, totals: tuple[int, ...]) -> None:
        """The counters stood at `totals` at `now` (seconds)."""
        samples = self._samples
        while samples and samples[-1][0] >= now:
            samples.pop()
        if samples and any(new < old for new, old in zip(totals, samples[-1][1], strict=True)):
            samples.clear()
        samples.append((now, totals))
        while len(samples) > 2 and samples[1][0] <= now - self._window_s:
            samples.popleft()

    def rates(self) -> tuple[float, ...] | None:
        """Each counter's rise in a second; None until two samples are there."""
        if len(self._samples) < 2:
            return None
        (start, first), (end, last) = self._samples[0], self._samples[-1]
        return tuple((new - old) / (end - start) for new, old in zip(last, first, strict=True))
