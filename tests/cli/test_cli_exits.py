"""Every way in which a command can end has its exit code and its words."""

from __future__ import annotations

import pytest
import typer

from hwvirt.cli.exits import exits
from hwvirt.errors import (
    ControllerError,
    DiskError,
    ExitCode,
    HwvirtError,
    NothingRan,
    PeerError,
    RigFileError,
    SafetyRefusal,
    StateError,
    UsageError,
)


def code_of(outcome: ExitCode | BaseException) -> int:
    def command() -> ExitCode:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    with pytest.raises(typer.Exit) as caught:
        exits(command)()
    return caught.value.exit_code


@pytest.mark.parametrize("code", ExitCode)
def test_code_that_a_command_returns_is_the_code_of_the_program(code: ExitCode) -> None:
    assert code_of(code) == int(code)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("no"), 2),
        (RigFileError("rig.yaml", 1, 2, "no"), 2),
        (SafetyRefusal("no"), 3),
        (DiskError("no"), 4),
        (PeerError("no"), 4),
        (ControllerError("no"), 4),
        (StateError("no"), 4),
        (NothingRan("no"), 5),
    ],
    ids=lambda value: type(value).__name__,
)
def test_family_of_an_error_is_its_exit_code(error: HwvirtError, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(error) == code
    assert capsys.readouterr() == ("", f"hwvirt: {error}\n")


def test_notes_of_an_error_are_said_too(capsys: pytest.CaptureFixture[str]) -> None:
    error = ControllerError("controller b is gone.", next_step="Its log: b.log.")
    error.add_note("Its folder stays.")
    assert code_of(error) == 4
    assert capsys.readouterr().err == "hwvirt: controller b is gone. Its log: b.log. Its folder stays.\n"


def test_interruption_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "hwvirt: interrupted\n"


def test_trouble_with_the_machine_is_infrastructure_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(OSError(28, "No space left on device", "runs")) == 4
    assert capsys.readouterr().err == "hwvirt: [Errno 28] No space left on device: 'runs'\n"


def test_a_bug_says_so_and_never_looks_like_a_broken_property(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(ZeroDivisionError("a bug")) == 4
    said = capsys.readouterr().err
    assert "ZeroDivisionError: a bug" in said
    assert said.endswith("hwvirt: this is a bug in hwvirt. Please report it with the lines above.\n")
