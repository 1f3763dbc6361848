"""The whole view as one renderable: model, time and size in, lines out. Wide terminals get panes, others dense lines."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hwvirt.console.model import ConsoleModel
from hwvirt.console.panels.controllers import controller_pane, controller_table
from hwvirt.console.panels.frame import framed, rule
from hwvirt.console.panels.header import header
from hwvirt.console.panels.link import link_line, link_pane
from hwvirt.console.panels.log import faults_line, log_rows
from hwvirt.console.panels.step import step_rows, step_title
from hwvirt.console.panels.topology import topology_line, topology_picture
from hwvirt.console.panels.verdicts import verdict_rows, verdict_table
from hwvirt.console.panels.volume import find_store, store_bar, store_facts, store_line, strip_cells, strip_facts, strip_line
from hwvirt.console.text import line

__all__ = ["narrow", "view", "wide"]

_WIDE_FROM = (120, 38)
_LINK_WIDTH = 30
_PANE_HEIGHT = 13
_VERDICT_WIDTH = 36


def view(model: ConsoleModel, now: float, width: int, height: int) -> RenderableType:
    """What fills a terminal of `width` x `height` cells: at most `height` lines, none longer than `width`."""
    panes = width >= _WIDE_FROM[0] and height >= _WIDE_FROM[1] and len(model.controllers) <= 2
    return wide(model, now, width, height) if panes else narrow(model, now, width, height)


def narrow(model: ConsoleModel, now: float, width: int, height: int) -> Group:
    """One line for each fact; the log takes what is left."""
    groups = [
        [header(model, now, width)],
        [step_title(model), *step_rows(model, now, width)] if model.running else [],
        [topology_line(model, now, width), *controller_table(model, now, width)],
        [
            link_line(model, now, width),
            *([strip_line(model, width)] if model.running or model.first_volume else []),
            *([store_line(model, width)] if model.running or find_store(model) else []),
        ],
        verdict_rows(model, width) if model.running else [],
    ]
    groups = [group for group in groups if group]
    spare = height - sum(map(len, groups)) - 1 - 8
    rows: list[Text] = []
    for index, group in enumerate(groups):
        if index and spare >= len(groups) - index:
            rows.append(Text())
            spare -= 1
        rows.extend(group)
    rows.append(rule(line(("events", "bold")), faults_line(model, width - 16) if model.running else Text(), width))
    rows.extend(log_rows(model, height - len(rows), width))
    for row in rows:
        row.truncate(width, overflow="ellipsis")
    return Group(*rows[:height])


def wide(model: ConsoleModel, now: float, width: int, height: int) -> Group:
    """Panes: the bench in the middle, what it does above, what is proven and what happened below."""
    inner = width - 4
    parts: list[RenderableType] = [line(" ", header(model, now, width - 2))]
    used = 1
    if model.running:
        parts.append(framed(step_rows(model, now, inner), step_title(model), width))
        used += 5
    roomy = height >= _WIDE_FROM[1] + 2
    bench = topology_picture(model, now, width) if roomy else [line(" ", topology_line(model, now, width - 2))]
    parts += [*bench, _bench(model, now, width)]
    used += len(bench) + _PANE_HEIGHT
    if model.running or model.first_volume:
        parts.append(_strip(model, width))
        used += 3
    store = find_store(model)
    if store:
        parts.append(framed([store_bar(store, inner)], line(("store", "bold")), width, foot=store_facts(store)))
        used += 3
    parts.append(_events_and_verdicts(model, width, max(3, height - used)))
    return Group(*parts)


def _bench(model: ConsoleModel, now: float, width: int) -> Table:
    controllers = list(model.controllers.values())
    room = width - _LINK_WIDTH
    first = (room + 1) // 2 if len(controllers) > 1 else room
    panes: list[RenderableType] = [link_pane(model, now, _LINK_WIDTH, _PANE_HEIGHT)]
    for index, controller in enumerate(controllers):
        pane = controller_pane(model, controller, now, room - first if index else first, _PANE_HEIGHT)
        panes.insert(0 if index == 0 else len(panes), pane)
    return _side_by_side(*panes)


def _strip(model: ConsoleModel, width: int) -> RenderableType:
    left, right = strip_facts(model)
    found = model.first_volume
    cells = strip_cells(found[1].strip, width - 4) if found else Text("·" * (width - 4), "bright_black")
    cells.align("center", width - 4)
    return framed([cells], left, width, foot=right)


def _events_and_verdicts(model: ConsoleModel, width: int, height: int) -> RenderableType:
    log_width = width - _VERDICT_WIDTH if model.running else width
    log = log_rows(model, height - 2, log_width - 4)
    faults = faults_line(model, log_width - 8) if model.running else None
    events = framed(log, line(("events", "bold")), log_width, height, faults)
    if not model.running:
        return events
    verdicts = verdict_table(model, _VERDICT_WIDTH - 4)
    return _side_by_side(events, framed(verdicts, line(("properties", "bold")), _VERDICT_WIDTH, height))


def _side_by_side(*panes: RenderableType) -> Table:
    grid = Table.grid(padding=0)
    grid.add_row(*panes)
    return grid
