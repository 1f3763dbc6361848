"""The SG_IO border: the kernel's layout, and what goes in and comes out."""

from __future__ import annotations

import ctypes
import errno

import pytest

from hwvirt.disk.sgio import SgIoHdr, SgIovec, sg_io
from hwvirt.scsi.command import Command
from tests.disk.fakekernel import Answer, FakeKernel

READ = bytes.fromhex("88000000000000000000000000080000")
WRITE = bytes.fromhex("8a000000000000000000000000080000")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    return FakeKernel().install(monkeypatch)


def test_structures_lie_in_memory_as_the_kernel_has_them() -> None:
    assert ctypes.sizeof(SgIoHdr) == 88
    assert ctypes.sizeof(SgIovec) == 16
    places = {name: (getattr(SgIoHdr, name).offset, getattr(SgIoHdr, name).size) for name, _ in SgIoHdr._fields_}
    assert places == {
        "interface_id": (0, 4),
        "dxfer_direction": (4, 4),
        "cmd_len": (8, 1),
        "mx_sb_len": (9, 1),
        "iovec_count": (10, 2),
        "dxfer_len": (12, 4),
        "dxferp": (16, 8),
        "cmdp": (24, 8),
        "sbp": (32, 8),
        "timeout": (40, 4),
        "flags": (44, 4),
        "pack_id": (48, 4),
        "usr_ptr": (56, 8),
        "status": (64, 1),
        "masked_status": (65, 1),
        "msg_status": (66, 1),
        "sb_len_wr": (67, 1),
        "host_status": (68, 2),
        "driver_status": (70, 2),
        "resid": (72, 4),
        "duration": (76, 4),
        "info": (80, 4),
    }
    assert (SgIovec.base.offset, SgIovec.length.offset) == (0, 8)


def test_data_in_comes_back_without_what_did_not_arrive(kernel: FakeKernel) -> None:
    kernel.answers = [Answer(data=b"ab" * 2048, residual=1024)]
    outcome = sg_io(3, Command(READ, data_in_length=4096), 5.0)
    assert (bytes(outcome.data), outcome.residual) == (b"ab" * 1536, 1024)
    assert kernel.seen[0].cdb == READ
    assert kernel.seen[0].data_in_length == 4096


def test_every_status_and_the_sense_come_back(kernel: FakeKernel) -> None:
    kernel.answers = [Answer(status=2, host_status=5, driver_status=0x18, sense=b"\x70\0\3")]
    outcome = sg_io(3, Command(bytes(6)), 5.0)
    assert (outcome.status, outcome.host_status, outcome.driver_status) == (2, 5, 8)
    assert (outcome.sense, bytes(outcome.data), outcome.duration_ms) == (b"\x70\0\3", b"", 3)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize(
    ("sizes", "segments"), [([4096], 1), ([512] * 8, 1), ([65536, 65536], 2), ([1 << 15] * 1025, 1), ([0, 65536, 65536], 3)]
)
def test_pieces_go_out_in_order_large_ones_from_where_they_lie(
    kernel: FakeKernel, kind: type, sizes: list[int], segments: int
) -> None:
    pieces = [kind(bytes([number % 251]) * size) for number, size in enumerate(sizes)]
    sg_io(3, Command(WRITE, pieces), 5.0)
    assert kernel.seen[0].data_out == b"".join(pieces)
    assert kernel.seen[0].segments == segments


def test_read_only_slices_go_out_as_they_are(kernel: FakeKernel) -> None:
    data = bytes(range(256)) * 1024
    sg_io(3, Command(WRITE, [memoryview(data)[1:70001], memoryview(data)[7:80007]]), 5.0)
    assert kernel.seen[0].data_out == data[1:70001] + data[7:80007]


@pytest.mark.parametrize(
    ("timeout_s", "timeout_ms"), [(5.0, 5000), (0.0004, 1), (float("inf"), 86_400_000), (1e9, 86_400_000)]
)
def test_deadline_becomes_milliseconds(kernel: FakeKernel, timeout_s: float, timeout_ms: int) -> None:
    sg_io(3, Command(bytes(6)), timeout_s)
    assert kernel.seen[0].timeout_ms == timeout_ms


def test_negative_residual_of_a_careless_adapter_counts_as_none(kernel: FakeKernel) -> None:
    kernel.answers = [Answer(data=b"x" * 512, residual=-7)]
    assert sg_io(3, Command(READ, data_in_length=512), 5.0).residual == 0


def test_bidirectional_command_is_refused_before_it_is_sent(kernel: FakeKernel) -> None:
    with pytest.raises(ValueError, match="no bidirectional commands"):
        sg_io(3, Command(WRITE, (b"x",), 512), 5.0)
    assert kernel.seen == []


def test_errors_of_the_system_call_pass_through(kernel: FakeKernel) -> None:
    kernel.answers = [Answer(error=OSError(errno.ENODEV, "gone"))]
    with pytest.raises(OSError, match="gone"):
        sg_io(3, Command(bytes(6)), 5.0)
