"""A controller's kernel loses its power, and with it what was not synced; it boots again, and the controller runs."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from hwvirt.lab.cables import DirectEthernet
from hwvirt.lab.kernel import ProgramFailed
from hwvirt.rig.file import parse_rig
from hwvirt.rig.seat import Seat
from hwvirt.units import Deadline

pytestmark = pytest.mark.lab

RIG = """\
rig: apart
lab: {kernels: each}
disks: {one: {tcm-loop: {size: 1MiB, backing: file}}, two: {tcm-loop: {size: 4MiB, backing: file}}}
controllers: {a: {disk: one, luns: {0: redirect}}, b: {disk: two}}
scenarios:
  - name: no power
    steps: [crash: b]
"""


def test_a_power_cut_takes_what_was_not_synced_and_the_controller_runs_again(tmp_path: Path) -> None:
    with ExitStack() as stack:
        cables = [DirectEthernet() for _ in range(2)]
        for cable in cables:
            stack.callback(cable.close)
        ends = [cable.ends[1] for cable in cables]
        seat = Seat(parse_rig(RIG, Path("rig.yaml")), "b", tmp_path, ends, (ends[1].ip, 7001))
        seat.prepare("secret", None)
        stack.callback(seat.kernel.power_cut)

        def run(script: str) -> str:
            return seat.kernel.run(["sh", "-c", script], Deadline.after(60))

        seat.start()
        run("until [ -S /run/hwvirt.sock ]; do sleep 0.1; done")
        run("cd state; echo kept >kept; sync kept; echo lost >lost; cat lost; ls b")
        seat.cut_power()
        assert not seat.kernel.is_on
        assert seat.ended() == ""
        seat.start()
        run("until [ -S /run/hwvirt.sock ]; do sleep 0.1; done")
        assert run("cat state/kept") == "kept\n"
        with pytest.raises(ProgramFailed):
            run("cat state/lost")
        seat.stop()
        assert seat.ended() == ""
        seat.start()
        seat.give_back()
