"""SgDisk on real /dev/sgN and /dev/sdX nodes: the kernel's own SG_IO over scsi_debug, in a kernel of the lab."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from hwvirt.lab.kernel import Kernel
from hwvirt.lab.process import lab_missing
from hwvirt.scsi.status import SenseKey, Status
from hwvirt.units import Deadline

pytestmark = [pytest.mark.lab, pytest.mark.skipif(shutil.which("linux.uml") is None, reason="user-mode Linux is missing")]

Ask: TypeAlias = Callable[[str], Any]
BAD_LBA = 0x1234
MODULES = (
    "modprobe sg",
    "modprobe sd_mod",
    "modprobe scsi_debug dev_size_mb=64 delay=0 lbpu=1 lbpws=1 lbprz=1",
    "while ! [ -e /dev/sda ] || ! [ -e /dev/sg0 ]; do sleep 0.05; done",
)


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Asks guest_sg.py a question: "name node"."""
    if shutil.which("linux.uml") is None:
        pytest.skip(lab_missing())
    with Kernel("a", tmp_path_factory.mktemp("lab")) as kernel:
        kernel.run(["sh", "-ec", "\n".join(MODULES)], Deadline.after(60.0))
        program = (Path(__file__).parent / "guest_sg.py").read_text()
        job = kernel.start([sys.executable, "-c", program])

        def ask(question: str) -> Any:
            job.send(f"{question}\n".encode(), Deadline.after(10.0))
            answer = job.line(Deadline.after(60.0))
            assert answer is not None, kernel.console.read_text()[-2000:]
            return json.loads(answer)

        yield ask


@pytest.fixture(params=["/dev/sg0", "/dev/sda"])
def ask(guest: Ask, request: pytest.FixtureRequest) -> Ask:
    return lambda question: guest(f"{question} {request.param}")


def test_facts_agree_with_libsgutils2(ask: Ask) -> None:
    ours, theirs, max_transfer_blocks = ask("facts")
    assert ours == theirs
    assert ours[:2] == ["Linux", "scsi_debug"]
    assert ours[5:7] == [131072, 512]
    assert 64 <= max_transfer_blocks <= 1024


def test_pass_through_object_of_libsgutils2_moves_data_both_ways_and_tells_how_each_command_ended(ask: Ask) -> None:
    wrote, same, bad, short, slow, late = ask("pass_through_object")
    assert wrote == ["GOOD", 0, "", "", ""]
    assert same == [True, True]
    assert bad == ["SENSE", 2, 512, True]
    assert short == ["GOOD", True, 4096]
    assert slow == ["GOOD", True, True]
    category, transport_error, text = late
    assert (category, transport_error) == ("TRANSPORT_ERROR", 3), late
    assert "DID_TIME_OUT" in text


def test_what_was_written_is_read_in_every_shape(ask: Ask) -> None:
    wrote, same, zeroed, gone, flushed = ask("contents")
    assert (wrote, same, zeroed, gone, flushed) == (True, True, True, True, True)


def test_more_commands_at_once_than_a_node_takes_all_end_well(ask: Ask) -> None:
    assert ask("many_threads") == [96, True]


def test_medium_error_comes_out_with_its_lba_and_for_its_item_only(ask: Ask) -> None:
    status, direct, told, lba = ask("medium_error")
    assert status == Status.CHECK_CONDITION
    assert direct == [SenseKey.MEDIUM_ERROR, 0x11, 0x00, BAD_LBA]
    assert told == ["read", [SenseKey.MEDIUM_ERROR, 0x11, 0x00, lba], "read"]


def test_reset_after_a_write_fails_the_next_flush_once(ask: Ask) -> None:
    flushed, wrote, was_reset, read, flushed_after, sense, flushed_again = ask("reset")
    assert (flushed, wrote, was_reset, read) == (True, True, True, True)
    assert (flushed_after, sense) == (False, [SenseKey.HARDWARE_ERROR, 0x0C])
    assert flushed_again


def test_recovered_error_is_told_by_the_disk_and_success_for_the_volume(ask: Ask) -> None:
    assert ask("recovered") == [SenseKey.RECOVERED_ERROR, True]


def test_short_transfer_with_good_status_is_no_success(ask: Ask) -> None:
    good, residual, length, sense = ask("short")
    assert good
    assert residual > 0
    assert length == 4096 - residual
    assert sense == [SenseKey.ABORTED_COMMAND, 0x4B]


def test_read_only_disk_reads_and_refuses_writes(ask: Ask) -> None:
    assert ask("read_only") == [True, True, [SenseKey.DATA_PROTECT, 0x27]]


def test_disk_that_does_not_answer_is_late_and_then_serves_again(guest: Ask) -> None:
    assert guest("late /dev/sg0") == [True, True]


def test_pulled_disk_fails_at_once(guest: Ask) -> None:
    assert guest("pulled /dev/sg0") == [True, True]
