"""The correlation strip of the first volume and the room on the second."""

from __future__ import annotations

from itertools import pairwise

from rich.text import Text

from hwvirt.console.model import ConsoleModel
from hwvirt.console.report import StoreReport
from hwvirt.console.text import line, number

__all__ = ["find_store", "store_bar", "store_facts", "store_line", "strip_cells", "strip_facts", "strip_line"]

_COLD, _HOT = (58, 116, 164), (72, 222, 208)


def strip_cells(strip: list[float], width: int) -> Text:
    """The whole strip, each cell repeated as often as `width` allows, or joined to the mean where it is too narrow."""
    if not strip or width < 1:
        return Text()
    if len(strip) > width:
        edges = [round(index * len(strip) / width) for index in range(width + 1)]
        strip = [sum(strip[a:b]) / (b - a) for a, b in pairwise(edges)]
    repeat = width // len(strip)
    return line(*((_shade(fraction) * repeat, _colour(fraction)) for fraction in strip))


def strip_facts(model: ConsoleModel) -> tuple[Text, Text]:
    """Which volume the strip shows, and how much of it is redirected."""
    found = model.first_volume
    if found is None:
        return line(("first volume", "dim")), line(("nothing is redirected", "dim"))
    name, lun = found
    share = lun.mapped_blocks / lun.blocks if lun.blocks else 0.0
    left = line((f"{name} lun {lun.lun}", "bold"), ("  where the newest version lies: · first disk  █ second disk", "dim"))
    mapped = f"{number(lun.mapped_blocks)} of {number(lun.blocks)} blocks  "
    return left, line((mapped, "dim"), (f"{share:.0%}", "bold bright_cyan"))


def strip_line(model: ConsoleModel, width: int) -> Text:
    """One line: the strip between its name and its share."""
    found = model.first_volume
    if found is None:
        return line(("map   nothing is redirected", "dim"))
    lun = found[1]
    share = f"{lun.mapped_blocks / lun.blocks if lun.blocks else 0.0:>4.0%}"
    return line(("map   ", "dim"), strip_cells(lun.strip, width - 12), "  ", (share, "bold bright_cyan"))


def store_facts(store: StoreReport) -> Text:
    """The numbers of the store."""
    return line(
        ("█ ", "bright_cyan"), _count("live", store.live), "  ",
        ("▓ ", "yellow"), _count("freed", store.freed), "  ",
        ("░ ", "bright_black"), _count("free", store.free), "  ",
        ("lap ", "dim"), number(store.lap),
    )  # fmt: skip


def _count(name: str, count: int) -> Text:
    """A count before its quiet name."""
    return line(number(count), (f" {name}", "dim"))


def store_bar(store: StoreReport, width: int) -> Text:
    """The room on the second disk: live, freed but not yet reusable, free; what exists is at least one cell wide."""
    total = max(1, store.live + store.freed + store.free)
    freed = max(min(1, store.freed), round(store.freed / total * width))
    live = max(min(1, store.live), min(round(store.live / total * width), width - freed))
    freed = min(freed, width - live)
    return line(("█" * live, "bright_cyan"), ("▓" * freed, "yellow"), ("░" * (width - live - freed), "bright_black"))


def store_line(model: ConsoleModel, width: int) -> Text:
    """One line: name, bar and numbers of the first store that a controller tells of."""
    store = find_store(model)
    if store is None:
        return line(("store not told of yet", "dim"))
    facts = store_facts(store)
    return line(("store ", "dim"), store_bar(store, max(4, width - facts.cell_len - 8)), "  ", facts)


def find_store(model: ConsoleModel) -> StoreReport | None:
    """The first store that a controller tells of."""
    reports = (controller.report for controller in model.controllers.values())
    return next((report.store for report in reports if report and report.store), None)


def _shade(fraction: float) -> str:
    if fraction <= 0:
        return "·"
    return "░▒▓"[int(fraction * 3)] if fraction < 1 else "█"


def _colour(fraction: float) -> str:
    if fraction <= 0:
        return "bright_black"
    red, green, blue = (round(cold + (hot - cold) * min(1.0, fraction)) for cold, hot in zip(_COLD, _HOT, strict=True))
    return f"rgb({red},{green},{blue})"
