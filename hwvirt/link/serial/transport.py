"""The link over a serial line: opens the device, and opens it again when it was lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from hwvirt.errors import LinkError
from hwvirt.link.config import SerialLink
from hwvirt.link.errors import LinkDown
from hwvirt.link.ethernet import Backoff
from hwvirt.link.serial.driver import Connected, Driver
from hwvirt.link.serial.traits import LineStatistics
from hwvirt.link.serial.tty import open_wire

__all__ = ["SerialTransport"]


class SerialTransport:
    """One end of a serial line, whichever role it has."""

    port = 0

    def __init__(self, link: SerialLink, connected: Connected, unreachable: Callable[[LinkError], None]) -> None:
        self.statistics = LineStatistics()
        self._link = link
        self._connected = connected
        self._unreachable = unreachable
        self._backoff = Backoff(link.timing, link.seed)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to open the device; what goes wrong is told to `unreachable`, and tried again."""
        self._task = asyncio.create_task(self._keep_open())

    async def _keep_open(self) -> None:
        while True:
            driver = Driver(self._link, self._backoff, self.statistics, self._connected, self._unreachable)
            try:
                driver.run(await open_wire(self._link, driver))
                await driver.gone_because
            except LinkError as error:
                self._unreachable(error)
            finally:
                await driver.close(LinkDown("link: closed by this controller."))
            await asyncio.sleep(self._backoff.next_s())

    async def close(self) -> None:
        """Ends the session, and gives the device back when the other end knows that, or does not take it in time."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
