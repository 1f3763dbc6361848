"""The serial line of a rig file: its keys, and what it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwvirt.errors import RigFileError
from hwvirt.link.config import Compression, Flow
from hwvirt.rig.file import parse_rig
from hwvirt.rig.file.model import Rig, Serial

TTYS = "devices: {a: /dev/ttyUSB0, b: rfc2217://10.0.0.7:2217}"


def parse(link: str, fault: str = "crash: b", disk: str = "loop", lab: str = "shared", kind: str = "serial") -> Rig:
    return parse_rig(
        f"""\
rig: line
disks: {{one: {{{disk}: {{size: 4MiB}}}}, two: {{{disk}: {{size: 4MiB}}}}}}
controllers: {{a: {{disk: one, luns: {{0: {{redirect: {{size: 1MiB}}}}}}}}, b: {{disk: two}}}}
link: {{{kind}: {{{link}}}}}
lab: {{kernels: {lab}}}
scenarios:
  - name: on a line
    steps:
      - workload: {{lun: 0, ops: 10, mix: {{write: 100}}}}
        faults: [{{at: 50%, {fault}}}]
""",
        Path("rig.yaml"),
    )


def test_a_line_has_defaults() -> None:
    assert parse("").link == Serial(115_200, 30.0, Flow.NONE, Compression.ZSTD, None)


def test_every_key_of_a_line_is_typed() -> None:
    found = parse(f"baud: 921600, stall: 2s, flow: rtscts, compression: none, {TTYS}").link
    devices = {"a": "/dev/ttyUSB0", "b": "rfc2217://10.0.0.7:2217"}
    assert found == Serial(921_600, 2.0, Flow.RTSCTS, Compression.NONE, devices)


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("bauds: 9600", "4:17: link.serial: unknown key 'bauds'. Did you mean 'baud'?"),
        ("baud: 299", "4:23: link.serial.baud: must be 300 to 100000000, not 299"),
        ("flow: xonxoff", "4:23: link.serial.flow: unknown word 'xonxoff'. Known: none, rtscts."),
        ("compression: zst", "4:30: link.serial.compression: unknown word 'zst'. Did you mean 'zstd'?"),
        ("devices: {a: /dev/ttyS0}", "4:26: link.serial.devices: key 'b' is missing"),
        ("devices: {a: /dev/ttyS0, c: /dev/ttyS1}", "4:42: link.serial.devices: unknown key 'c'. Known: a, b."),
        ("devices: /dev/ttyS0", "4:26: link.serial.devices: must be a mapping, not '/dev/ttyS0'"),
        (
            "devices: {a: ttyS0, b: /dev/ttyS1}",
            "4:30: link.serial.devices.a: 'ttyS0' is no device. Write it like /dev/ttyUSB0 or rfc2217://HOST:PORT.",
        ),
        (
            "devices: {a: /dev/ttyS0, b: /dev/ttyS0}",
            "4:45: link.serial.devices.b: '/dev/ttyS0' is the device of another controller, too. A line has two ends.",
        ),
    ],
)
def test_what_a_line_cannot_be_is_refused(link: str, message: str) -> None:
    with pytest.raises(RigFileError) as caught:
        parse(link)
    assert str(caught.value) == f"rig.yaml:{message}"


@pytest.mark.parametrize("disk", ["scsi-debug", "tcm-loop", "tcmu"])
@pytest.mark.parametrize("lab", ["shared", "each"])
def test_devices_of_this_machine_are_refused_in_the_lab(disk: str, lab: str) -> None:
    with pytest.raises(RigFileError) as caught:
        parse(TTYS, "restart: b", disk, lab)
    assert str(caught.value) == (
        "rig.yaml:4:26: link.serial.devices: disk 'one' is one of the lab, whose kernels see no device of this machine. "
        "Leave `devices` out: between kernels the run lays the line itself."
    )
    assert parse("", "restart: b", disk, lab).name == "line"


@pytest.mark.parametrize("fault", ["cut, for: 1s", "{half-open: b}, for: 1s", "{flip: 1}", "{rate: 10kbit}, for: 1s"])
def test_faults_of_a_line_that_is_not_ours_are_refused(fault: str) -> None:
    kind = fault.strip("{").partition(":")[0].partition(",")[0]
    with pytest.raises(RigFileError) as caught:
        parse(TTYS, f"link: {fault}")
    assert str(caught.value) == (
        f"rig.yaml:10:34: scenarios[0].steps[0].faults[0].link: '{kind}' needs a line that the run lays itself; nobody here "
        "can reach the one between two devices. Leave `devices` of the link out, or spoil that line by hand."
    )
    assert parse(TTYS).name == "line"


@pytest.mark.parametrize(
    ("baud", "disk", "lab", "longest"),
    [
        (115_200, "loop", "shared", 23),
        (9600, "loop", "shared", 8),
        (3_000_000, "loop", "shared", 600),
        (115_200, "tcm-loop", "shared", 23),
        (115_200, "tcm-loop", "each", 115),
        (3_000_000, "tcm-loop", "each", 256),
    ],
)
def test_a_frame_cannot_end_behind_the_longest_run_of_the_line(baud: int, disk: str, lab: str, longest: int) -> None:
    link = f"baud: {baud}"
    assert parse(link, f"link: {{truncate: {longest - 1}B}}", disk, lab).name == "line"
    with pytest.raises(RigFileError) as caught:
        parse(link, f"link: {{truncate: {longest}B}}", disk, lab)
    assert str(caught.value) == (
        f"rig.yaml:10:45: scenarios[0].steps[0].faults[0].link.truncate: no run of bytes on this line is longer than "
        f"{longest} bytes, so none is cut at byte {longest}. Use a byte below {longest}."
    )


def test_a_frame_between_kernels_cannot_end_behind_the_longest_one_of_ethernet() -> None:
    def over(byte: int, disk: str, lab: str) -> Rig:
        return parse("", f"link: {{truncate: {byte}B}}", disk, lab, kind="ethernet")

    assert over(1513, "tcm-loop", "each").name == over(5000, "tcm-loop", "shared").name == over(5000, "loop", "shared").name
    with pytest.raises(RigFileError) as caught:
        over(1514, "tcm-loop", "each")
    assert str(caught.value) == (
        "rig.yaml:10:45: scenarios[0].steps[0].faults[0].link.truncate: no frame on this cable is longer than 1514 bytes, "
        "so none is cut at byte 1514. Use a byte below 1514."
    )
