"""`hwvirt scan`, `arm`, `disarm` and `controller` on SCSI disks, beside the commands of others; a disk pulled under load."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from hwvirt.lab.attach import attach
from hwvirt.lab.disks import ScsiDebug, TcmLoop
from hwvirt.lab.kernel import SHARE_IN_GUEST, Kernel
from hwvirt.units import Deadline

pytestmark = pytest.mark.lab

MIB = 1 << 20
REST = """
controllers: {a: {disk: disk-1, luns: {0: {own: {size: 1MiB}}}}}
scenarios: [{name: nothing, steps: [{judge: all}]}]
"""


def soon() -> Deadline:
    return Deadline.after(60)


class Machine:
    """A kernel with SCSI disks, and `hwvirt` there."""

    def __init__(self, kernel: Kernel, specs: Sequence[ScsiDebug | TcmLoop]) -> None:
        self.kernel = kernel
        self.disks = attach(kernel, specs, soon()).disks
        self._program = kernel.start([sys.executable, "-m", "tests.lab.guest_program"])

    def hwvirt(self, command: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        self._program.send(f"{command}\n".encode(), soon())
        answer = self._program.line(soon())
        assert answer is not None, self.kernel.console.read_text()[-3000:]
        code, out, err = json.loads(answer)
        return code, out, err

    def fine(self, command: str) -> str:
        """Standard output of a command that has nothing to complain about."""
        code, out, err = self.hwvirt(command)
        assert (code, err) == (0, "")
        return out

    def rig(self, name: str, disks: str) -> None:
        """The rig file NAME.yaml."""
        (self.kernel.share / f"{name}.yaml").write_text(f"rig: {name}\n{disks}{REST}")

    def shell(self, command: str) -> str:
        return self.kernel.run(["sh", "-c", command], soon())

    def controller(self, name: str, disk: dict[str, Any], **changes: Any) -> None:
        """The configuration NAME.json, with one LUN on a disk that is armed as disk-1 of rig desk."""
        identity = {key: disk[key] for key in ("wwn", "serial", "size_bytes")}
        guard = {"rig": "desk", "role": "disk-1", **identity, "window": {"lba": 2048, "blocks": 12288}}
        config = {
            "name": name,
            "state_dir": f"/tmp/{name}.state",
            "control": f"/tmp/{name}.sock",
            "disk": {"name": "first", "path": disk["sg"], "kind": "sg", "block_bytes": 512, "guard": guard, **changes},
            "luns": [{"lun": 0, "mode": "own", "lba": 2048, "blocks": 2048}],
        }
        (self.kernel.share / f"{name}.json").write_text(json.dumps(config))

    @contextmanager
    def serving(self, name: str) -> Iterator[None]:
        """The controller of NAME.json, from when it serves until SIGTERM, which it obeys with exit code 0."""
        command = [sys.executable, "-m", "hwvirt", "controller", f"{name}.json"]
        job = self.kernel.start(["sh", "-c", 'exec "$@" 2>&1', "sh", *command])
        said: list[str] = []
        while not said or "controller.started" not in said[-1]:
            line = job.line(soon())
            assert line is not None, said
            said.append(line)
        yield
        self.kernel.signal(job, "TERM")
        assert job.wait(soon()) == 0

    def digest(self, block: str) -> str:
        """Of every byte of a disk, read past all caches."""
        return self.shell(f"dd if={block} bs=1M iflag=direct 2>/dev/null | sha256sum")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Kernel("a", tmp_path_factory.mktemp("a")) as kernel:
        (kernel.share / "image").write_bytes(bytes(8 * MIB))
        yield Machine(kernel, [ScsiDebug(8 * MIB), TcmLoop("second", str(SHARE_IN_GUEST / "image"), 8 * MIB, 4096)])


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Two disks that say that they are the same."""
    with Kernel("b", tmp_path_factory.mktemp("b")) as kernel:
        yield Machine(kernel, [ScsiDebug(8 * MIB, parameters={"vpd_use_hostno": "0"})] * 2)


@pytest.fixture(scope="module")
def found(machine: Machine) -> list[dict[str, Any]]:
    disks: list[dict[str, Any]] = json.loads(machine.fine("scan --json"))
    return disks


