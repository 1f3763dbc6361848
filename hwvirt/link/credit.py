"""Open requests of one direction, and how many more the granting side allows."""

from __future__ import annotations

from hwvirt.link.config import LinkLimits

__all__ = ["Credit"]


class Credit:
    """Requests by tag until they are answered. Both sides keep one for each direction and so agree on what is open."""

    def __init__(self, limits: LinkLimits) -> None:
        self._limits = limits
        self._open: dict[int, tuple[int, int]] = {}
        self._open_bytes = 0

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, tag: int) -> bool:
        return tag in self._open

    def covers(self, cost_bytes: int) -> bool:
        """Whether one more request of that cost is within the limits."""
        limits = self._limits
        return len(self._open) < limits.requests and self._open_bytes + cost_bytes <= limits.request_bytes

    def take(self, tag: int, kind: int, cost_bytes: int) -> None:
        """A request is open from now on."""
        self._open[tag] = kind, cost_bytes
        self._open_bytes += cost_bytes

    def give_back(self, tag: int) -> int | None:
        """A request was answered: its kind; None when no such request is open."""
        entry = self._open.pop(tag, None)
        if entry is None:
            return None
        self._open_bytes -= entry[1]
        return entry[0]
