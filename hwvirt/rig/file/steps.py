"""The `scenarios:` part of a rig file: steps, workloads, faults and expectations."""

from __future__ import annotations

import re
from collections.abc import Callable

from hwvirt.blame import suggestion
from hwvirt.rig.file.controllers import LUN_ADDRESS
from hwvirt.rig.file.item import Item
from hwvirt.rig.file.link import parse_strike
from hwvirt.rig.file.model import Frozen, Kernels, Redirect, Rig, ScsiDebugSpec, TcmuSpec
from hwvirt.rig.file.scenario import (
    AfterCount,
    AtShare,
    Backup,
    BlockRange,
    Commit,
    Counter,
    Crash,
    Discard,
    EveryOps,
    Expectation,
    Fault,
    FaultAction,
    Fill,
    Flush,
    Judge,
    Mix,
    Moment,
    Relation,
    Restart,
    Scenario,
    StartRedirect,
    Step,
    Workload,
)
from hwvirt.rig.judge.verdict import Property

__all__ = ["parse_expect", "parse_scenarios"]

_MOST_DEPTH = 1024
_MOST_OPS = 100_000_000
_RANGE = re.compile(r"([0-9]{1,30})(?:\.\.([0-9]{1,30}))?")
_PERCENT = re.compile(r"([0-9]{1,3})%")
_COMPARISON = re.compile(r"(>=|<=|==|>|<|)\s*([0-9]{1,30})")


def parse_scenarios(item: Item, rig: Rig) -> tuple[Scenario, ...]:
    """All scenarios; `rig` gives the controllers that their steps name."""
    scenarios: dict[str, Scenario] = {}
    for member in item.items():
        found = member.fields(("name", "steps"), ("expect",))
        name = found["name"].text()
        if name in scenarios:
            raise found["name"].error(f"another scenario is called {name!r}")
        steps = tuple(_step(step, rig) for step in found["steps"].items())
        if not steps:
            raise found["steps"].error("a scenario without steps proves nothing")
        scenarios[name] = Scenario(name, steps, parse_expect(found["expect"]) if "expect" in found else ())
    if not scenarios:
        raise item.error("a rig without scenarios proves nothing")
    return tuple(scenarios.values())


def parse_expect(item: Item) -> tuple[Expectation, ...]:
    """What counts must be."""
    found = item.fields((), [counter.value for counter in Counter])
    return tuple(_expectation(Counter(name), value) for name, value in found.items())


def _expectation(counter: Counter, item: Item) -> Expectation:
    match = _COMPARISON.fullmatch(item.text())
    if match is None:
        raise item.error(f'{item.text()!r} is no comparison; write it like ">= 100" or 0')
    return Expectation(counter, Relation(match[1] or "=="), int(match[2]))


def _step(item: Item, rig: Rig) -> Step:
    kind, value, beside = item.choice((*_STEPS, "workload"), ("faults", "while"))
    if kind == "workload":
        return _workload(value, beside, rig)
    for key, misplaced in beside.items():
        raise misplaced.error(f"only a workload can have {key!r}")
    return _STEPS[kind](value, rig)


def _fill(item: Item, rig: Rig) -> Fill:
    at = _only_lun(item)
    controller, lun = _lun(at, rig)
    _require_writable(at, rig, controller, lun)
    return Fill(controller, lun)


def _redirect(item: Item, rig: Rig) -> StartRedirect:
    return StartRedirect(*_redirect_lun(item, rig))


def _commit(item: Item, rig: Rig) -> Commit:
    return Commit(*_redirect_lun(item, rig))


def _discard(item: Item, rig: Rig) -> Discard:
    return Discard(*_redirect_lun(item, rig))


def _flush(item: Item, rig: Rig) -> Flush:
    return Flush(*_lun(_only_lun(item), rig))


def _backup(item: Item, rig: Rig) -> Backup:
    at = _only_lun(item)
    controller, lun = _lun(at, rig)
    end, number = rig.resolve(controller, lun)
    if not isinstance(rig.controllers[end].luns[number], Frozen):
        raise at.error(f"LUN {controller}/{lun} is not frozen", "A backup is compared with a frozen original.")
    return Backup(controller, lun)


def _restart(item: Item, rig: Rig) -> Restart:
    return Restart(item.one_of(rig.controllers, "controller"))


def _crash(item: Item, rig: Rig) -> Crash:
    name = item.one_of(rig.controllers, "controller")
    disk = rig.controllers[name].disk
    if rig.lab.kernels is Kernels.EACH and isinstance(rig.disks[disk], ScsiDebugSpec | TcmuSpec):
        raise item.error(
            f"a crash of controller {name} cuts the power of its kernel, and disk {disk!r} lies in the memory of that",
            "Use a tcm-loop disk with `backing: file`: it keeps what was flushed.",
        )
    return Crash(name)


def _judge(item: Item, rig: Rig) -> Judge:
    if item.is_scalar and item.text() == "all":
        return Judge(None)
    if item.is_scalar:
        return Judge((item.word(Property, beside=("all",)),))
    properties = tuple(member.word(Property) for member in item.items())
    if not properties:
        raise item.error("names no property", "Write `all`, or a list of properties.")
    return Judge(properties)


_STEPS: dict[str, Callable[[Item, Rig], Step]] = {
    "fill": _fill,
    "redirect": _redirect,
    "commit": _commit,
    "discard": _discard,
    "flush": _flush,
    "backup": _backup,
    "restart": _restart,
    "crash": _crash,
    "judge": _judge,
}


