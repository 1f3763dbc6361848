"""A controller on a kernel of its own: its socket closes before anybody can say why."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hwvirt.errors import ControllerError
from hwvirt.rig.far_bench import FarBench, FarMachine
from hwvirt.rig.file import load_rig
from hwvirt.trace import Trace

ROOT = Path(__file__).parents[3]


def test_the_reason_that_comes_later_than_the_end_is_told(tmp_path: Path) -> None:
    async def story() -> None:
        rig = load_rig(ROOT / "rigs/lab-two-kernels.yaml")
        nowhere = FarMachine("127.0.0.1:1", "127.0.0.1:1")
        bench = FarBench(rig, tmp_path, Trace("rig"), dict.fromkeys(rig.controllers, nowhere))
        asyncio.get_running_loop().call_later(0.05, bench._lost, "a", "controller a ended with code 3.")
        with pytest.raises(ControllerError) as ended:
            await bench.check_alive()
        assert str(ended.value) == "controller a ended with code 3. What it said is in kernel-a.log."

    asyncio.run(story())


def test_an_end_without_a_reason_is_told_as_it_was_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwvirt.rig.far_bench._REASON_S", 0.05)

    async def story() -> None:
        rig = load_rig(ROOT / "rigs/lab-two-kernels.yaml")
        nowhere = FarMachine("127.0.0.1:1", "127.0.0.1:1")
        bench = FarBench(rig, tmp_path, Trace("rig"), dict.fromkeys(rig.controllers, nowhere))
        with pytest.raises(ControllerError, match=r"^controller a is not running\.$"):
            await bench.check_alive()

    asyncio.run(story())
