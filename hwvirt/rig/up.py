"""`hwvirt up`: a rig that stays up for the hosts of others."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import uvloop
from rich.table import Table

from hwvirt.errors import ExitCode, HwvirtError, UsageError
from hwvirt.lab.boot import in_guest
from hwvirt.rig.bench import Bench
from hwvirt.rig.disks import needs_lab
from hwvirt.rig.file.model import Rig
from hwvirt.stopping import on_stop
from hwvirt.tables import Fit, print_table
from hwvirt.trace import Event, Trace
from hwvirt.units import format_size

__all__ = ["up_rig"]

_WATCH_S = 0.5
_IN_THE_LAB = "`hwvirt run` boots the kernels for it; `hwvirt lab shell` boots one for a look around."


def up_rig(rig: Rig, *, json: bool) -> ExitCode:
    """Brings the rig up, redirecting, tells how to reach it, and takes it down when told to stop.

    Raises UsageError for a rig of the lab on any other kernel: that one's drivers and target are not the rig's to change.
    """
    if needs_lab(rig) and not in_guest():
        reason = f"rig {rig.name} has disks that only a kernel of the lab makes, and this is none"
        raise UsageError(f"{reason}.", next_step=_IN_THE_LAB)
    return uvloop.run(_up(rig, json))


async def _up(rig: Rig, json: bool) -> ExitCode:
    stop = asyncio.Event()
    on_stop(stop.set)
    trace = Trace("rig")
    if not json:
        trace.subscribe(_tell)
    async with AsyncExitStack() as stack:
        folder = _folder(rig, stack)
        bench = Bench(rig, folder, trace, redirect_at_start=True)
        if not await _unless(stop, bench.bring_up(stack)):
            return ExitCode.INTERRUPTED
        if json:
            sys.stdout.buffer.write(msgspec.json.encode(_description(bench)) + b"\n")
        else:
            _show(bench)
        sys.stdout.flush()
        while not stop.is_set():
            await bench.check_alive()
            try:
                async with asyncio.timeout(_WATCH_S):
                    await stop.wait()
            except TimeoutError:
                pass
    return ExitCode.PASSED


def _folder(rig: Rig, stack: AsyncExitStack) -> Path:
    """A folder that goes with the rig, unless the rig failed: then the error says where the logs are, if there are any."""
    folder = Path(tempfile.mkdtemp(prefix=f"hwvirt-{rig.name}-"))

    def leave(_kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None) -> None:
        if isinstance(error, HwvirtError) and any(folder.glob("*.log")):
            error.add_note(f"The logs are left in {folder}. Remove it when you have read them.")
        else:
            shutil.rmtree(folder)

    stack.push(leave)
    return folder


async def _unless(stop: asyncio.Event, work: Any) -> bool:
    """Whether the work was done; False when a signal came first: then it was cancelled."""
    working, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if working.done():
        await working
        return True
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    return False


def _description(bench: Bench) -> dict[str, Any]:
    return {
        "controllers": {name: {"socket": machine.control.address} for name, machine in bench.machines.items()},
        "luns": [
            {
                "controller": name,
                "lun": lun["lun"],
                "mode": lun["mode"],
                "state": lun["state"],
                "blocks": lun["blocks"],
                "block_bytes": lun["block_bytes"],
                "nbd": lun["export"],
            }
            for name, machine in bench.machines.items()
            for lun in machine.control.last_status["luns"]
        ],
    }


def _show(bench: Bench) -> None:
    described = _description(bench)
    table = Table(title=f"rig {bench.rig.name} is up", title_justify="left")
    for heading in ("LUN", "mode", "size", "block", "reach it by"):
        table.add_column(heading, no_wrap=True)
    for lun in described["luns"]:
        mode = f"{lun['mode']} ({lun['state']})" if lun["state"] else lun["mode"]
        size = format_size(lun["blocks"] * lun["block_bytes"])
        table.add_row(f"{lun['controller']}/{lun['lun']}", mode, size, format_size(lun["block_bytes"]), lun["nbd"])
    print_table(table, Fit.WHOLE)
    for name, controller in described["controllers"].items():
        print(f"controller {name}: hwvirt watch {controller['socket']}")
    print("Ctrl-C takes it down; the disks go with it.")


def _tell(event: Event) -> None:
    with suppress(OSError, ValueError):  # nobody reads it: the rig stays up
        print(event.line(), file=sys.stderr, flush=True)
