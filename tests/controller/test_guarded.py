"""A controller that names a real disk has it admitted before it opens it, and holds the claim as long as it runs."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from hwvirt.controller import daemon, guarded
from hwvirt.controller.config import Config, DiskConfig, GuardConfig, LunConfig, WindowConfig
from hwvirt.controller.daemon import Controller
from hwvirt.disk.discovery.uses import Use
from hwvirt.disk.guard import admit as guard
from hwvirt.disk.guard.wanted import WrongDisk
from hwvirt.disk.loop import LoopDisk, create_image
from hwvirt.errors import ExitCode, SafetyRefusal, UsageError
from hwvirt.scsi.volume import Access
from hwvirt.trace import Event, Trace
from tests.disk.guard.machine import GOOD, WINDOW, Machine
from tests.disk.guard.test_guard_refusals import GOOD_DISK, armed

HELD = [Access.READ_ONLY]


class Bench:
    """A machine whose armed disk is an image, and how often the guard held it when something was done to it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.machine = Machine()
        armed(self.machine)
        self.image = folder / "image"
        create_image(self.image, (WINDOW.lba + 64) * 512)
        self.opened: list[tuple[str, list[Access]]] = []
        self.closed: list[list[Access]] = []
        self.events: list[Event] = []
        monkeypatch.setattr(guard, "LinuxProbe", lambda: self.machine)
        monkeypatch.setattr(daemon, "open_disk", self._open)

    @property
    def claims(self) -> list[Access]:
        """Those of the disk, now."""
        return list(self.machine.disks[0].claims)

    def _open(self, kind: str, path: str, block_bytes: int, witness: str) -> LoopDisk:
        self.opened.append((path, self.claims))
        bench = self

        class Disk(LoopDisk):
            def close(self) -> None:
                bench.closed.append(bench.claims)
                super().close()

        return Disk(str(self.image), block_bytes)

    def config(self, path: str = GOOD.sg, blocks: int = 64) -> Config:
        """A controller with one LUN at the start of the window."""
        window = WindowConfig(*WINDOW)
        name = GuardConfig("desk", "first", GOOD.size_bytes, window, GOOD.wwn, GOOD.serial)
        return Config(
            name="a",
            state_dir=str(self.folder / "a.state"),
            control=str(self.folder / "a.sock"),
            disk=DiskConfig("first", path, "sg", 512, guard=name),
            luns=[LunConfig(0, "own", WINDOW.lba, blocks)],
        )

    def run(self, *configs: Config, while_they_run: Callable[[], None] = lambda: None) -> None:
        """The controllers are started one after the other, and stopped."""

        async def story() -> None:
            trace = Trace("a")
            trace.subscribe(self.events.append)
            async with AsyncExitStack() as stack:
                for config in configs:
                    await Controller(config, trace).start(stack)
                while_they_run()

        asyncio.run(story())


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(tmp_path, monkeypatch)
    before = bench.machine.bytes()
    yield bench
    assert (bench.claims, bench.machine.bytes()) == ([], before)


def test_disk_is_claimed_before_it_is_opened_and_until_it_is_closed(bench: Bench) -> None:
    running: list[list[Access]] = []
    bench.run(bench.config(), while_they_run=lambda: running.append(bench.claims))
    assert (bench.opened, running, bench.closed) == ([("/dev/sg2", HELD)], [HELD], [HELD])
    assert bench.claims == []
    (admitted,) = [event for event in bench.events if event.name == "disk.admitted"]
    assert admitted.fields == {"disk": "first", "node": "/dev/sg2", "identity": "/dev/sdc (ZL2001, 500.1 GB)"}


def test_link_to_the_node_is_followed_and_the_node_itself_is_opened(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "first").symlink_to("/dev/sg2")
    bench.run(bench.config(str(tmp_path / "first")))
    assert bench.opened == [("/dev/sg2", HELD)]


def test_disk_is_found_by_its_identity_under_its_new_nodes(bench: Bench, tmp_path: Path) -> None:
    bench.machine.disks[0].identity = replace(GOOD, sg="/dev/sg9", block="/dev/sde")
    (tmp_path / "first").symlink_to("/dev/sg9")
    bench.run(bench.config(str(tmp_path / "first")))
    assert bench.opened == [("/dev/sg9", HELD)]


def not_armed(machine: Machine) -> None:
    machine.disks[0].start[:] = bytes(4096)


