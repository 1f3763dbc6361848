"""The kernel's side of SG_IO for tests: reads the header's memory as the kernel would, answers from a script."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from hwvirt.disk.sgio import SgIoHdr, SgIovec

SG_IO = 0x2285


@dataclass
class Answer:
    """What the kernel and the disk say about one command."""

    data: bytes = b""
    status: int = 0
    host_status: int = 0
    driver_status: int = 0
    sense: bytes = b""
    residual: int = 0
    error: OSError | None = None


@dataclass
class Seen:
    """What arrived for one command."""

    cdb: bytes
    data_out: bytes
    data_in_length: int
    timeout_ms: int
    segments: int


@dataclass
class FakeKernel:
    """Takes the place of ioctl(2): `answers` in order, then `otherwise`; `seen` keeps every command."""

    answers: list[Answer] = field(default_factory=list)
    otherwise: Callable[[Seen], Answer] = lambda seen: Answer(data=bytes(seen.data_in_length))
    seen: list[Seen] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
        monkeypatch.setattr("hwvirt.disk.sgio.fcntl.ioctl", self.ioctl)
        return self

    def ioctl(self, fd: int, request: int, header: SgIoHdr) -> int:
        if request != SG_IO:
            raise OSError(errno.ENOTTY, "not an SG_IO ioctl")
        assert header.interface_id == ord("S")
        seen = self._read(header)
        self.seen.append(seen)
        answer = self.answers.pop(0) if self.answers else self.otherwise(seen)
        if answer.error is not None:
            raise answer.error
        if header.dxfer_direction == -3 and answer.data:
            ctypes.memmove(header.dxferp, answer.data, min(len(answer.data), header.dxfer_len))
        ctypes.memmove(header.sbp, answer.sense, len(answer.sense))
        header.sb_len_wr = len(answer.sense)
        header.status, header.masked_status = answer.status, answer.status >> 1
        header.host_status, header.driver_status = answer.host_status, answer.driver_status
        header.resid = answer.residual
        header.duration = 3
        return 0

    @staticmethod
    def _read(header: SgIoHdr) -> Seen:
        cdb = ctypes.string_at(header.cmdp, header.cmd_len)
        data, segments = b"", 0
        if header.dxfer_direction == -2 and header.iovec_count:
            iovec = (SgIovec * header.iovec_count).from_address(header.dxferp)
            data = b"".join(ctypes.string_at(part.base, part.length) for part in iovec)
            segments = header.iovec_count
        elif header.dxfer_direction == -2:
            data, segments = ctypes.string_at(header.dxferp, header.dxfer_len), 1
        assert len(data) == (header.dxfer_len if header.dxfer_direction == -2 else 0)
        return Seen(cdb, data, header.dxfer_len if header.dxfer_direction == -3 else 0, header.timeout, segments)
