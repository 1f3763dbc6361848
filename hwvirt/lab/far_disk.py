"""A disk of another kernel, for reading: the judge looks at it past the controller that has it.

    python -m hwvirt.lab.far_disk HOST:PORT /dev/sgN WITNESS        in the kernel that has the disk

A request is a line of JSON, {"cdb": HEX, "length": N} or {"witness": true}; the answer is a line of JSON with "size", and
then so many bytes. Only commands that change nothing are executed.
"""

from __future__ import annotations

import socket
import socketserver
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from typing_extensions import override

from hwvirt.disk.passthrough import SgDisk
from hwvirt.errors import DiskError, HwvirtError
from hwvirt.scsi.cdb import medium_changing
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.status import Status
from hwvirt.scsi.volume import Access
from hwvirt.units import Deadline

__all__ = ["FarDisk", "main"]

_COMMAND_S = 30.0


class _Request(msgspec.Struct, omit_defaults=True):
    cdb: str = ""
    length: int = 0
    witness: bool = False


class _Answer(msgspec.Struct, omit_defaults=True):
    size: int
    status: int = 0
    sense: str = ""
    residual: int = 0
    error: str = ""


class _Lost(Exception):
    """The connection ended before the answer was whole."""


class FarDisk:
    """A `Disk` in another kernel, at HOST:PORT. One command at a time.

    A connection that is lost, with the power of that kernel, is made anew once: nothing that is asked changes anything.
    """

    quick = False

    def __init__(self, address: str) -> None:
        """Raises DiskError when nothing answers there."""
        self.name = address
        self._connect()

    def _connect(self) -> None:
        host, _, port = self.name.rpartition(":")
        try:
            self._connection = socket.create_connection((host, int(port)), _COMMAND_S)
        except OSError as error:
            raise DiskError(f"the far disk at {self.name} cannot be reached: {error.strerror or error}.") from error
        self._stream = self._connection.makefile("rb")

    def execute(self, command: Command, deadline: Deadline) -> Completion:
        """See `Disk`."""
        answer, data = self._ask(_Request(command.cdb.hex(), command.data_in_length))
        return Completion(Status(answer.status), (data,), bytes.fromhex(answer.sense), answer.residual)

    def witness(self) -> bytes:
        """The file in which the controller's medium-changing CDBs are written down."""
        return self._ask(_Request(witness=True))[1]

    def _ask(self, request: _Request) -> tuple[_Answer, bytes]:
        try:
            answer, data = self._ask_once(request)
        except (_Lost, OSError):
            self.close()
            self._connect()
            try:
                answer, data = self._ask_once(request)
            except (_Lost, OSError) as error:
                raise DiskError(f"the far disk at {self.name} does not answer: {error}.") from error
        if answer.error:
            raise DiskError(f"the far disk at {self.name}: {answer.error}")
        return answer, data

    def _ask_once(self, request: _Request) -> tuple[_Answer, bytes]:
        self._connection.sendall(msgspec.json.encode(request) + b"\n")
        try:
            answer = msgspec.json.decode(self._stream.readline(), type=_Answer)
        except msgspec.DecodeError as error:
            raise _Lost(f"it sent no answer ({error})") from error
        data = self._stream.read(answer.size)
        if len(data) < answer.size:
            raise _Lost(f"it sent {len(data)} bytes of {answer.size}")
        return answer, data

    def close(self) -> None:
        """See `Disk`."""
        self._stream.close()
        self._connection.close()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], disk: SgDisk, witness: Path) -> None:
        self.disk, self.witness = disk, witness
        super().__init__(address, _Handler)


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    @override
    def handle(self) -> None:
        for line in self.rfile:
            answer, data = self._answer(msgspec.json.decode(line, type=_Request))
            self.wfile.write(msgspec.json.encode(answer) + b"\n" + data)

    def _answer(self, request: _Request) -> tuple[_Answer, bytes]:
        if request.witness:
            data = self.server.witness.read_bytes()
            return _Answer(len(data)), data
        cdb = bytes.fromhex(request.cdb)
        if medium_changing(cdb):
            return _Answer(0, error="it is for reading only."), b""
        try:
            ended = self.server.disk.execute(Command(cdb, (), request.length), Deadline.after(_COMMAND_S))
        except HwvirtError as error:
            return _Answer(0, error=str(error)), b""
        data = b"".join(ended.data)
        return _Answer(len(data), int(ended.status), ended.sense.hex(), ended.residual), data


def main(argv: Sequence[str]) -> int:
    """Serves one disk until it is killed; prints a line once it does."""
    _, address, node, witness = argv
    host, _, port = address.rpartition(":")
    with _Server((host, int(port)), SgDisk(node, access=Access.READ_ONLY), Path(witness)) as server:
        print("serving", flush=True)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
