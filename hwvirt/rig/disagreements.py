"""Controllers that are connected and cannot agree: they go on trying, and who waits for them in vain is told why."""

from __future__ import annotations

from hwvirt.trace import Event

__all__ = ["Disagreements"]

_OVER = ("link.mended", "link.down", "controller.started")


class Disagreements:
    """What their events tell, as of now."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {}

    def handle(self, event: Event) -> None:
        """Something happened."""
        if event.name == "link.mend-failed":
            self._reasons[event.source] = str(event.fields.get("reason", ""))
        elif event.name in _OVER:
            self._reasons.pop(event.source, None)

    def told(self) -> tuple[str, ...]:
        """A sentence for each controller whose link is up and not mended."""
        return tuple(f"controller {name}: the link is up, and not mended: {why}" for name, why in self._reasons.items())
