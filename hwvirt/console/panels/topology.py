"""The bench as a line: host, first path, controllers, link, disks; colours tell their states."""

from __future__ import annotations

from rich.text import Text

from hwvirt.console.facts import Controller
from hwvirt.console.model import ConsoleModel
from hwvirt.console.panels.frame import mark, state_style
from hwvirt.console.text import line, micros

__all__ = ["controller_state", "link_state", "topology_line", "topology_picture"]

_LINK_BARS = {"up": "━", "": "┄", "connecting": "┄"}


def controller_state(controller: Controller, now: float) -> str:
    """up, stopped, silent, or empty before the first report."""
    if controller.stopped:
        return "stopped"
    if controller.report is None:
        return ""
    return "silent" if controller.silent_s(now) else "up"


def link_state(model: ConsoleModel) -> str:
    """Of both ends the one that is not up, if any; empty when no end has told."""
    states = [controller.link_state for controller in model.controllers.values() if controller.link_state]
    return next((state for state in states if state != "up"), "up" if states else "")


def topology_line(model: ConsoleModel, now: float, width: int) -> Text:
    """All of it on one line."""
    picture = line(*_host(model, 2))
    for index, (name, state, disk) in enumerate(_nodes(model, now)):
        if index:
            picture.append(_wire(model, width=2 if width < 100 else 8))
        picture.append(line(mark(state), " ", (name, "bold"), (f" ({disk})" if disk else "", "dim")))
    picture.truncate(width, overflow="ellipsis")
    return picture


def topology_picture(model: ConsoleModel, now: float, width: int) -> list[Text]:
    """Three lines, in the middle of `width`: the paths, and under each controller its disk."""
    paths = line(*_host(model, 7))
    stems, disks = Text(), Text()
    for index, (name, state, disk) in enumerate(_nodes(model, now)):
        if index:
            paths.append(_wire(model, width=9))
        column = paths.cell_len
        paths.append(line(mark(state), " ", (name, "bold")))
        stems.pad_right(column - stems.cell_len)
        stems.append("┃" if disk else " ", "bright_black")
        disks.pad_right(max(1 if index else 0, column - len(disk) // 2 - disks.cell_len))
        disks.append(disk, "dim")
    margin = " " * max(0, (width - paths.cell_len) // 2)
    return [line(margin, row) for row in (paths, stems, disks)]


def disk_name(model: ConsoleModel, controller: Controller) -> str:
    """What lies under a controller, by the rig's word or its own."""
    named = model.topology.controllers.get(controller.name, "")
    disk = controller.report.disk if controller.report else None
    return named or (disk.name if disk else "")


def _nodes(model: ConsoleModel, now: float) -> list[tuple[str, str, str]]:
    """Name, state and disk of each controller, and of a peer that is only heard of."""
    controllers = model.controllers.values()
    nodes = [(c.name, controller_state(c, now), disk_name(model, c)) for c in controllers]
    peers = {c.report.link.peer for c in controllers if c.report and c.report.link} - {"", *model.controllers}
    return [*nodes, *((peer, "", "") for peer in sorted(peers))]


def _host(model: ConsoleModel, dashes: int) -> list[str | tuple[str, str]]:
    path = f" {model.topology.host} " if model.topology.host else ""
    dash = "─" * dashes
    return ["host ", (dash, "bright_black"), path, (f"{dash}▶", "bright_black"), " "]


def _wire(model: ConsoleModel, width: int) -> Text:
    state = link_state(model)
    links = [c.report.link for c in model.controllers.values() if c.report and c.report.link]
    kind = model.topology.link or next((link.kind for link in links if link.kind), "link")
    told = kind if state == "up" else f"{kind} {state or 'not up yet'}"
    if state == "up" and links and links[0].rtt_us:
        told = f"{kind} {micros(links[0].rtt_us)}"
    style, dash = state_style(state), _LINK_BARS.get(state, "╌")
    return line(" ", (dash * width, style), f" {told} ", (dash * width, style), ("▶ ", style))