def mounted(machine: Machine) -> None:
    machine.disks[0].uses.append(Use("/dev/sdc1 is mounted on /srv", "Unmount it (umount /srv), or name another disk."))


def claimed_by_a_run(machine: Machine) -> None:
    machine.disks[0].held_by = "it is claimed by process 812 (hwvirt run desk.yaml)"


def as_it_is(machine: Machine) -> None:
    pass


ANOTHER_NODE = (
    "its node for SG_IO is /dev/sg2, and the configuration's path is {}. "
    "Let `path` be /dev/sg2, or the link that udev makes: /dev/hwvirt-sg/desk/first."
)


@pytest.mark.parametrize(
    ("change", "path", "text"),
    [
        (not_armed, GOOD.sg, "it is not armed. Arm it: hwvirt arm, with the rig file."),
        (mounted, GOOD.sg, "/dev/sdc1 is mounted on /srv. Unmount it (umount /srv), or name another disk."),
        (
            claimed_by_a_run,
            GOOD.sg,
            "it is claimed by process 812 (hwvirt run desk.yaml). "
            "Find out who (fuser -v /dev/sdc), or name another disk.",
        ),
        (as_it_is, "/dev/sg3", ANOTHER_NODE.format("/dev/sg3")),
        (as_it_is, GOOD.block, ANOTHER_NODE.format(GOOD.block)),
    ],
    ids=["not armed", "mounted", "claimed by another run", "the node of another disk", "its block node"],
)
def test_wrong_disk_is_refused_and_never_opened(
    bench: Bench, change: Callable[[Machine], None], path: str, text: str
) -> None:
    change(bench.machine)
    before = bench.machine.bytes()
    with pytest.raises(WrongDisk) as caught:
        bench.run(bench.config(path))
    assert (str(caught.value), caught.value.exit_code) == (GOOD_DISK + text, ExitCode.REFUSED)
    assert (bench.opened, bench.claims, bench.machine.bytes()) == ([], [], before)
    armed(bench.machine)


def test_two_controllers_do_not_share_a_disk(bench: Bench) -> None:
    other = msgspec.structs.replace(bench.config(), name="b", state_dir=str(bench.folder / "b.state"))
    with pytest.raises(WrongDisk) as caught:
        bench.run(bench.config(), other)
    assert str(caught.value) == f"{GOOD_DISK}it is claimed by process 1. Wait."
    assert (bench.opened, bench.claims) == ([("/dev/sg2", HELD)], [])


def test_claim_is_given_back_when_the_start_fails_later(bench: Bench) -> None:
    with pytest.raises(UsageError, match="LUN 0 ends at block 2112, but disk first"):
        bench.run(bench.config(blocks=65))
    assert (bench.opened, bench.closed, bench.claims) == ([("/dev/sg2", HELD)], [HELD], [])


@pytest.mark.parametrize(("major", "free"), [(8, False), (253, False), (7, True)], ids=["sd", "device mapper", "loop"])
def test_block_device_that_is_named_as_a_file_is_refused_unless_it_is_a_loop_device(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, major: int, free: bool
) -> None:
    node = str(bench.folder / "sdc")
    found = SimpleNamespace(st_mode=stat.S_IFBLK | 0o660, st_rdev=os.makedev(major, 32))
    monkeypatch.setattr(guarded, "os", SimpleNamespace(stat=lambda path: {node: found}[path], major=os.major))
    config = msgspec.structs.replace(bench.config(), disk=DiskConfig("first", node, "file", 512))
    if free:
        bench.run(config)
    else:
        with pytest.raises(SafetyRefusal) as caught:
            bench.run(config)
        assert str(caught.value) == (
            f"refusing {node}: it is a block device, and of the kind 'file' are images and loop devices only. "
            "Name a SCSI disk as kind 'sg' with a guard: see docs/controller.md."
        )
        assert caught.value.exit_code is ExitCode.REFUSED
    assert bench.opened == ([(node, [])] if free else [])


def test_held_disk_is_opened_as_it_is_named_and_claimed_by_nobody_here(bench: Bench) -> None:
    config = bench.config("/dev/sg7")
    bench.run(msgspec.structs.replace(config, disk=msgspec.structs.replace(config.disk, guard="held")))
    assert (bench.opened, bench.machine.disks[0].claimed_for) == ([("/dev/sg7", [])], [])
