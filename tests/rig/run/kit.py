"""Whole runs in one call: the text of a rig in, everything that its run leaves behind out."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hwvirt.errors import ExitCode
from hwvirt.rig.bench import CONTROLLER_PROGRAM
from hwvirt.rig.file import load_rig
from hwvirt.rig.judge.history import MarkKind
from hwvirt.rig.runner import RunOptions, run_rig
from hwvirt.rig.steps import STEPS, Performance
from hwvirt.rig.workload import Mix, WorkloadPlan, run_workload
from hwvirt.trace import Event

FILL, REDIRECT, FLUSH = "fill: {lun: 0}", "redirect: {lun: 0}", "flush: {lun: 0}"
COMMIT, DISCARD, BACKUP = "commit: {lun: 0}", "discard: {lun: 0}", "backup: {lun: 1}"
CRASH_A, CRASH_B, RESTART_A, RESTART_B = "crash: a", "crash: b", "restart: a", "restart: b"
JUDGE, JUDGE_SETTLED = "judge: all", "judge: [settled, conserved, consistent]"
LINK_CUT = "link: {cut: {}}, for: 200ms"

OnEvent = Callable[[Event, "Spectator"], None]


def workload(
    ops: int = 400, *faults: str, lun: int | str = 0, depth: int = 16, blocks: str = "1..8", mix: str = "60/30/5/5"
) -> str:
    """A workload step; `mix` gives the shares of writes, reads, flushes and unmaps."""
    shares = dict(zip(("write", "read", "flush", "unmap"), mix.split("/"), strict=True))
    words = ", ".join(f"{name}: {share}" for name, share in shares.items())
    step = f"workload: {{lun: {lun}, ops: {ops}, depth: {depth}, blocks: {blocks}, mix: {{{words}}}}}"
    return step + (f"\n        faults: [{', '.join(f'{{{fault}}}' for fault in faults)}]" if faults else "")


def rig_of(
    *steps: str,
    first: str = "4MiB",
    second: str = "16MiB",
    block: str = "4KiB",
    node: str = "file",
    a: str = "{0: redirect, 1: frozen}",
    b: str = "{disk: second}",
    link: str = "stall: 10s",
    expect: str = "{}",
) -> str:
    """The text of a rig with one redirecting controller."""
    lines = "\n".join(f"      - {step}" for step in steps)
    return f"""\
rig: small
seed: 5
disks:
  first:  {{loop: {{size: {first}, block: {block}, node: {node}}}}}
  second: {{loop: {{size: {second}, block: {block}, node: {node}}}}}
controllers:
  a: {{disk: first, luns: {a}}}
  b: {b}
link: {{ethernet: {{{link}}}}}
scenarios:
  - name: a small story
    steps:
{lines}
    expect: {expect}
