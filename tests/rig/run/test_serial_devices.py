"""A rig over a serial line that is somebody else's: the run opens its two ends and lays nothing."""

from __future__ import annotations

import io
import json
import termios
from pathlib import Path

import pytest

from hwvirt.cli.summary import show
from hwvirt.errors import ExitCode
from hwvirt.rig.describe import print_dry_run
from hwvirt.rig.file import parse_rig
from tests.link.serial.cable import PtyCable
from tests.rig.run.kit import FILL, JUDGE, REDIRECT, rig_of, run, workload

BAUD = 3_000_000
CFLAG = 2


def on_line(line: str, *steps: str) -> str:
    text = rig_of(*steps, first="1MiB", second="4MiB")
    return text.replace("link: {ethernet: {stall: 10s}}", f"link: {{serial: {{baud: {BAUD}, stall: 30s, {line}}}}}")


def devices(a: object, b: object) -> str:
    return f"devices: {{a: {a}, b: {b}}}"


@pytest.mark.parametrize(("flow", "compression"), [("none", "zstd"), ("rtscts", "none")])
def test_a_rig_runs_over_two_devices_as_its_file_says(tmp_path: Path, flow: str, compression: str) -> None:
    steps = (FILL, REDIRECT, workload(60, depth=4, blocks="1..2"), JUDGE)
    with PtyCable(BAUD) as cable:
        words = f"flow: {flow}, compression: {compression}, {devices(*cable.devices)}"
        ran = run(on_line(words, *steps), tmp_path)
        asked = [bool(termios.tcgetattr(slave)[CFLAG] & termios.CRTSCTS) for slave in cable._slaves]
    assert (ran.code, ran.report["verdict"], ran.verdicts["exact"]) == (ExitCode.PASSED, "passed", "held")
    assert asked == [flow == "rtscts"] * 2, "the driver of the tty is asked for what the rig file says"
    for name, device in zip("ab", cable.devices, strict=True):
        line = json.loads((ran.folder / f"{name}.json").read_bytes())["link"]["serial"]
        assert (line["device"], line.get("flow", "none"), line.get("compression", "zstd")) == (device, flow, compression)


def test_words_of_the_line_reach_the_controllers_also_where_the_run_lays_it(tmp_path: Path) -> None:
    ran = run(on_line("flow: rtscts, compression: none", FILL, JUDGE), tmp_path)
    assert ran.code is ExitCode.PASSED
    for name in "ab":
        line = json.loads((ran.folder / f"{name}.json").read_bytes())["link"]["serial"]
        assert (line["baud"], line["flow"], line["compression"]) == (BAUD, "rtscts", "none")


def test_a_device_that_is_not_there_is_told_with_whose_it_is(tmp_path: Path) -> None:
    with PtyCable(BAUD) as cable:
        ran = run(on_line(devices(cable.devices[0], "/dev/no-such-tty"), FILL), tmp_path)
    assert ran.code is ExitCode.INFRASTRUCTURE
    assert ran.reason.endswith(
        "link: there is no /dev/no-such-tty for controller b. Correct `devices` of the link, or connect the adapter."
    )


def test_devices_are_shown_before_anything_is_opened(capsys: pytest.CaptureFixture[str]) -> None:
    rig = parse_rig(on_line(devices("/dev/ttyUSB0", "rfc2217://10.0.0.7:2217"), FILL), Path("rig.yaml"))
    show(rig)
    assert "link serial at 3000000 baud from /dev/ttyUSB0 to rfc2217://10.0.0.7:2217, stall 30s\n" in capsys.readouterr().out
    out = io.StringIO()
    print_dry_run(rig, out)
    assert "would use /dev/ttyUSB0 as the end of the serial line at controller a\n" in out.getvalue()