def test_others_say_the_same_of_each_disk(machine: Machine, found: list[dict[str, Any]]) -> None:
    listed = [line.split() for line in machine.shell("lsscsi --generic").splitlines()]
    assert len(listed) == 2
    for disk, theirs in zip(found, listed, strict=True):
        facts = [f"[{disk['address']}]", "disk", *(disk[key] for key in ("vendor", "model", "firmware", "block", "sg"))]
        assert theirs == facts
        said = machine.shell(f"sg_inq {disk['sg']}; sg_vpd --page=di {disk['sg']}; sg_readcap --long {disk['sg']}")
        assert f"Unit serial number: {disk['serial']}\n" in said
        assert f"0x{disk['wwn'].removeprefix('naa.')}\n" in said
        assert f"Number of logical blocks={disk['size_bytes'] // disk['block_bytes']}\n" in said
        assert f"Logical block length={disk['block_bytes']} bytes\n" in said
        assert (disk["transport"], disk["armed"], disk["reasons"]) == ("virtual", "not armed", [])


def test_what_scan_prints_is_armed_and_disarmed(machine: Machine, found: list[dict[str, Any]]) -> None:
    pasted = machine.fine("scan --yaml")
    machine.rig("desk", pasted)
    machine.rig("cellar", pasted)
    assert "own   disk-1  2048       2048    1MiB" in machine.fine("check desk.yaml")
    first, second = (f"{disk['block']} ({disk['serial']}, 8.4 MB)" for disk in found)
    assert machine.fine("arm desk.yaml --dry-run") == (
        f"would arm {first} as disk disk-1 of rig desk\nwould arm {second} as disk disk-2 of rig desk\n"
    )
    assert machine.shell("cat /dev/sda /dev/sdb | tr -d '\\0' | wc -c") == "0\n"
    assert machine.fine("arm desk.yaml --disk disk-2") == f"armed {second} as disk disk-2 of rig desk\n"
    assert machine.fine("arm desk.yaml").count("armed /dev/sd") == 2
    rows = machine.fine("scan").splitlines()[1:]
    assert [row.rstrip().split("  ")[-1] for row in rows] == ["armed for desk as disk-1", "armed for desk as disk-2"]
    assert machine.shell("head -1 /dev/sdb") == "hwvirt disk label 1\n"
    code, out, err = machine.hwvirt("disarm cellar.yaml")
    assert (code, out) == (3, "")
    assert err.startswith(f"hwvirt: refusing {first} as disk disk-1 of rig cellar: it is armed for rig desk since 20")
    assert err.endswith(". Disarm it with the rig file of desk: hwvirt disarm.\n")
    assert machine.fine("disarm desk.yaml --dry-run") == f"would disarm {first}\nwould disarm {second}\n"
    assert machine.fine("disarm desk.yaml") == f"disarmed {first}\ndisarmed {second}\n"
    assert machine.fine("disarm desk.yaml") == "nothing to do: no disk of this rig is armed\n"
    assert machine.shell("cat /dev/sda /dev/sdb | tr -d '\\0' | wc -c") == "0\n"


def test_arming_what_is_no_real_disk_is_usage(machine: Machine) -> None:
    machine.rig("made", "disks: {disk-1: {loop: {size: 8MiB}}}")
    assert machine.hwvirt("arm made.yaml") == (
        *(2, ""),
        "hwvirt: made.yaml has no real disk: only those are armed. See `sg` in docs/rig-file.md.\n",
    )
    assert machine.hwvirt("arm made.yaml --disk disk-1") == (
        *(2, ""),
        "hwvirt: disk disk-1 of made.yaml is made by the run: only real disks are armed. Real disks there: none.\n",
    )
    assert machine.hwvirt("scan --json --yaml") == (2, "", "hwvirt: --json and --yaml do not go together. Choose one.\n")


