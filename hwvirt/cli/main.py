"""The program `hwvirt`: its commands, each a module beside this one, and the exit code they end with.

A command imports what it calls inside its function: `hwvirt --help` must not wait for numpy and uvloop.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import hwvirt
from hwvirt.cli.arm import arm, disarm
from hwvirt.cli.check import check
from hwvirt.cli.controller import controller
from hwvirt.cli.ctl import ctl
from hwvirt.cli.doctor import doctor
from hwvirt.cli.exits import exits, output_failed, ready_standard_streams
from hwvirt.cli.explore import explore
from hwvirt.cli.lab import lab_shell
from hwvirt.cli.new import new_rig
from hwvirt.cli.run import run
from hwvirt.cli.scan import scan
from hwvirt.cli.udev import udev_check, udev_install, udev_probe
from hwvirt.cli.up import up
from hwvirt.cli.watch import watch

__all__ = ["main"]

_EXIT_CODES = (
    "Exit codes: 0 passed, 1 a property is broken, 2 usage or rig file, 3 refused for safety, "
    "4 infrastructure, 5 nothing ran or less than expected, 130 interrupted, "
    "141 nobody read the output."
)


def main() -> None:
    """Runs the command line and exits with its code."""
    ready_standard_streams()
    try:
        _app()(prog_name="hwvirt")
    except OSError as error:  # help and usage are printed outside of any command
        sys.exit(output_failed(error))
    except SystemExit as end:  # typer and rich end with 1 where nobody reads what they print
        if isinstance(end.__context__, BrokenPipeError):
            sys.exit(output_failed(end.__context__))
        raise


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"hwvirt {hwvirt.__version__}")
        raise typer.Exit


def _app() -> typer.Typer:
    app = _group("Redirect-on-write between two storage controllers, on a bench, judged.", epilog=_EXIT_CODES)
    app.callback()(_program)
    for command in (run, up, check, explore, controller, ctl, watch, doctor, scan, arm, disarm):
        app.command()(exits(command))
    new = _group("Write a commented template.")
    new.command("rig")(exits(new_rig))
    app.add_typer(new, name="new")
    lab = _group("The virtual bench without a rig.")
    lab.command("shell")(exits(lab_shell))
    app.add_typer(lab, name="lab")
    udev = _group("Access to armed disks for an unprivileged user.")
    udev.command("install")(exits(udev_install))
    udev.command("check")(exits(udev_check))
    udev.command("probe")(exits(udev_probe))
    app.add_typer(udev, name="udev")
    return app


def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options of the program itself; typer calls it before a command."""


def _group(help_text: str, epilog: str | None = None) -> typer.Typer:
    return typer.Typer(
        help=help_text,
        epilog=epilog,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
