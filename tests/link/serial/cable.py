"""A serial cable between two ptys, in real time: threads carry bytes at a baud rate, and spoil or lose them when told."""

from __future__ import annotations

import os
import random
import select
import threading
import time
from contextlib import suppress

from hwvirt.link.baud import line_s

__all__ = ["PtyCable"]

_QUANTUM_S = 0.001
_LEAST_CHUNK_BYTES = 16
_POLL_S = 0.02


class PtyCable:
    """`devices` are the two ttys, cooked and echoing as a kernel opens them. Use it in a `with` block."""

    def __init__(self, baud: int, seed: int = 0) -> None:
        self.up = True
        self.flip_rate = 0.0
        self._byte_s = line_s(1, baud)
        self._chunk_bytes = max(_LEAST_CHUNK_BYTES, int(_QUANTUM_S / self._byte_s))
        self._random = random.Random(seed)
        pairs = [os.openpty(), os.openpty()]
        self._masters = [master for master, _ in pairs]
        self._slaves = [slave for _, slave in pairs]  # open, so that a device that is closed is not a hung up one
        for master in self._masters:
            os.set_blocking(master, False)
        self.devices = [os.ttyname(slave) for slave in self._slaves]
        self._plugged = True
        ways = [(self._masters[0], self._masters[1]), (self._masters[1], self._masters[0])]
        self._threads = [threading.Thread(target=self._relay, args=way, daemon=True) for way in ways]

    def __enter__(self) -> PtyCable:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        for descriptor in self._slaves + self._masters:
            os.close(descriptor)
        self._slaves, self._masters = [], []

    def unplug_adapters(self) -> None:
        """Both devices hang up."""
        self._stop()
        for master in self._masters:
            os.close(master)
        self._masters = []

    def _stop(self) -> None:
        self._plugged = False
        for thread in self._threads:
            thread.join()

    def _relay(self, source: int, target: int) -> None:
        free_at, waited = 0.0, True
        while self._plugged:
            try:
                data = os.read(source, self._chunk_bytes)
            except BlockingIOError:
                select.select([source], [], [], _POLL_S)
                waited = True
                continue
            now = time.monotonic()
            # What lay ready while this thread overslept has gone in time, as it would from a UART.
            free_at = (max(free_at, now - _QUANTUM_S) if waited else free_at) + len(data) * self._byte_s
            waited = False
            if free_at > now:
                time.sleep(free_at - now)
            if self.up:
                with suppress(BlockingIOError):  # nobody reads there: lost, as by a UART
                    os.write(target, self._spoilt(data))

    def _spoilt(self, data: bytes) -> bytes:
        if not self.flip_rate:
            return data
        return bytes(
            byte ^ (1 << self._random.randrange(8)) if self._random.random() < self.flip_rate else byte for byte in data
        )
