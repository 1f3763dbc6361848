"""`hwvirt run`: brings the rig up, does its scenarios, judges, reports, and takes everything down."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import uvloop

from hwvirt.errors import ExitCode, HwvirtError, InfrastructureError
from hwvirt.rig.bench import CONTROLLER_PROGRAM, Bench, ControllersError
from hwvirt.rig.control_client import ControllerGone
from hwvirt.rig.describe import detail_of, locked, topology
from hwvirt.rig.disagreements import Disagreements
from hwvirt.rig.disks import needs_lab
from hwvirt.rig.far_bench import FarBench, FarMachine
from hwvirt.rig.file.model import Rig
from hwvirt.rig.file.scenario import Scenario, Step
from hwvirt.rig.in_lab import run_in_lab
from hwvirt.rig.replay import replay_command
from hwvirt.rig.report import Report, RunFolder, StepReport, decide, provenance, summarize, unmet, verdict_word
from hwvirt.rig.stage import PathLost, Stage
from hwvirt.rig.steps import STEPS, Performance, name_of
from hwvirt.rig.watcher import Watcher
from hwvirt.stopping import on_stop
from hwvirt.trace import Event, Trace
from hwvirt.units import Deadline

__all__ = ["RunOptions", "run_rig"]

STEP_S = 900.0
_TICK_S = 0.25
_ENDING_S = 10.0
_SILENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Where run folders go, who watches, and what runs the controllers.

    `inside_lab`: this is a kernel of the lab; `bench`: its controllers have kernels of their own, reached as this file says.
    """

    runs: Path
    watcher: Watcher
    program: Sequence[str] = CONTROLLER_PROGRAM
    inside_lab: bool = False
    bench: Path | None = None


def run_rig(rig: Rig, options: RunOptions) -> ExitCode:
    """Runs a rig and writes its report. Raises HwvirtError only when there is not even a folder to report in."""
    if needs_lab(rig) and not options.inside_lab:
        return run_in_lab(rig, options.runs, options.watcher)
    return uvloop.run(_Run(rig, options).run())