"""


@dataclass(frozen=True)
class PowerCut:
    """A step that rig files do not have: both controllers are killed at once and started again."""

    controller: str = "a"


async def _power_cut(run: Performance, step: PowerCut) -> None:
    bench = run.stage.bench
    turns = [machine.turn for machine in bench.machines.values()]
    async with turns[0], turns[1]:
        await asyncio.gather(*(bench.crash(name) for name in bench.machines))
        for unit in run.stage.units:
            unit.history.mark(MarkKind.POWER_CUT)
        for name in bench.machines:
            await run.stage.drop_paths(name)
        await asyncio.gather(*(bench.start(name) for name in bench.machines))


@dataclass(frozen=True)
class DurableWrites:
    """A step that rig files do not have: writes with FUA."""

    ops: int
    controller: str = "a"
    lun: int = 0


async def _durable_writes(run: Performance, step: DurableWrites) -> None:
    path = await run.stage.initiator(step.controller, step.lun)
    history = run.stage.unit(step.controller, step.lun).history
    run.add(await run_workload(path, WorkloadPlan(step.ops, 8, 1, 1, Mix(fua=100), run.seed), history))


@dataclass(frozen=True)
class Mixed:
    """A step that rig files do not have: a workload with shares of what they cannot ask for."""

    ops: int
    mix: Mix
    most: int = 8
    controller: str = "a"
    lun: int = 0


async def _mixed(run: Performance, step: Mixed) -> None:
    path = await run.stage.initiator(step.controller, step.lun)
    history = run.stage.unit(step.controller, step.lun).history
    run.add(await run_workload(path, WorkloadPlan(step.ops, 8, 1, step.most, step.mix, run.seed), history))


@dataclass(frozen=True)
class FlushUntilDone:
    """A step that rig files do not have: a host that flushes until it gets GOOD, which it does when the link is back."""

    controller: str = "a"
    lun: int = 0


async def _flush_until_done(run: Performance, step: FlushUntilDone) -> None:
    path = await run.stage.initiator(step.controller, step.lun)
    history, done = run.stage.unit(step.controller, step.lun).history, 0
    while not done:  # without a link each one waits for the link's `stall`
        counts = await run_workload(path, WorkloadPlan(1, 1, 1, 1, Mix(flush=100), run.seed), history)
        run.add(counts)
        done = counts.flushes


@dataclass(frozen=True)
class Do:
    """A step that rig files do not have: whatever a test does to a run, or looks up in it, at that point."""

    what: Callable[[Performance], Awaitable[None]]
    controller: str = "a"


async def _do(run: Performance, step: Do) -> None:
    await step.what(run)


_STEPS_OF_TESTS: dict[Any, Any] = {
    PowerCut: _power_cut,
    DurableWrites: _durable_writes,
    Mixed: _mixed,
    FlushUntilDone: _flush_until_done,
    Do: _do,
}
STEPS.update(_STEPS_OF_TESTS)


@dataclass
class Spectator:
    """A `Watcher` that keeps everything; `on_event` may interfere."""

    runs: Path
    on_event: OnEvent | None = None
    events: list[Event] = field(default_factory=list)
    pids: dict[str, int] = field(default_factory=dict)
    all_pids: set[int] = field(default_factory=set)

    @property
    def folder(self) -> Path:
        """The folder of this run."""
        return self.runs / str(self.events[0].fields["run"])

    def socket(self, controller: str) -> Path:
        """A controller's control socket."""
        return Path(json.loads((self.folder / f"{controller}.json").read_bytes())["control"])

    def handle(self, event: Event) -> None:
        """See `Watcher`."""
        self.events.append(event)
        if event.name == "controller.started":
            self.pids[event.source] = event.fields["pid"]
            self.all_pids.add(event.fields["pid"])
        if self.on_event is not None:
            self.on_event(event, self)

    def status(self, name: str, report: dict[str, Any]) -> None:
        """See `Watcher`."""
        if report:
            self.all_pids.add(report["pid"])

    def tick(self, now: float) -> None:
        """See `Watcher`."""


@dataclass(frozen=True)
class Ran:
    """What a run left: exit code, folder, report and events."""

    code: ExitCode
    folder: Path
    report: dict[str, Any]
    events: list[Event]

    @property
    def reason(self) -> str:
        """The one reason why it is no pass."""
        (reason,) = self.report["reasons"]
        return str(reason)

    @property
    def verdicts(self) -> dict[str, str]:
        """Property → verdict."""
        return {name: found["verdict"] for name, found in self.report["properties"].items()}

    def lbas(self, property_: str, kind: str) -> set[int]:
        """The LBAs on the cards of a property's class."""
        return {card["lba"] for card in self.report["cards"] if (card["property"], card["kind"]) == (property_, kind)}

    def log(self, controller: str) -> str:
        """What a controller said."""
        return (self.folder / f"{controller}.log").read_text()


def run(
    text: str,
    tmp_path: Path,
    *,
    seed: int | None = None,
    program: Sequence[str] = CONTROLLER_PROGRAM,
    on_event: OnEvent | None = None,
    insert: Iterable[tuple[int, Any]] = (),
) -> Ran:
    """Runs a rig. Nothing of it is left but its folder: no process, no disk, no socket.

    `insert`: steps that rig files do not have, each with its place among the steps of the first scenario.
    """
    path = tmp_path / "rig.yaml"
    path.write_text(text)
    rig = load_rig(path)
    if seed is not None:
        rig = replace(rig, seed=seed)
    scenario = rig.scenarios[0]
    steps = list(scenario.steps)
    for place, step in insert:
        steps.insert(place, step)
    rig = replace(rig, scenarios=(replace(scenario, steps=tuple(steps)), *rig.scenarios[1:]))
    spectator = Spectator(tmp_path / "runs", on_event)
    code = run_rig(rig, RunOptions(runs=spectator.runs, watcher=spectator, program=program))
    ran = Ran(code, spectator.folder, json.loads((spectator.folder / "report.json").read_bytes()), spectator.events)
    assert ran.report["exit_code"] == code
    assert_nothing_left(ran.folder, spectator.all_pids)
    return ran


def assert_nothing_left(folder: Path, pids: Iterable[int]) -> None:
    """A run takes down whatever it has made, however it ends."""
    assert not [pid for pid in pids if _exists(pid)]
    assert not list((folder / "disks").glob("*"))
    for config in folder.glob("[ab].json"):
        assert not Path(json.loads(config.read_bytes())["control"]).parent.exists()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
