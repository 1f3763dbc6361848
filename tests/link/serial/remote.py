"""A tty behind RFC 2217, as a terminal server in a laboratory has it."""

from __future__ import annotations

import socket
import threading

import serial
import serial.rfc2217

__all__ = ["RemotePort"]


class _Pty(serial.Serial):
    """A pty has no modem lines, and refuses whoever asks for them."""

    cts = dsr = ri = cd = False

    def _update_dtr_state(self) -> None:
        pass

    def _update_rts_state(self) -> None:
        pass


class RemotePort:
    """A tty behind RFC 2217 on the loopback interface, for one connection after the other."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.1)
        self._open = True
        self._thread = threading.Thread(target=self._serve)
        self.url = f"rfc2217://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> RemotePort:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._thread.join()
        self._listener.close()

    def write(self, data: bytes) -> None:
        """Called by the port manager with what goes to the client."""
        self._client.sendall(data)

    def _serve(self) -> None:
        while self._open:
            try:
                self._client, _ = self._listener.accept()
            except TimeoutError:
                continue
            with self._client, _Pty(self._device, timeout=0) as port:
                manager = serial.rfc2217.PortManager(port, self)  # type: ignore[arg-type]  # the stubs know one kind of port only
                self._client.settimeout(0.001)
                while self._open:
                    try:
                        if not (data := self._client.recv(4096)):
                            break
                        port.write(b"".join(manager.filter(data)))
                    except TimeoutError:
                        pass
                    except OSError:
                        break
                    if data := port.read(4096):
                        self._client.sendall(b"".join(manager.escape(data)))
