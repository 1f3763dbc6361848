"""What a line runs on: a tty or pty by its descriptor, or whatever pyserial reaches by URL, by two threads."""

from __future__ import annotations

import asyncio
import errno
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol
from urllib.parse import urlsplit

import serial

from hwvirt.errors import LinkError
from hwvirt.link.config import Flow, SerialLink

__all__ = ["Tty", "Wire", "WireOwner", "open_wire"]

_READ_BYTES = 1 << 16
_POLL_S = 0.1
_REMOTE = ("rfc2217://", "socket://")


class WireOwner(Protocol):
    """Who is told what happens on a wire, in the loop."""

    def received(self, data: bytes) -> None:
        """Bytes came: at most 64 KiB, at least one."""
        ...

    def writable(self) -> None:
        """The wire has taken what it was given and is not busy any more."""
        ...

    def gone(self, why: str) -> None:
        """The device is there no more; called once, and not after `close`."""
        ...


class Wire(Protocol):
    """An open device."""

    @property
    def busy(self) -> bool:
        """Whether the device has not yet taken what it was given."""
        ...

    def write(self, data: bytes) -> None:
        """Sends; to be called only when it is not busy."""
        ...

    async def close(self) -> None:
        """Gives the device back. Idempotent."""
        ...


async def open_wire(link: SerialLink, owner: WireOwner) -> Wire:
    """The device of the link: raw, 8N1, ours alone. Raises LinkError when it cannot be had."""
    if "://" not in link.device:
        return Tty(_opened(link), owner)
    opening = asyncio.ensure_future(asyncio.to_thread(_opened, link))
    try:
        return _Remote(await asyncio.shield(opening), owner)
    except asyncio.CancelledError:
        # Nobody wants it any more, but a thread is opening it: what it opens has to be closed.
        with suppress(LinkError):
            await asyncio.to_thread((await opening).close)
        raise


def _opened(link: SerialLink) -> serial.Serial:
    # pyserial sets raw mode with TCSANOW, which keeps what has come, and drops what a cooked tty has mangled before that.
    is_tty = "://" not in link.device
    if link.device.startswith(_REMOTE) and not _has_host_and_port(link.device):
        scheme, _, _ = link.device.partition("://")
        raise LinkError(f"link: {link.device} names no host and port.", next_step=f"Write it like {scheme}://HOST:PORT.")
    try:
        return serial.serial_for_url(
            link.device,
            link.baud,
            timeout=0 if is_tty else _POLL_S,
            rtscts=link.flow is Flow.RTSCTS,
            exclusive=True if is_tty else None,
        )
    except Exception as error:  # what is wrong with a URL is told by whatever pyserial stumbles over
        raise _cannot_open(error, link.device) from error


class Tty:
    """A tty of this machine."""

    def __init__(self, port: serial.Serial, owner: WireOwner) -> None:
        self._port = port
        self._owner = owner
        self._descriptor: int = port.fileno()
        self._loop = asyncio.get_running_loop()
        self._rest = memoryview(b"")
        self._open = True
        self._loop.add_reader(self._descriptor, self._readable)

    @property
    def busy(self) -> bool:
        """See `Wire`."""
        return bool(self._rest)

    def write(self, data: bytes) -> None:
        """See `Wire`."""
        if not self._open:
            return
        self._rest = memoryview(data)
        self._push()
        if self._rest and self._open:
            self._loop.add_writer(self._descriptor, self._push_more)

    def _push(self) -> None:
        try:
            self._rest = self._rest[os.write(self._descriptor, self._rest) :]
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(os.strerror(error.errno or errno.EIO))

    def _push_more(self) -> None:
        self._push()
        if not self._rest and self._open:
            self._loop.remove_writer(self._descriptor)
            self._owner.writable()

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(os.strerror(error.errno or errno.EIO))
            return
        if data:
            self._owner.received(data)
        else:
            self._lose("hung up")

    def _lose(self, why: str) -> None:
        if self._open:
            self._give_back()
            self._loop.call_soon(self._owner.gone, why)

    def _give_back(self) -> None:
        self._open = False
        self._rest = memoryview(b"")
        self._loop.remove_reader(self._descriptor)
        self._loop.remove_writer(self._descriptor)
        self._port.close()

    async def close(self) -> None:
        """See `Wire`."""
        if self._open:
            self._give_back()


class _Remote:
    """A port of pyserial without a descriptor: one thread reads, one writes."""

    def __init__(self, port: serial.Serial, owner: WireOwner) -> None:
        self._port = port
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._out: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._open = True
        self.busy = False
        self._reader = threading.Thread(target=self._read, name="link reader", daemon=True)
        self._writer = threading.Thread(target=self._write, name="link writer", daemon=True)
        self._reader.start()
        self._writer.start()

    def write(self, data: bytes) -> None:
        """See `Wire`."""
        self.busy = True
        self._out.put(data)

    def _read(self) -> None:
        try:
            while self._open:
                data = self._port.read(1)
                if data:
                    self._tell(self._came, data + self._port.read(min(self._port.in_waiting, _READ_BYTES - 1)))
        except OSError as error:
            self._tell(self._lose, str(error))

    def _write(self) -> None:
        try:
            while data := self._out.get():
                self._port.write(data)
                self._tell(self._written)
        except OSError as error:
            self._tell(self._lose, str(error))

    def _tell(self, report: Callable[..., None], *facts: object) -> None:
        try:
            self._loop.call_soon_threadsafe(report, *facts)
        except RuntimeError:  # the loop is closed: nobody listens any more
            self._open = False

    def _came(self, data: bytes) -> None:
        if self._open:
            self._owner.received(data)

    def _written(self) -> None:
        self.busy = False
        if self._open:
            self._owner.writable()

    def _lose(self, why: str) -> None:
        if self._open:
            self._open = False
            self._out.put(b"")
            self._owner.gone(why)

    async def close(self) -> None:
        """See `Wire`."""
        self._open = False
        self._out.put(b"")
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        # The reader leaves by itself; the writer may hang until the port is closed.
        self._reader.join()
        self._port.close()
        self._writer.join()


def _has_host_and_port(url: str) -> bool:
    parts = urlsplit(url)
    try:
        return bool(parts.hostname and parts.port)
    except ValueError:  # the port is no number, or none of TCP
        return False


def _cannot_open(error: Exception, device: str) -> LinkError:
    match getattr(error, "errno", None):
        case errno.ENOENT:
            return LinkError(f"link: there is no {device}.", next_step="Correct the device, or connect the adapter.")
        case errno.EACCES | errno.EPERM:
            return LinkError(f"link: {device} may not be opened by this user.", next_step="Join the group that owns it.")
        case errno.EAGAIN | errno.EBUSY:
            return LinkError(f"link: {device} is in use.", next_step="End the program that has it open.")
        case _:
            return LinkError(
                f"link: cannot open {device}: {str(error).rstrip('.')}.", next_step="Check the device and the baud rate."
            )