def test_controller_by_itself_has_only_the_disk_that_was_armed_and_alone(
    machine: Machine, found: list[dict[str, Any]]
) -> None:
    disk, other = found
    block = disk["block"]
    refusing = f"hwvirt: refusing {block} ({disk['serial']}, 8.4 MB) as disk disk-1 of rig desk: "

    def refused(name: str) -> str:
        before = machine.digest(block)
        code, out, err = machine.hwvirt(f"controller {name}.json")
        assert (code, out, machine.digest(block)) == (3, "", before), err
        return err.removeprefix(refusing)

    for name in ("a", "b"):
        machine.controller(name, disk)
    machine.controller("c", disk, path=other["sg"])
    machine.controller("d", disk, path=block, kind="file", guard=None)
    machine.rig("desk", machine.fine("scan --yaml"))
    assert refused("d") == (
        f"hwvirt: refusing {block}: it is a block device, and of the kind 'file' are images and loop devices only. "
        "Name a SCSI disk as kind 'sg' with a guard: see docs/controller.md.\n"
    )
    assert refused("a") == "it is not armed. Arm it: hwvirt arm, with the rig file.\n"

    machine.shell(f"mkfs.ext4 -qF {block}; mkdir -p /tmp/point; mount -o ro {block} /tmp/point")
    assert refused("a") == f"{block} is mounted on /tmp/point. Unmount it (umount /tmp/point), or name another disk.\n"
    machine.shell(f"umount {block}; dd if=/dev/zero of={block} bs=1M count=8 conv=fsync")

    machine.fine("arm desk.yaml --disk disk-1")
    assert refused("c") == (
        f"its node for SG_IO is {disk['sg']}, and the configuration's path is {other['sg']}. "
        f"Let `path` be {disk['sg']}, or the link that udev makes: /dev/hwvirt-sg/desk/disk-1.\n"
    )
    with machine.serving("a"):
        status = json.loads(machine.fine("ctl /tmp/a.sock status"))
        assert (status["ready"], status["disk"]["path"], status["luns"][0]["blocks"]) == (True, disk["sg"], 2048)
        claimed = refused("b")
        by, remedy = r"process [0-9]+ \(\S+ -m hwvirt controller a\.json\)", "Wait until that run has ended, or stop it."
        assert re.fullmatch(rf"it is claimed by {by}\. {re.escape(remedy)}\n", claimed), claimed
    machine.fine("disarm desk.yaml")
    assert machine.shell("cat /dev/sda /dev/sdb | tr -d '\\0' | wc -c") == "0\n"


def test_two_disks_with_one_wwn_are_refused(twins: Machine) -> None:
    first, second = twins.disks
    assert first.wwn == second.wwn
    states = [row.rstrip().split("  ")[-1] for row in twins.fine("scan").splitlines()[1:]]
    assert states == ["not armed; its wwn is also that of /dev/sdb", "not armed; its wwn is also that of /dev/sda"]
    assert [line for line in twins.fine("scan --yaml").splitlines() if not line.startswith("  #")] == ["disks:"]
    sg = f"wwn: {first.wwn}, size: 8MiB, block: 512B, window: {{lba: 2048, blocks: 4096}}"
    twins.rig("desk", f"disks: {{disk-1: {{sg: {{{sg}}}}}}}")
    refusal = (
        f"refusing disk disk-1 of rig desk: 2 disks have wwn {first.wwn}: /dev/sda and /dev/sdb. "
        "If they are two paths to one disk, take one path away: it would be written behind the guard's back."
    )
    assert twins.hwvirt("arm desk.yaml --disk disk-1") == (3, "", f"hwvirt: {refusal}\n")
    code, _, shown = twins.hwvirt("run --no-live --runs /tmp/runs desk.yaml")
    assert (code, refusal in " ".join(shown.split())) == (3, True), shown
    assert twins.shell("cat /dev/sda /dev/sdb | tr -d '\\0' | wc -c") == "0\n"


def test_pulled_disk_fails_every_request_at_once_and_is_told(twins: Machine) -> None:
    disk = twins.disks[0]
    told = json.loads(twins.kernel.run([sys.executable, "-m", "tests.lab.guest_removal"], soon()))
    assert told["ends"] == ["not ready (2/04/03)"] * 4
    assert told["again"] == "not ready (2/04/03)"
    assert (told["slowest_s"] < 2.0, told["noticed_s"] < 2.0, told["at_once_s"] < 0.1) == (True, True, True), told
    removed, added = told["events"]
    assert removed == ["disk.removed", {"disk": disk.sg}]
    assert added[0] == "disk.added"
    assert (added[1]["wwn"], added[1]["serial"]) == (disk.wwn, disk.serial)
    assert added[1]["node"] != disk.sg
    assert (told["told"], told["still"]) == ([disk.sg], True)
