"""The udev rule, under a real udev: armed disks belong to the group hwvirt and have links, all others are as they were."""

from __future__ import annotations

import grp
import json
import shlex
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from hwvirt.disk.guard.install import install
from hwvirt.lab.attach import attach
from hwvirt.lab.disks import ScsiDebug
from hwvirt.lab.kernel import Kernel
from hwvirt.units import Deadline

UDEVD = Path("/lib/systemd/systemd-udevd")

pytestmark = [
    pytest.mark.lab,
    pytest.mark.timeout(300),  # a rig is run there; a busy machine takes its time
    pytest.mark.skipif(not UDEVD.exists() or shutil.which("udevadm") is None, reason="udev is missing: apt install udev"),
]

Ask: TypeAlias = Callable[[str], Any]
MIB = 1 << 20
NOBODY, GROUP = 65534, 900
SETUP = f"""
(cat /etc/group; echo hwvirt:x:{GROUP}:) >/run/group
mount --bind /run/group /etc/group
mkdir -p /run/udev/rules.d
cp /mnt/root/etc/udev/rules.d/71-hwvirt.rules /run/udev/rules.d/
{UDEVD} --daemon
"""


def open_to_others(*paths: str | Path) -> Iterator[str]:
    """Shell commands that let users without privileges reach our Python in a guest, also from below a closed home."""
    closed: dict[Path, list[Path]] = {}
    for path in map(Path, paths):
        for folder in reversed(path.parents):
            if not folder.stat().st_mode & stat.S_IXOTH:
                closed.setdefault(folder, []).append(path)
                break
    for folder, inside in closed.items():
        yield f"mount -t tmpfs -o mode=755 tmp {shlex.quote(str(folder))}"
        for place in map(shlex.quote, map(str, inside)):
            yield f"mkdir -p {place} && mount -r -t hostfs -o {place} none {place}"


def soon() -> Deadline:
    return Deadline.after(90)


def rows(first_group: int, first_links: bool, sg: str = "/dev/sg0") -> list[list[object]]:
    """As guest_udev tells them: sda and sg0 with this group, sdb and sg1 as ever."""
    disk = grp.getgrnam("disk").gr_gid
    groups = [("/dev/sda", first_group), (sg, first_group), ("/dev/sdb", disk), ("/dev/sg1", disk)]
    links: list[list[object]] = [["/dev/hwvirt/desk/first", "/dev/sda"], ["/dev/hwvirt-sg/desk/first", sg]]
    return [*[[node, group, "0o660"] for node, group in groups], *(links if first_links else [])]


def unarmed(sg: str = "/dev/sg0") -> list[list[object]]:
    return rows(grp.getgrnam("disk").gr_gid, first_links=False, sg=sg)


def armed() -> list[list[object]]:
    return rows(GROUP, first_links=True)


@pytest.fixture(scope="module")
def ask(kernel: Kernel) -> Iterator[Ask]:
    list(install(kernel.share / "root"))
    reach = open_to_others(sys.prefix, sys.base_prefix, Path(__file__).parents[2])
    kernel.run(["sh", "-ec", "\n".join([SETUP, *reach])], soon())
    attach(kernel, [ScsiDebug(4 * MIB, parameters={"lbpu": "1", "lbpws": "1"})] * 2, soon())
    job = kernel.start([sys.executable, "-m", "tests.lab.guest_udev"])

    def ask(question: str) -> Any:
        job.send(f"{question}\n".encode(), soon())
        answer = job.line(soon())
        assert answer is not None, kernel.console.read_text()[-3000:]
        return json.loads(answer)

    yield ask


def test_armed_disk_belongs_to_the_group_and_has_links_until_it_is_disarmed(ask: Ask) -> None:
    assert ask("arm") == armed()
    label = {"HWVIRT_RIG": "desk", "HWVIRT_ROLE": "first"}
    assert ask("probe") == [label, label, {}, {}]
    assert ask("disarm") == unarmed()


def test_member_of_the_group_runs_a_rig_without_any_capability_and_gets_no_other_disk(ask: Ask) -> None:
    ask("arm")
    ran, other_sg, other_block = ask("member")
    assert ran == "WRITE(16) GOOD, SYNCHRONIZE CACHE(16) GOOD, UNMAP GOOD, WRITE SAME(16) GOOD"
    assert other_sg.startswith("cannot open /dev/sg1: Permission denied.")
    assert other_block.startswith("cannot open /dev/sdb: Permission denied.")
    assert "SG_IO: Operation not permitted" in ask("member by block node")


def test_member_of_the_group_runs_a_rig_on_armed_disks_by_the_program(ask: Ask) -> None:
    ask("arm")
    denied, armed_by_member, links, ran, held, owner = ask("member runs a rig")
    refusal = "cannot open /dev/sdb: Permission denied. Armed disks belong to the group hwvirt (hwvirt udev install)"
    for code, told in (denied, armed_by_member):
        assert (code, refusal in " ".join(told.split())) == (4, True), told
    assert links == ["/dev/sg0", "/dev/sg1"]
    assert ran[0] == 0, ran[1]
    assert set(held.values()) == {"held"}
    assert {"untouched", "complete", "exact", "content", "consistent", "frozen", "conserved"} <= set(held)
    assert owner == NOBODY


def test_member_of_the_group_runs_a_controller_by_itself_whose_path_is_the_link(ask: Ask) -> None:
    ask("arm")
    code, said = ask("member runs a controller")
    assert code == 0, said
    (admitted,) = [line for line in said if "disk.admitted" in line]
    assert admitted.endswith("disk=first node=/dev/sg0 identity=/dev/sda (2000, 4.2 MB)"), said
    assert [line for line in said if "controller.started" in line] != []


def test_armed_disk_that_is_plugged_in_again_is_open_again(ask: Ask) -> None:
    ask("arm")
    gone, back = ask("pull and plug")
    assert gone == [["/dev/sdb", *unarmed()[2][1:]], ["/dev/sg1", *unarmed()[3][1:]]]
    assert back == armed()


def test_file_system_over_the_label_closes_the_disk(ask: Ask) -> None:
    ask("arm")
    assert ask("format")[0] == unarmed()[0]