def _workload(item: Item, beside: dict[str, Item], rig: Rig) -> Workload:
    found = item.fields(("lun", "ops", "mix"), ("depth", "blocks"))
    controller, lun = _lun(found["lun"], rig)
    mix = _mix(found["mix"])
    if mix.write or mix.unmap:
        _require_writable(found["lun"], rig, controller, lun)
    blocks = _block_range(found["blocks"], rig.extent(controller, lun).blocks) if "blocks" in found else BlockRange(1, 1)
    ops = found["ops"].integer(1, _MOST_OPS)
    faults = tuple(_fault(fault, ops, rig) for fault in beside["faults"].items()) if "faults" in beside else ()
    alongside = None
    if "while" in beside:
        _, backup, _ = beside["while"].choice(("backup",))
        alongside = _backup(backup, rig)
    depth = found["depth"].integer(1, _MOST_DEPTH) if "depth" in found else 1
    return Workload(controller, lun, ops, depth, blocks, mix, faults, alongside)


def _mix(item: Item) -> Mix:
    found = item.fields((), ("write", "read", "flush", "unmap"))
    mix = Mix(**{name: share.integer(0, 100) for name, share in found.items()})
    total = mix.write + mix.read + mix.flush + mix.unmap
    if total != 100:
        raise item.error(f"adds up to {total} percent, it must be 100")
    return mix


def _block_range(item: Item, volume_blocks: int) -> BlockRange:
    match = _RANGE.fullmatch(item.text())
    if match is None:
        raise item.error(f"{item.text()!r} is no number of blocks; write it like 8 or 1..16")
    least, most = int(match[1]), int(match[2] or match[1])
    if not 1 <= least <= most:
        raise item.error(f"{least}..{most} is no range; the first number is at least 1, the second not smaller")
    if most > volume_blocks:
        raise item.error(f"{most} blocks do not fit the volume, which has {volume_blocks}")
    return BlockRange(least, most)


def _fault(item: Item, ops: int, rig: Rig) -> Fault:
    found = item.fields((), ("at", "after", "every", "crash", "restart", "link", "for"))
    when = item.only(found, tuple(_MOMENTS))
    return Fault(_MOMENTS[when](found[when], ops), _action(item, found, rig))


def _action(item: Item, found: dict[str, Item], rig: Rig) -> FaultAction:
    kind = item.only(found, ("crash", "restart", "link"))
    if kind == "link":
        return parse_strike(item, found, rig)
    if "for" in found:
        raise found["for"].error(f"a {kind} has no duration; only a link fault lasts")
    return (_crash if kind == "crash" else _restart)(found[kind], rig)


def _share(item: Item, ops: int) -> Moment:
    match = _PERCENT.fullmatch(item.text())
    if match is None or int(match[1]) > 100:
        raise item.error(f"{item.text()!r} is no share of the operations; write it like 30%")
    return AtShare(int(match[1]))


def _after(item: Item, ops: int) -> Moment:
    counters = [counter.value for counter in Counter if counter is not Counter.MISMATCHES]
    found = item.fields((), counters)
    counter = item.only(found, counters)
    return AfterCount(Counter(counter), _within(found[counter], found[counter].integer(1), ops))


def _every(item: Item, ops: int) -> Moment:
    return EveryOps(_within(item, item.integer(1), ops))


def _within(item: Item, value: int, ops: int) -> int:
    if value > ops:
        raise item.error(f"never comes to {value}: the workload has {ops} operations")
    return value


_MOMENTS: dict[str, Callable[[Item, int], Moment]] = {"at": _share, "after": _after, "every": _every}


def _only_lun(item: Item) -> Item:
    return item.fields(("lun",))["lun"]


def _redirect_lun(item: Item, rig: Rig) -> tuple[str, int]:
    at = _only_lun(item)
    controller, lun = _lun(at, rig)
    if not isinstance(rig.controllers[controller].luns[lun], Redirect):
        raise at.error(f"LUN {controller}/{lun} is not a redirect LUN")
    return controller, lun


def _lun(item: Item, rig: Rig) -> tuple[str, int]:
    """A LUN by number, of the controller that redirects (or the only one), or by address: `0` or `b/0`."""
    match = LUN_ADDRESS.fullmatch(item.text())
    if match is None:
        raise item.error(f"{item.text()!r} is no LUN; write it like 0 or b/0")
    number = int(match[2])
    controller = match[1] or _usual_controller(item, rig)
    if controller not in rig.controllers:
        raise item.error(f"the rig has no controller {controller!r}", suggestion(controller, rig.controllers))
    luns = rig.controllers[controller].luns
    if number not in luns:
        raise item.error(f"controller {controller} has no LUN {number}", f"Its LUNs: {', '.join(map(str, luns)) or 'none'}.")
    return controller, number


def _usual_controller(item: Item, rig: Rig) -> str:
    redirecting = [
        name for name, spec in rig.controllers.items() if any(isinstance(lun, Redirect) for lun in spec.luns.values())
    ]
    usual = redirecting or list(rig.controllers)
    if len(usual) > 1:
        raise item.error(f"LUN {item.text()} of which controller is not said", f"Write it like {usual[0]}/{item.text()}.")
    return usual[0]


def _require_writable(item: Item, rig: Rig, controller: str, lun: int) -> None:
    end, number = rig.resolve(controller, lun)
    if isinstance(rig.controllers[end].luns[number], Frozen):
        raise item.error(f"LUN {controller}/{lun} is frozen and cannot be written")
