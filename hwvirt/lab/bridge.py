"""Reaches a socket in a guest from the launcher, for lines of text such as those of a control socket."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from hwvirt.lab.jobs import Job
from hwvirt.lab.kernel import Kernel
from hwvirt.lab.pacer import Pacer
from hwvirt.lab.process import LabError
from hwvirt.units import FOREVER

__all__ = ["Bridge"]

_RELAY = (sys.executable, "-m", "hwvirt.lab.guest.relay", "-")
_CHUNK_BYTES = 256
_TO_GUEST_BYTES_PER_S = 4_000.0  # the relay may be kept waiting for most of a second before too much lies unread on its line


class Bridge:
    """A unix socket of the launcher at `path`, each connection of which ends at `address` in the guest.

    `address` is a path there, or HOST:PORT. Lines of text go to the guest at 4 KB/s and come back at tens of MB/s. A
    connection takes half a second to begin and one of the kernel's job lines. It ends with the far side, or the kernel.
    """

    def __init__(self, kernel: Kernel, path: Path, address: str) -> None:
        """Listens. Raises OSError when the path cannot be used."""
        self._kernel = kernel
        self._path = path
        self._address = address
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._accept, name=f"lab bridge {path.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Takes no further connections; those that there are go on. Idempotent."""
        with suppress(OSError):  # closed before
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(near,), name="lab bridge", daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        connected = threading.Event()

        def answer(line: str) -> None:
            if not connected.is_set():  # the relay's own line
                connected.set()
                return
            with suppress(OSError):  # who asked has gone; the relay learns it from `_forward`
                near.sendall(f"{line}\n".encode())

        with near:
            try:
                job = self._kernel.start([*_RELAY, self._address], on_line=answer)
                threading.Thread(target=self._forward, args=(near, job, connected), daemon=True).start()
                job.wait(FOREVER)
            except LabError as error:
                os.write(2, f"{self._path}: {error}\n".encode())
            connected.set()
            with suppress(OSError):  # the near side was faster
                near.shutdown(socket.SHUT_RDWR)

    def _forward(self, near: socket.socket, job: Job, connected: threading.Event) -> None:
        connected.wait()  # what lies unread on a line that nobody reads yet can kill it
        pacer = Pacer(_TO_GUEST_BYTES_PER_S)
        with suppress(OSError, LabError):
            while data := near.recv(_CHUNK_BYTES):
                time.sleep(max(0.0, pacer.gone_at(len(data), time.monotonic()) - time.monotonic()))
                job.send(data, FOREVER)
            self._kernel.signal(job, "TERM")
