"""How fast a launcher may talk on a serial line of a guest."""

from __future__ import annotations

__all__ = ["Pacer"]

_BURST_BYTES = 1024
_BURST_S = 0.02


class Pacer:
    """When the last bit of some bytes has gone over a line of `bytes_per_s`. After a pause it may catch up by a short burst,
    because who sleeps wakes up late. Pure: time comes as an argument."""

    def __init__(self, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s
        self._busy_until = 0.0

    def gone_at(self, size_bytes: int, now: float) -> float:
        """The moment when `size_bytes`, given to the line now, have gone."""
        start = max(self._busy_until, now - min(_BURST_S, _BURST_BYTES / self.bytes_per_s))
        self._busy_until = start + size_bytes / self.bytes_per_s
        return self._busy_until
