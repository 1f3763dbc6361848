"""What a controller's configuration makes of a rig that a slow line has to carry."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest

from hwvirt.controller.config import UP_WITHIN_S, LinkConfig, SerialConfig
from hwvirt.link.config import Role, SerialLink
from hwvirt.rig.configure import Places, configure, slow_start_s
from hwvirt.rig.file import parse_rig
from hwvirt.rig.file.model import Rig
from tests.link.serial.line import Bench, traits
from tests.link.serial.talk import Talker, timing_of

PLACES = Places(PurePath("/run"), PurePath("/run/sock"), PurePath("/run/secret"), "file", "/disk", 4096, ("127.0.0.1", 1))


def rig_with(link: str, size: str = "1MiB") -> Rig:
    return parse_rig(
        f"""\
rig: line
disks: {{one: {{loop: {{size: {size}}}}}, two: {{loop: {{size: 256MiB}}}}}}
controllers: {{a: {{disk: one, luns: {{0: redirect}}}}, b: {{disk: two}}}}
link: {link}
scenarios: [{{name: x, steps: [judge: all]}}]
""",
        Path("rig.yaml"),
    )


def up_within_s(rig: Rig) -> float:
    link = configure(rig, "a", PLACES, redirect_at_start=False).link
    assert link is not None
    return link.up_within_s


def test_what_needs_no_more_time_has_no_more() -> None:
    assert LinkConfig("connect", "b", "secret").up_within_s == UP_WITHIN_S
    assert up_within_s(rig_with("ethernet")) == UP_WITHIN_S
    assert up_within_s(rig_with("{serial: {baud: 3000000}}")) < UP_WITHIN_S + 1


@pytest.mark.parametrize("baud", [300, 1200, 9600, 115_200])
@pytest.mark.parametrize("packs", [True, False])
def test_a_line_of_any_rate_is_up_in_the_time_that_its_controllers_wait(baud: int, packs: bool) -> None:
    """In virtual time; also when its first handshake is in vain."""
    of = traits(baud=baud, packs=packs)
    bench = Bench(of)
    a, b = Talker(bench.a, Role.CONNECT, timing_of(of)), Talker(bench.b, Role.LISTEN, timing_of(of))
    assert bench.run(up_within_s(rig_with(f"{{serial: {{baud: {baud}}}}}")) / 2, lambda: a.up and b.up)


def test_a_ledger_that_has_to_cross_the_line_has_the_time_for_it() -> None:
    rig = rig_with("{serial: {baud: 115200}}", "64MiB")
    assert slow_start_s(rig) > 16_384 * 40 / 11_520


def test_a_controller_waits_for_longer_than_a_handshake_of_its_link_may_take() -> None:
    for baud in (300, 1200, 9600):
        line = SerialConfig("/dev/ttyS0", baud)
        timing = SerialLink(Role.CONNECT, line.device, line.baud, b"secret").paced_timing
        assert timing.handshake_s < up_within_s(rig_with(f"{{serial: {{baud: {baud}}}}}"))
