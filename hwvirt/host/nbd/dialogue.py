"""Drives a handshake that is written as a generator: bytes in, bytes out, no I/O.

The generator yields a `Step`: what to send, and how many bytes it then needs; it is resumed with exactly those bytes, and
returns the agreement. Both ends of the handshake are written this way, each in the order of the protocol's own text.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from typing import Generic, NamedTuple, TypeVar

from hwvirt.buffers import Buffer
from hwvirt.host.nbd.wire import NbdViolation

__all__ = ["Dialogue", "Script", "Step"]


class Step(NamedTuple):
    """Send `reply`, then go on with the next `wanted` bytes of the other end."""

    reply: bytes
    wanted: int


AgreementT = TypeVar("AgreementT")
Script = Generator[Step, bytes, AgreementT]


class Dialogue(Generic[AgreementT]):
    """One handshake on its way: it needs `wanted` more bytes; once it is `finished`, `agreement` is what it came to."""

    def __init__(self, script: Script[AgreementT]) -> None:
        self._script = script
        self.wanted = 0
        self._outgoing: list[bytes] = []
        self.agreement: AgreementT | None = None
        self.finished = False
        self._resume(None)

    def receive(self, unread: Buffer) -> int:
        """Takes what it can use from the front of `unread`; returns the number of bytes it has consumed.

        Raises NbdViolation when the other end broke the protocol.
        """
        consumed = 0
        while not self.finished and len(unread) - consumed >= self.wanted:
            wanted = self.wanted
            self._resume(bytes(unread[consumed : consumed + wanted]))
            consumed += wanted
        return consumed

    def outgoing(self) -> list[bytes]:
        """What has to be sent now, in order; each only once."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing

    def _resume(self, data: bytes | None) -> None:
        try:
            step = next(self._script) if data is None else self._script.send(data)
        except StopIteration as stop:
            self.agreement, self.finished = stop.value, True
            return
        except struct.error as reason:
            raise NbdViolation(f"a message does not have its form: {reason}") from reason
        self.wanted = step.wanted
        if step.reply:
            self._outgoing.append(step.reply)
