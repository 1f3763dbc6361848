"""What a rig does in each kind of step: one function for a kind, and a table."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

from hwvirt.errors import InfrastructureError, RigError
from hwvirt.host.initiator import Initiator
from hwvirt.rig.backup import BackupClient
from hwvirt.rig.evidence import gather
from hwvirt.rig.faults import Faults, restart
from hwvirt.rig.file.scenario import (
    Backup,
    Commit,
    Crash,
    Discard,
    Fill,
    Flush,
    Judge,
    Restart,
    StartRedirect,
    Step,
    Workload,
)
from hwvirt.rig.judge.history import MarkKind
from hwvirt.rig.judge.judge import judge
from hwvirt.rig.judge.verdict import Outcome, Property, Verdict
from hwvirt.rig.stage import PathLost, Stage, Unit
from hwvirt.rig.workload import Counts, Mix, WorkloadPlan, fill, read_all, run_workload
from hwvirt.trace import Trace

__all__ = ["STEPS", "Performance", "name_of"]

_PROGRESS_EVERY = 64


@dataclass(slots=True)
class Performance:
    """One run as it goes on: the stage, and what came out so far."""

    stage: Stage
    trace: Trace
    seed: int
    replay: str
    counts: Counts = field(default_factory=Counts)
    verdicts: list[Verdict] = field(default_factory=list)
    workloads: int = 0
    reached: tuple[int, int] = (0, 0)
    """How far the present step is, and of what; of nothing where it does not tell."""

    def add(self, counts: Counts) -> None:
        """Counts of one step join those of the run."""
        for name, count in _by_name(counts).items():
            setattr(self.counts, name, getattr(self.counts, name) + count)

    def counts_by_name(self) -> dict[str, int]:
        """All counts of the run so far."""
        return _by_name(self.counts)

    def progress(self, total: int) -> Callable[[int, Counts], None]:
        """Tells the trace how far a step is, now and then."""

        def tell(submitted: int, counts: Counts) -> None:
            self.reached = (submitted, total)
            if submitted % _PROGRESS_EVERY == 0 or submitted == total:
                self.trace.emit("step.progress", done=submitted, total=total, **_by_name(counts))

        return tell


def _by_name(counts: Counts) -> dict[str, int]:
    return {field.name: getattr(counts, field.name) for field in fields(counts)}


@contextmanager
def _counted(run: Performance, total: int) -> Iterator[Callable[[int, Counts], None]]:
    """Whatever a step counts joins the counts of the run, however the step ends. Gives whom to tell of its progress."""
    tell, so_far = run.progress(total), Counts()

    def on_progress(submitted: int, counts: Counts) -> None:
        nonlocal so_far
        so_far = counts
        tell(submitted, counts)

    try:
        yield on_progress
    finally:
        run.add(so_far)


async def _fill(run: Performance, step: Fill) -> None:
    path = await run.stage.initiator(step.controller, step.lun)
    unit = run.stage.unit(step.controller, step.lun)
    total = -(-path.blocks * path.block_bytes // (1 << 20))
    with _counted(run, total) as on_progress:
        await fill(path, unit.history, on_progress=on_progress)


async def _redirect(run: Performance, step: StartRedirect) -> None:
    unit = run.stage.unit(step.controller, step.lun)
    await _control(run, step.controller).call_long("redirect", lun=step.lun)
    run.stage.redirection_began(unit)


async def _commit(run: Performance, step: Commit) -> None:
    await _control(run, step.controller).call_long("commit", lun=step.lun, wait=True)
    run.stage.unit(step.controller, step.lun).history.mark(MarkKind.COMMIT)


async def _discard(run: Performance, step: Discard) -> None:
    await _control(run, step.controller).call_long("discard", lun=step.lun)
    run.stage.unit(step.controller, step.lun).history.mark(MarkKind.DISCARD)


async def _flush(run: Performance, step: Flush) -> None:
    path = await run.stage.initiator(step.controller, step.lun)
    unit = run.stage.unit(step.controller, step.lun)
    plan = WorkloadPlan(1, 1, 1, 1, Mix(flush=100), run.seed)
    with _counted(run, 1) as on_progress:
        await run_workload(path, plan, unit.history, on_progress=on_progress)


async def _workload(run: Performance, step: Workload) -> None:
    stage = run.stage
    path = await stage.initiator(step.controller, step.lun)
    unit = stage.unit(step.controller, step.lun)
    run.workloads += 1
    mix = Mix(write=step.mix.write, read=step.mix.read, flush=step.mix.flush, unmap=step.mix.unmap)
    # Each workload of a run does other operations; the same run does the same ones again.
    plan = WorkloadPlan(step.ops, step.depth, step.blocks.least, step.blocks.most, mix, run.seed + run.workloads)
    faults = Faults(stage, step.faults, step.ops, run.trace)
    async def reconnect() -> Initiator:
        nonlocal path
        await faults.finish()
        await stage.bench.check_alive()
        if unit.initiators.get((step.controller, step.lun)) is path:
            raise PathLost(f"the path to {step.controller}/{step.lun} was lost, and no fault of the rig had done it.")
        path = await stage.initiator(step.controller, step.lun)
        return path

    with _counted(run, step.ops) as tell:

        def on_progress(submitted: int, counts: Counts) -> Future[None] | None:
            tell(submitted, counts)
            return faults.progress(submitted, counts)

        work = run_workload(path, plan, unit.history, on_progress=on_progress, stop=faults.broken, reconnect=reconnect)
        try:
            await (work if step.alongside is None else _with_backup(run, step.alongside, work))
            await faults.settle()
        finally:
            await faults.abandon()
    if faults.unfired:
        raise RigError(
            f"faults that never struck: {', '.join(faults.unfired)}.",
            next_step="Give the workload more operations, or the faults an earlier moment.",
        )


async def _with_backup(run: Performance, step: Backup, work: Coroutine[Any, Any, Counts]) -> None:
    """Reads the frozen LUN over and over, at least once, until the work is done."""
    working = asyncio.ensure_future(work)
    try:
        async with _backup_client(run, step, "backup.progress") as client:
            await client.read()
            while not working.done():
                await client.read()
        await working
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


async def _backup(run: Performance, step: Backup) -> None:
    async with _backup_client(run, step, "step.progress") as client:
        await client.read()


@asynccontextmanager
async def _backup_client(run: Performance, step: Backup, progress: str) -> AsyncIterator[BackupClient]:
    """A block that is not the original is a broken `frozen`, however the step ends."""
    stage, name = run.stage, f"{step.controller}/{step.lun}"
    path = await stage.initiator(step.controller, step.lun)
    unit = stage.source_of(step.controller, step.lun)
    if unit.baseline is None or unit.history.redirected_at is None:
        raise RigError(
            f"backup of {name}: nothing is redirected, so there is no original to compare with.",
            next_step="Put a `redirect` step before it.",
        )
    client = BackupClient(path, name, unit.baseline.digests, run.trace, progress=progress)
    try:
        yield client
    finally:
        run.counts.mismatches += client.mismatches
        if verdict := client.end(run.replay):
            run.verdicts.append(verdict)


async def _restart(run: Performance, step: Restart | Crash) -> None:
    await restart(run.stage, step)


async def _judge(run: Performance, step: Judge) -> None:
    wanted = step.properties or tuple(Property)
    loop = asyncio.get_running_loop()
    found: dict[Property, list[Verdict]] = {}
    unread: list[str] = []
    for unit in run.stage.judged_units():
        unread += await _hear_the_host_path(run, unit)
        evidence = await gather(run.stage, unit, run.replay)
        for verdict in await loop.run_in_executor(None, judge, evidence, wanted):
            found.setdefault(verdict.property, []).append(verdict)
    for name in wanted:
        verdict = _together(name, found.get(name, []))
        if verdict.outcome is Outcome.NOT_CHECKED and step.properties is None:
            continue  # `all` means: all that can be asked at this point
        run.verdicts.append(verdict)
        run.trace.emit(
            "judge.verdict",
            property=name.value,
            verdict=verdict.outcome.value,
            checked=verdict.checked,
            violations=verdict.total,
        )
    if unread:
        raise InfrastructureError(f"while nothing disturbed it, {', '.join(unread)} could not be read.")


async def _hear_the_host_path(run: Performance, unit: Unit) -> list[str]:
    """Reads every block once more, also those that the workload did not happen to read again. Returns what it could not."""
    path = await run.stage.initiator(unit.controller, unit.lun)
    first = len(unit.history) + 1
    counts = await read_all(path, unit.history)
    run.counts.mismatches += counts.mismatches
    run.counts.failed += counts.failed
    run.counts.in_doubt += counts.in_doubt
    if counts.in_doubt:
        raise PathLost(f"the path to {unit.controller}/{unit.lun} was lost while the judge read it.")
    reads = [unit.history.operation(number) for number in range(first, len(unit.history) + 1)]
    return [
        f"{unit.controller}/{unit.lun} LBA {read.lba} to {read.lba + read.blocks - 1}" for read in reads if not read.seen
    ]


def _together(name: Property, verdicts: Iterable[Verdict]) -> Verdict:
    """One verdict of several about the same property: broken if one is, held if one is and none is broken."""
    known = list(verdicts)
    if not known:
        return Verdict(name, Outcome.NOT_CHECKED, 0, reason="no logical unit was used")
    for outcome in (Outcome.BROKEN, Outcome.HELD):
        if any(verdict.outcome is outcome for verdict in known):
            return Verdict(
                name,
                outcome,
                sum(verdict.checked for verdict in known),
                sum(verdict.total for verdict in known),
                tuple(card for verdict in known for card in verdict.violations),
            )
    return known[0]


def _control(run: Performance, controller: str) -> Any:
    return run.stage.bench.machines[controller].control


STEPS: dict[type[Step], Callable[[Performance, Any], Awaitable[None]]] = {
    Fill: _fill,
    StartRedirect: _redirect,
    Commit: _commit,
    Discard: _discard,
    Workload: _workload,
    Flush: _flush,
    Judge: _judge,
    Backup: _backup,
    Restart: _restart,
    Crash: _restart,
}


def name_of(step: Step) -> str:
    """What people call a step: the word of the rig file."""
    return "redirect" if isinstance(step, StartRedirect) else type(step).__name__.lower()