class _Run:
    """One run, from the first event to the report."""

    def __init__(self, rig: Rig, options: RunOptions) -> None:
        self.rig = rig
        self.watcher = options.watcher
        self.program = options.program
        self.bench_file = options.bench
        self.started = datetime.now(UTC)
        self.folder = RunFolder(options.runs, rig.name, self.started, secrets.token_hex(3))
        self.trace = Trace("rig")
        self.trace.subscribe(self._record)
        self.trace.subscribe(self.watcher.handle)
        self.disagreements = Disagreements()
        self.trace.subscribe(self.disagreements.handle)
        self.steps: list[StepReport] = []
        self.script = [(scenario, step) for scenario in rig.scenarios for step in scenario.steps]
        self.missed: list[str] = []
        self.working: asyncio.Task[None] | None = None
        self.failure: tuple[ExitCode, tuple[str, ...]] | None = None
        self.performance: Performance | None = None
        self.replay = replay_command(rig.path, rig.seed)

    async def run(self) -> ExitCode:
        """Does everything and says how it ended; a signal ends it early, after a clean teardown."""
        began = time.monotonic()
        self.trace.emit("rig.started", rig=self.rig.name, seed=self.rig.seed, run=self.folder.path.name)
        self.folder.lock(locked(self.rig) | {"provenance": provenance()})
        loop = asyncio.get_running_loop()
        working = self.working = loop.create_task(self._bring_up_and_perform())
        on_stop(self._interrupted)
        await asyncio.wait([working])
        bug = None if working.cancelled() else working.exception()
        if bug is not None:
            self._fail(ExitCode.INFRASTRUCTURE, f"internal error: {bug!r}")
        report = self._reported(time.monotonic() - began)
        self.trace.emit(
            "rig.finished", verdict=report.verdict, exit_code=report.exit_code, run_dir=str(self.folder.path),
            counts=report.counts, reasons=list(report.reasons),
            cards=[card.text() for card in report.cards[:3]], replay=self.replay,
        )  # fmt: skip
        self.folder.close()
        if bug is not None:
            raise bug
        return ExitCode(report.exit_code)

    def _record(self, event: Event) -> None:
        """A run that cannot be recorded ends, but not within whatever has happened just now."""
        recorded = self.folder.broken is None
        self.folder.record(event)
        if recorded and (error := self.folder.broken):
            asyncio.get_running_loop().call_soon(self._end_early, error.exit_code, str(error))

    def _interrupted(self) -> None:
        if self.working is not None:
            self._end_early(ExitCode.INTERRUPTED, self._where())
        else:
            self.trace.emit("rig.closing")

    def _where(self) -> str:
        """Where the run is when somebody interrupts it."""
        number = len(self.steps) + 1
        if self.performance is None:
            return "interrupted before the first step"
        scenario, step = self.script[number - 1]
        where = f"interrupted in step {number} of {len(self.script)}, {name_of(step)} of scenario {scenario.name!r}"
        done, total = self.performance.reached
        return f"{where}, at {done} of {total}" if total else where

    def _end_early(self, code: ExitCode, reason: str) -> None:
        """Ends what is under way, so that everything is taken down."""
        if self.working is not None:
            working, self.working = self.working, None
            working.cancel()  # first: whoever is told may fail in hearing it
            self._fail(code, reason)

    async def _bring_up_and_perform(self) -> None:
        try:
            async with AsyncExitStack() as stack:
                try:
                    await self._perform(await self._bring_up(stack))
                finally:
                    self.working = None  # what follows is the teardown: nobody cuts that short
        except (HwvirtError, OSError) as error:
            reasons = error.reasons if isinstance(error, ControllersError) else (str(error),)
            self._fail(error.exit_code if isinstance(error, HwvirtError) else ExitCode.INFRASTRUCTURE, *reasons)

    async def _bring_up(self, stack: AsyncExitStack) -> Performance:
        bench = self._bench()
        await bench.bring_up(stack)
        self.trace.emit("rig.up", topology=topology(self.rig))
        stage = Stage(bench, stack)
        self.performance = Performance(stage, self.trace, self.rig.seed, self.replay)
        watching = asyncio.ensure_future(self._watch(stage))
        stack.callback(watching.cancel)
        return self.performance

    def _bench(self) -> Bench | FarBench:
        if self.bench_file is None:
            return Bench(self.rig, self.folder.path, self.trace, redirect_at_start=False, program=self.program)
        machines = msgspec.json.decode(self.bench_file.read_bytes(), type=dict[str, FarMachine])
        return FarBench(self.rig, self.folder.path, self.trace, machines)

    def _fail(self, code: ExitCode, *reasons: str) -> None:
        """The first failure is the cause; what follows it is told, but changes nothing."""
        if self.failure is None and code is ExitCode.INFRASTRUCTURE:
            reasons += self.disagreements.told()
        if self.failure is None:
            self.failure = (code, reasons)
        for reason in reasons:
            self.trace.emit("rig.failed", reason=reason)

    async def _perform(self, performance: Performance) -> None:
        for scenario in self.rig.scenarios:
            before = performance.counts_by_name()
            self.trace.emit("scenario.started", name=scenario.name)
            for step in scenario.steps:
                await self._do(performance, scenario, step)
                if self.failure is not None:
                    return
            counts = {name: count - before[name] for name, count in performance.counts_by_name().items()}
            self.missed += unmet(scenario.expect, counts, scenario.name)

    async def _do(self, performance: Performance, scenario: Scenario, step: Step) -> None:
        name, began, failure = name_of(step), time.monotonic(), ""
        performance.reached = (0, 0)
        self.trace.emit("step.started", name=name, detail=detail_of(step), deadline_s=STEP_S)
        try:
            async with asyncio.timeout(STEP_S):
                await self._step(performance, step)
        except TimeoutError:
            failure = f"step {name} of scenario {scenario.name!r} did not end within {STEP_S:.0f} s"
            self._fail(ExitCode.INFRASTRUCTURE, failure)
        except HwvirtError as error:
            failure = str(error)
            self._fail(error.exit_code, failure)
        except asyncio.CancelledError:
            failure = " ".join(self.failure[1]) if self.failure else "given up"
            raise
        finally:
            elapsed_s = time.monotonic() - began
            self.steps.append(StepReport(scenario.name, name, elapsed_s, failure))
            if failure:
                self.trace.emit("step.failed", name=name, reason=failure)
            else:
                self.trace.emit("step.finished", name=name, elapsed_s=round(elapsed_s, 3))

    async def _step(self, performance: Performance, step: Step) -> None:
        try:
            await STEPS[type(step)](performance, step)
        except (PathLost, ControllerGone):
            # A controller that ends stops serving hosts first, and is gone last: then that is the reason.
            deadline = Deadline.after(_ENDING_S)
            while not deadline.expired:
                await performance.stage.bench.check_alive(_SILENCE_S)
                await asyncio.sleep(_TICK_S)
            raise

    async def _watch(self, stage: Stage) -> None:
        """Keeps the watcher and the accounts of the stores up to date; a controller that dies by itself ends the run."""
        while True:
            try:
                await stage.bench.check_alive(_SILENCE_S)
            except InfrastructureError as error:
                return self._end_early(error.exit_code, str(error))
            stage.remember_stores()
            for name, status in stage.bench.status().items():
                self.watcher.status(name, status)
            self.watcher.tick(time.time())
            await asyncio.sleep(_TICK_S)

    def _reported(self, elapsed_s: float) -> Report:
        """Writes the report. A folder that does not take it, or not all events, is a failure of the run like any other."""
        if (broken := self.folder.broken) and self.failure is None:
            self._fail(broken.exit_code, str(broken))
        report = self._report(elapsed_s)
        try:
            self.folder.finish(report)
        except InfrastructureError as error:
            self._fail(error.exit_code, str(error))
            return self._report(elapsed_s)
        return report

    def _report(self, elapsed_s: float) -> Report:
        verdicts = self.performance.verdicts if self.performance else []
        counts = self.performance.counts_by_name() if self.performance else {}
        decision = decide(verdicts, [*self.missed, *unmet(self.rig.expect, counts)], self.failure)
        properties, cards = summarize(verdicts)
        blocked = self.script[len(self.steps) :]
        return Report(
            rig=self.rig.name,
            seed=self.rig.seed,
            verdict=verdict_word(decision.exit_code),
            exit_code=int(decision.exit_code),
            reasons=decision.reasons,
            counts=counts,
            properties=properties,
            steps=(*self.steps, *(StepReport(of.name, name_of(step), blocked=True) for of, step in blocked)),
            cards=cards,
            provenance=provenance(),
            started=self.started.isoformat(timespec="seconds"),
            elapsed_s=round(elapsed_s, 3),
            replay=self.replay,
        )
